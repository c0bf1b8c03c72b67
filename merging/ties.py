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
    """Return the mean over the weighted updates that have the elected sign; entries that are zero do not count."""
    votes: _Votes | None = None
    for weight, delta in zip(weights, deltas, strict=True):
        votes = votes or _Votes(delta)
        votes.add(delta, weight)
        del delta
    if votes is None:
        raise AssertionError("there is no update")
    return votes.mean(options)


class _Votes:
    """What is known of the updates so far: of each sign the weighted sum and the number of the entries."""

    def __init__(self, like: Tensor) -> None:
        self.total, self.plus, self.minus = (torch.zeros_like(like) for _ in range(3))
        self.pluses, self.minuses = (torch.zeros_like(like, dtype=torch.int16) for _ in range(2))

    def add(self, delta: Tensor, weight: float) -> None:
        """Count an update."""
        self.total += delta
        self.plus.add_(delta.clamp(min=0), alpha=weight)
        self.minus.add_(delta.clamp(max=0), alpha=weight)
        self.pluses += delta > 0
        self.minuses += delta < 0

    def mean(self, options: Options) -> Tensor:
        """Return the mean of the elected sign, in place of the sums."""
        signs = elected(self.total, self.pluses - self.minuses, options)
        self.plus.div_(self.pluses.clamp(min=1)).mul_(signs > 0)
        self.minus.div_(self.minuses.clamp(min=1)).mul_(signs < 0)
        return self.plus.add_(self.minus)


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
