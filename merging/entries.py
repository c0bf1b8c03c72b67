"""What methods on entries share: updates of which some entries are left, looked at block by block.

No more than one update and one sum are in memory as a whole, besides marks of a byte for each entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

ENTRIES = 2**17
"""So many entries are looked at at once."""

Cut: TypeAlias = Callable[[Tensor, slice], Tensor]
"""An update and some of its rows → what is left of these; the rows of an update are asked for in their order."""

Left: TypeAlias = Callable[[Tensor], Cut]
"""An update → how it is cut. The cut holds no update, so that it can be asked for again."""


def blocks(tensor: Tensor) -> Iterator[slice]:
    """Yield the rows of a tensor in their order, few enough for a block.

    >>> list(blocks(torch.zeros(3, 2**16)))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    count = max(1, ENTRIES // max(1, tensor[:1].numel()))
    for start in range(0, len(tensor), count):
        yield slice(start, min(start + count, len(tensor)))


def pairs(weights: Sequence[float], deltas: Iterable[Tensor]) -> Iterator[tuple[float, Tensor]]:
    """Yield weights with their updates, as zip does, which would hold each update until it has made the next one.

    Whoever asks deletes its own name of an update before it asks for the next.
    """
    numbers = iter(weights)
    for delta in deltas:
        yield next(numbers), delta
        del delta


def whole(delta: Tensor) -> Cut:
    """Return the cut that leaves everything."""
    return lambda delta, rows: delta[rows]


def weighted_sum(deltas: Iterable[Tensor], weights: Sequence[float], left: Left) -> Tensor:
    """Return the weighted sum of what is left of the updates."""
    found: Tensor | None = None
    for weight, delta in pairs(weights, deltas):
        cut = left(delta)
        if found is None:
            found = torch.empty_like(delta)
            for rows in blocks(delta):
                torch.mul(cut(delta, rows), weight, out=found[rows])
        else:
            for rows in blocks(delta):
                found[rows].add_(cut(delta, rows), alpha=weight)
        del delta
    if found is None:
        raise AssertionError("there is no update")
    return found
