"""Which layers a model must have for the keys of an adapter to stand in it.

Keys name the layers that have tensors; a configuration may leave others out, and those count too. In an
encoder-decoder the decoder's layers are counted on from the encoder's, so that how many these are decides which layers
of the decoder are left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from ..architectures import Architecture, Layers
from ..errors import FormatError

MOST_LAYERS = 1024
"""Layers beyond this index are a damaged key, not a model."""

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The layers of one stack.

    Attributes:
        first: number of its first layer.
        sizes: number of its layers, or of its groups and of the layers in each.
    """

    first: int
    sizes: Index

    @property
    def indices(self) -> list[Index]:
        """The indices of its layers, in order.

        >>> Run(0, (2, 2)).indices
        [(0, 0), (0, 1), (1, 0), (1, 1)]
        """
        return list(product(*(range(size) for size in self.sizes)))

    @property
    def count(self) -> int:
        """How many layers there are."""
        return math.prod(self.sizes)

    def number(self, index: Index) -> int:
        """Return the number of a layer.

        >>> Run(6, (2, 2)).number((1, 0))
        8
        """
        place = 0
        for size, at in zip(self.sizes, index, strict=True):
            place = place * size + at
        return self.first + place


def found(keys: Iterable[str], stacks: Sequence[Layers]) -> list[set[Index]]:
    """Return the indices of the layers that keys name, for each stack."""
    indices: list[set[Index]] = [set() for _ in stacks]
    for key in keys:
        for stack, named in zip(stacks, indices, strict=True):
            index = stack.index(key)
            if index is not None:
                named.add(index)
    return indices


def refuse_many(sizes: Index) -> None:
    """Refuse more layers than models have; sizes: number of layers, or of groups and of the layers in each.

    Raises:
        FormatError: says how many there are.
    """
    if math.prod(sizes) > MOST_LAYERS + 1:
        raise FormatError(
            f"the tensors name {math.prod(sizes):,} layers, and models have up to {MOST_LAYERS:,}",
            hint="the names of the tensors are damaged",
        )


def runs(row: Architecture, named: Sequence[Collection[Index]], left_out: Collection[int]) -> list[Run]:
    """Return the layers of each stack.

    Args:
        row: the architecture.
        named: for each stack the indices of layers that have tensors.
        left_out: numbers of layers that have none because the configuration leaves them out.
    """
    made: list[Run] = []
    first = 0
    for number, stack in enumerate(row.layers):
        first = 0 if stack.restarts else first
        run = _smallest(stack, first, named[number], left_out)
        behind = _next(row, named, number, left_out)
        while first + run.count in left_out and run.count <= MOST_LAYERS:
            if _is_complete(run, behind, left_out, empty=not named[number] and row.may_lack != ()):
                break
            run = _longer(run)
        if behind and not named[number]:
            run = _agreeing(run, behind, left_out)
        made.append(run)
        first += run.count
    return made


def _smallest(stack: Layers, first: int, named: Collection[Index], left_out: Collection[int]) -> Run:
    """Return the layers up to the last that has tensors; groups are as large as what is left out in them tells."""
    run = Run(first, _sizes(named, stack.path.count("{i}")))
    refuse_many(run.sizes)
    larger = run
    while len(run.sizes) > 1 and any(larger.number(index) in left_out for index in named):
        if larger.count > MOST_LAYERS:
            return run
        larger = Run(first, (run.sizes[0], larger.sizes[1] + 1))
        if larger.number(max(named)) > max(left_out):
            return run if any(larger.number(index) in left_out for index in named) else larger
    return larger


def _longer(run: Run) -> Run:
    return Run(run.first, (run.sizes[0] + 1, *(max(1, size) for size in run.sizes[1:])))


def _agreeing(run: Run, behind: Collection[int], left_out: Collection[int]) -> Run:
    """Return a run that no key names, with so many layers that what is left out lacks tensors in the one behind it."""
    longer = run
    while not _is_complete(longer, behind, left_out, empty=False):
        if longer.first + longer.count > max(left_out, default=-1) or longer.count > MOST_LAYERS:
            return run
        longer = _longer(longer)
    return longer


def _sizes(indices: Collection[Index], depth: int) -> Index:
    return tuple(max((index[place] for index in indices), default=-1) + 1 for place in range(depth))


def _next(
    row: Architecture, named: Sequence[Collection[Index]], number: int, left_out: Collection[int]
) -> Collection[int]:
    """Return the layers, counted from 0, of the stack that is counted on from this one, () where there is none."""
    for stack, indices in zip(row.layers[number + 1 :], named[number + 1 :], strict=True):
        if stack.restarts:
            return ()
        if indices:
            run = _smallest(stack, 0, indices, left_out)
            return {run.number(index) for index in indices}
    return ()


def _is_complete(run: Run, behind: Collection[int], left_out: Collection[int], *, empty: bool) -> bool:
    """Return whether the stack may end here: what is left out behind it is what has no tensors there."""
    if not behind:
        return empty
    start = run.first + run.count
    return all(((start + i) in left_out) == (i not in behind) for i in range(max(behind) + 1))
