"""Accounting for every tensor of an adapter from its own keys and shapes, without a base model at hand.

The layers that the keys name and the width that the shapes have give a Layout; what the configuration has in that
layout is compared with what is there. Whether that layout is the base model's is checked when the adapter is loaded.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..adapter import MethodConfig
from ..architectures import Architecture, Layers
from ..errors import UsageError
from ..methods import Facts, Shapes, method_of, shapes
from ..sites import Attention, Block, Embedding, Layout, Linear, Norm, Projection
from . import layers
from .layers import MOST_LAYERS

if TYPE_CHECKING:
    import torch

MOST_SHOWN = 50
"""Faults told one by one."""


def faults(config: Sequence[MethodConfig], tensors: Mapping[str, torch.Tensor], row: Architecture) -> list[str]:
    """Return what is wrong with the account of an adapter, one sentence for each tensor: missing, unknown, other shape.

    Args:
        config: its configurations.
        tensors: canonical key → tensor.
        row: the architecture that the keys belong to.
    """
    have = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    far = [f"tensor {key!r} is of a layer beyond {MOST_LAYERS}" for key in have if _too_far(key, row)]
    if far:
        return shown(far)
    try:
        expected = shapes(config, layout(config, have, row))
    except UsageError as error:
        return [error.message]
    return shown(
        [f"tensor {key!r} has no place in the configuration" for key in have if key not in expected]
        + [
            f"tensor {key!r} has shape {have[key]}, expected {shape} from the configuration"
            for key, shape in expected.items()
            if key in have and have[key] != shape
        ]
        + [f"tensor {key!r} is missing, expected with shape {expected[key]}" for key in expected if key not in have]
    )


def shown(faults: list[str]) -> list[str]:
    """Return the first faults, and how many more there are.

    >>> shown(["a"])
    ['a']
    """
    more = len(faults) - MOST_SHOWN
    return faults if more <= 0 else [*faults[:MOST_SHOWN], f"… and {more} more"]


def layout(config: Iterable[MethodConfig], have: Shapes, row: Architecture) -> Layout:
    """Return the smallest layout in which canonical keys with these shapes can stand.

    Args:
        config: the configurations; layers that they leave out count although no key names them.
        have: canonical key → shape.
        row: the architecture.
    """
    known = _facts(config, have, row)
    size = _width(known)
    left_out = {layer for facts in known for layer in facts.left_out}
    places = list(_places(row, have, left_out))
    norms = [(path, None) for path in row.norms] + [
        (f"{path}.{norm}", index) for stack, path, index in places for norm in stack.norms
    ]
    # RMS norms have no bias; in one model either all norms have one or none has.
    biased = any(f"{path}.bias" in have for path, _ in norms)
    return Layout(
        architecture=row.name,
        layers=len(places),
        width=size,
        sites=tuple(site for stack, path, index in places for site in stack.sites(path, index, size, path)),
        norms=tuple(_norm(path, index, have, size, biased=biased) for path, index in norms),
        pooler=row.pooler is not None,
        linears=tuple(_linears(places, known, size)),
        attentions=tuple(_attentions(places, known, size)),
        blocks=tuple(Block(path=path, layer=index, width=size) for _, path, index in places),
        embeddings=tuple(
            Embedding(path=names.path, width=_embedding(known) or size, tokens=names.tokens, stack=names.stack)
            for names in row.embeddings
        ),
    )


def width(config: Iterable[MethodConfig], tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the hidden size that most tensors of an adapter speak for, 0 where none does."""
    have = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return _width([method_of(part).facts(part, have, lambda path: ()) for part in config])


def _facts(config: Iterable[MethodConfig], have: Shapes, row: Architecture) -> list[Facts]:
    """Return what each configuration and its tensors say of the model."""
    named = {f"{stack.path}.{path}": roles for stack in row.layers for path, (roles, _) in stack.projections().items()}

    def roles(path: str) -> tuple[Projection, ...]:
        for stack in row.layers:
            index = stack.index(path)
            if index is not None:
                return named.get(stack.path + path[len(stack.layer(index)) :], ())
        return ()

    return [method_of(part).facts(part, have, roles) for part in config]


def _width(known: Iterable[Facts]) -> int:
    votes = Counter(size for facts in known for size in facts.widths)
    return votes.most_common(1)[0][0] if votes else 0


def _embedding(known: Iterable[Facts]) -> int:
    return max((facts.embedding for facts in known), default=0)


def _places(row: Architecture, have: Shapes, left_out: set[int]) -> Iterator[tuple[Layers, str, int]]:
    """Yield what it has, path and number of every layer."""
    named = layers.found(have, row.layers)
    for stack, indices, run in zip(row.layers, named, layers.runs(row, named, left_out), strict=True):
        places = [stack.layer(index) for index in indices]
        lacking = [part for part in stack.may_lack if not any(_has(have, f"{place}.{part}") for place in places)]
        for index in run.indices:
            yield stack.without(lacking), stack.layer(index), run.number(index)


def _has(have: Iterable[str], path: str) -> bool:
    return any(key.startswith(f"{path}.") for key in have)


def _norm(path: str, index: int | None, have: Shapes, size: int, *, biased: bool) -> Norm:
    names = ("weight", "bias") if biased else ("weight",)
    return Norm(path=path, layer=index, shapes={name: have.get(f"{path}.{name}", (size,)) for name in names})


def _linears(places: Iterable[tuple[Layers, str, int]], known: Iterable[Facts], size: int) -> Iterator[Linear]:
    """Yield the linear maps that the row names, then others that have tensors."""
    found = {path: linear for facts in known for path, linear in facts.linears.items()}
    alike = {linear.roles: linear for linear in found.values()}
    for stack, layer, index in places:
        for name, (roles, cross) in stack.projections().items():
            path = f"{layer}.{name}"
            one = found.pop(path, None) or alike.get(roles) or Linear(path=path, inputs=size, outputs=size)
            yield dataclasses.replace(one, path=path, roles=roles, layer=index, cross=cross)
    yield from found.values()


def _attentions(places: Iterable[tuple[Layers, str, int]], known: Sequence[Facts], size: int) -> Iterator[Attention]:
    """Yield the attentions, all heads of each counted as one."""
    found = {path: heads for facts in known for path, heads in facts.attentions.items()}
    alike = next(iter(found.values()), size)
    for stack, layer, index in places:
        for part in stack.attentions:
            path = f"{layer}.{part.path}"
            heads = found.get(path, alike)
            yield Attention(path=path, stack=part.stack, layer=index, width=size, heads=1, head_size=heads)


def _too_far(key: str, row: Architecture) -> bool:
    return any(max(stack.index(key) or (0,)) > MOST_LAYERS for stack in row.layers)
