"""The contract of a merge method: a pure function from the updates of several adapters to one.

A method that only weighs the updates gives coefficients, and the sum keeps its low rank; any other gives a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import UsageError

Majority = Literal["total", "frequency"]
"""How the sign of an entry is elected: by the sum of the values, or by their number."""

Kept = Literal["sum", "rank", "factors"]
"""What the result is: the sum as it is, its ranks added up; the best of the largest rank of the parents; or sums of
the factors themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a method may be told besides the weights.

    Attributes:
        density: the part of the entries that is kept.
        majority: how signs are elected.
        generator: where random numbers come from; None for methods that need none.
        favours_plus: elect + where neither sign has the majority, as PEFT does; without it such entries become 0.
    """

    density: float = 1.0
    majority: Majority = "total"
    generator: torch.Generator | None = None
    favours_plus: bool = False


Coefficients = Callable[[Tensor, Sequence[float]], list[float]]
"""Inner products of the updates at one map (n, n), and weights → what each update is multiplied by in their sum."""

Matrix = Callable[[Iterable[Tensor], Sequence[float], Options], Tensor]
"""Updates of one shape at one map, float64, weights, and options → the merged update; they are asked for one by one, in
order, perhaps twice, so that they need not be in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One row of METHODS.

    Attributes:
        name: the name on the command line and in provenance.
        summary: one line for people.
        paper: where it comes from.
        equation: what it computes, D the result, D_i the updates, w_i the weights.
        coefficients: for methods whose result is a weighted sum.
        matrix: for all others.
        kept: what the result is.
        needs: options that must be given: `density`, `rank`.
        takes: options that may be given besides: `rank`, `seed`, `majority`.
        count: number of adapters that it merges, or None for any.
        by_tensor: whether it also adds up, tensor by tensor, what is no update of weights.
        default_weight: the weight of each adapter where none are given; None for one over their number.
    """

    name: str
    summary: str
    paper: str
    equation: str
    coefficients: Coefficients | None = None
    matrix: Matrix | None = None
    kept: Kept = "sum"
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    count: int | None = None
    by_tensor: bool = False
    default_weight: float | None = None

    @property
    def is_sum(self) -> bool:
        """Whether the result is Σ w_i D_i itself, before any compression."""
        return self.coefficients is weights_alone


def weights_alone(products: Tensor, weights: Sequence[float]) -> list[float]:
    """Return the weights themselves."""
    return list(weights)


def total(terms: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Return Σ w_i t_i of at least one term.

    >>> total([(2.0, torch.ones(2)), (-0.5, torch.ones(2))])
    tensor([1.5000, 1.5000])
    """
    rest = iter(terms)
    weight, tensor = next(rest)
    found = tensor * weight
    del tensor
    for weight, tensor in rest:
        found.add_(tensor, alpha=weight)
        # What comes next is made while this one has a name.
        del tensor
    return found


def check_density(density: float) -> None:
    """Refuse a density that means nothing.

    Raises:
        UsageError: it is not above 0 and at most 1.
    """
    if not 0 < density <= 1:
        raise UsageError(f"the density is {density:g}, expected a number above 0, at most 1")
