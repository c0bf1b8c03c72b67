"""Accounting for every tensor of an adapter from its own keys and shapes, without a base model at hand.

The layers that the keys name and the width that the shapes have give a Layout; what the configuration has in that
layout is compared with what is there. Whether that layout is the base model's is checked when the adapter is loaded.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..adapter import MethodConfig
from ..architectures import Architecture, Layers, inside
from ..errors import UsageError
from ..methods import Facts, Shapes, left_out, method_of, shapes
from ..sites import Attention, Block, Layout, Linear, Norm, Projection
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
    config = list(config)
    known = _facts(config, have, row)
    size = _width(known)
    places = list(_places(config, have, row, known))
    norms = list(_norms(places, have, row, size))
    # RMS norms have no bias; in one model either all norms have one or none has.
    biased = any(f"{path}.bias" in have for path, _, _ in norms)
    return Layout(
        architecture=row.name,
        layers=len(places),
        width=size,
        sites=tuple(site for at in places for site in at.stack.sites(at.path, at.index, at.size, at.path)),
        norms=tuple(_norm(path, index, have, width, biased=biased) for path, index, width in norms),
        pooler=row.pooler is not None,
        linears=tuple(_linears(places, known)),
        attentions=tuple(_attentions(places, known)),
        blocks=tuple(Block(path=at.path, layer=at.index, width=at.size) for at in places),
        embeddings=tuple(names.embedding(_embedding(known) or size) for names in row.embeddings),
        reads=row.reads,
        parameters={path: shape for facts in known for path, shape in facts.parameters.items()},
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """One layer: what it has, its path, its number through all stacks, and its hidden size."""

    stack: Layers
    path: str
    index: int
    size: int


def width(config: Iterable[MethodConfig], tensors: Mapping[str, torch.Tensor], row: Architecture) -> int:
    """Return the hidden size that most tensors of an adapter speak for, 0 where none does."""
    have = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return _width(_facts(config, have, row))


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


def _places(
    config: Sequence[MethodConfig], have: Shapes, row: Architecture, known: Sequence[Facts]
) -> Iterator[_Place]:
    """Yield every layer. Towers of a model may differ in size; where no tensor tells it, it is that of the others."""
    named = layers.found(have, row.layers)
    for stack, indices, run in zip(row.layers, named, layers.runs(row, named, left_out(known)), strict=True):
        own = {key: shape for key, shape in have.items() if stack.index(key) is not None}
        size = _width(_facts(config, own, row)) or _width(known)
        inside, modules = [stack.layer(index) for index in indices], _modules(own)
        lacking = [part for part in stack.may_lack if not any(f"{layer}.{part}" in modules for layer in inside)]
        for index in run.indices:
            yield _Place(stack.without(lacking), stack.layer(index), run.number(index), size)


def _norms(
    places: Iterable[_Place], have: Shapes, row: Architecture, size: int
) -> Iterator[tuple[str, int | None, int]]:
    """Yield path, layer and size of every norm; one that some models do not have counts if it has tensors."""
    modules = _modules(have)
    for path in row.norms:
        if path in modules or not inside(path, row.may_lack):
            yield path, None, size
    for at in places:
        for norm in at.stack.norms:
            if f"{at.path}.{norm}" in modules or not inside(norm, at.stack.may_lack):
                yield f"{at.path}.{norm}", at.index, at.size


def _modules(keys: Iterable[str]) -> frozenset[str]:
    """Return the paths of all modules that keys name, and of those around them."""
    found: set[str] = set()
    for key in keys:
        path = key.rpartition(".")[0]
        while path and path not in found:
            found.add(path)
            path = path.rpartition(".")[0]
    return frozenset(found)


def _norm(path: str, index: int | None, have: Shapes, size: int, *, biased: bool) -> Norm:
    names = ("weight", "bias") if biased else ("weight",)
    return Norm(path=path, layer=index, shapes={name: have.get(f"{path}.{name}", (size,)) for name in names})


def _linears(places: Iterable[_Place], known: Iterable[Facts]) -> Iterator[Linear]:
    """Yield the linear maps that the row names, then others that have tensors."""
    found = {path: linear for facts in known for path, linear in facts.linears.items()}
    alike = {linear.roles: linear for linear in found.values()}
    for at in places:
        for name, (roles, cross) in at.stack.projections().items():
            path = f"{at.path}.{name}"
            one = found.pop(path, None) or alike.get(roles) or Linear(path=path, inputs=at.size, outputs=at.size)
            yield dataclasses.replace(one, path=path, roles=roles, layer=at.index, cross=cross)
    yield from found.values()


def _attentions(places: Iterable[_Place], known: Sequence[Facts]) -> Iterator[Attention]:
    """Yield the attentions, all heads of each counted as one."""
    found = {path: heads for facts in known for path, heads in facts.attentions.items()}
    widths = {name: size for facts in known for name, size in facts.stacks.items()}
    alike = next(iter(found.values()), 0)
    for at in places:
        for part in at.stack.attentions:
            path, size = f"{at.path}.{part.path}", widths.get(part.stack, at.size)
            heads = found.get(path, alike or size)
            yield Attention(path=path, stack=part.stack, layer=at.index, width=size, heads=1, head_size=heads)


def _too_far(key: str, row: Architecture) -> bool:
    return any(max(stack.index(key) or (0,)) > MOST_LAYERS for stack in row.layers)
