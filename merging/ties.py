"""TIES: trim, elect a sign for each entry, and average what agrees with it (Yadav et al. 2023).

    D = Σ_{i ∈ A} w_i trim(D_i) / |A|,      A: the updates whose entry has the elected sign

The sign is that of Σ trim(D_i) (`total`), or of the sum of their signs (`frequency`), in both cases without weights, as
in the paper. Where neither sign has the majority, by total nor by number, the entry becomes 0, so that the method is
the same for D and for -D; PEFT elects + there.

Sources: Yadav et al. 2023 (arXiv 2306.01708) §4; PEFT 0.21.2, utils/merge_utils.py, for what weights do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .combination import Options
from .magnitude_prune import trimmed


def ties(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean, at each entry, of the weighted updates that have its elected sign."""
    return disjoint_mean((trimmed(delta, options.density) for delta in deltas), weights, options)


def disjoint_mean(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean over the weighted updates that have the elected sign; entries that are zero do not count.

    Of each sign the sum and the number are kept until the sign is elected.
    """
    rest = iter(deltas)
    first = next(rest)
    plus, minus = _Side(first), _Side(first)
    whole = torch.zeros_like(first)
    for weight, delta in zip(weights, (delta for part in ([first], rest) for delta in part), strict=True):
        whole += delta
        plus.add(delta.clamp(min=0), weight)
        minus.add(delta.clamp(max=0), weight)
    signs = elected(whole, plus.count - minus.count, options)
    return torch.where(signs > 0, plus.mean(), 0) + torch.where(signs < 0, minus.mean(), 0)


class _Side:
    """The weighted sum of the entries of one sign, and their number."""

    def __init__(self, like: Tensor) -> None:
        self.sum = torch.zeros_like(like)
        self.count = torch.zeros_like(like, dtype=torch.int16)

    def add(self, part: Tensor, weight: float) -> None:
        """Count an update of which entries of the other sign are zero."""
        self.sum.add_(part, alpha=weight)
        self.count += part != 0

    def mean(self) -> Tensor:
        return self.sum / self.count.clamp(min=1)


def elected(total: Tensor, balance: Tensor, options: Options) -> Tensor:
    """Return the elected sign of each entry, 0 where there is no majority.

    total: the sum of the updates; balance: how many of them are positive there, less how many are negative.

    >>> elected(torch.tensor([2.0, -2.0, 0.0]), torch.tensor([2, 0, 0]), Options())
    tensor([ 1., -1.,  0.])
    >>> elected(torch.tensor([2.0, -2.0, 0.0]), torch.tensor([-1, 0, 0]), Options(majority="frequency"))
    tensor([-1., -1.,  0.])
    """
    votes = total if options.majority == "total" else balance.to(total.dtype)
    if options.favours_plus:
        return torch.where(votes >= 0, 1.0, -1.0).to(total.dtype)
    return torch.where(votes == 0, total, votes).sign()
