"""Accounting for every tensor of an adapter from its own keys and shapes, without a base model at hand.

The layers that the keys name and the width that the shapes have give a Layout; what the configuration has in that
layout is compared with what is there. Whether that layout is the base model's is checked when the adapter is loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..adapter import MethodConfig
from ..architectures import Architecture, Layers
from ..errors import UsageError
from ..methods import BottleneckConfig, Shapes, shapes
from ..sites import Layout, Norm, Site

if TYPE_CHECKING:
    import torch

MOST_LAYERS = 1024
"""Layers beyond this index are a damaged key, not a model."""

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
    size = width(have)
    left_out = {layer for part in config if isinstance(part, BottleneckConfig) for layer in part.leave_out}
    sites: list[Site] = []
    norms: list[tuple[str, int | None]] = [(path, None) for path in row.norms]
    first = 0
    for stack in row.layers:
        count = _layers(stack, have, {layer - first for layer in left_out})
        for i in range(count):
            path = stack.path.replace("{i}", str(i))
            sites += stack.sites(path, first + i, size)
            norms += [(f"{path}.{norm}", first + i) for norm in stack.norms]
        first += count
    # RMS norms have no bias; in one model either all norms have one or none has.
    biased = any(f"{path}.bias" in have for path, _ in norms)
    parameters = {"weight": (size,), "bias": (size,)} if biased else {"weight": (size,)}
    return Layout(
        architecture=row.name,
        layers=first,
        width=size,
        sites=tuple(sites),
        norms=tuple(Norm(path=path, layer=layer, shapes=parameters) for path, layer in norms),
        pooler=row.pooler is not None,
    )


def width(have: Shapes) -> int:
    """Return the hidden size that most tensors speak for, 0 where none does.

    >>> width({"a.bottleneck_up.weight": (32, 8), "a.bottleneck_up.bias": (32,)})
    32
    """
    votes = Counter(size for key, shape in have.items() if (size := _width(key, shape)))
    return votes.most_common(1)[0][0] if votes else 0


def _width(key: str, shape: tuple[int, ...]) -> int:
    """Return the hidden size that one tensor speaks for, or 0."""
    name = key.rsplit(".", 2)[-2:]
    if name[0] == "bottleneck_down" and len(shape) == 2:
        return shape[1]
    if name[0] == "bottleneck_up" and shape:
        return shape[0]
    if key == "head.0.weight" and len(shape) == 2:
        return shape[1]
    return shape[0] if len(shape) == 1 and "norm" in name[0].lower() else 0


def _layers(stack: Layers, have: Iterable[str], left_out: set[int]) -> int:
    """Return how many layers a stack must have for the keys, and the layers left out next to them, to stand in it."""
    found = {index for key in have if (index := _index(stack, key)) is not None}
    count = max(found, default=-1) + 1
    while count in left_out and count <= MOST_LAYERS:
        count += 1
    return count


def _index(stack: Layers, key: str) -> int | None:
    match = _pattern(stack.path).match(key)
    return int(match[1]) if match else None


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{i\}", "(0|[1-9][0-9]{0,17})") + r"\.")


def _too_far(key: str, row: Architecture) -> bool:
    return any((_index(stack, key) or 0) > MOST_LAYERS for stack in row.layers)
