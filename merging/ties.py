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
from .entries import Left, blocks, pairs
from .magnitude_prune import trimmed


def ties(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean, at each entry, of the weighted updates that have its elected sign."""
    return disjoint_mean(deltas, weights, options, trimmed(options.density))


def disjoint_mean(deltas: Iterable[Tensor], weights: Sequence[float], options: Options, left: Left) -> Tensor:
    """Return the mean over what is left of the weighted updates and has the elected sign; zeros do not count.

    The updates are gone through twice: once for the signs, once for the means.
    """
    cuts, found, count = [], None, None
    votes = _Votes(options)
    for delta in deltas:
        cuts.append(left(delta))
        for rows in blocks(delta):
            votes.add(delta, rows, cuts[-1](delta, rows))
        del delta
    signs = votes.signs()
    del votes
    own = iter(cuts)
    for weight, delta in pairs(weights, deltas):
        cut = next(own)
        if found is None or count is None:
            found, count = torch.zeros_like(delta), torch.zeros_like(delta, dtype=torch.int16)
        for rows in blocks(delta):
            agreeing = _agreeing(cut(delta, rows), signs[rows])
            found[rows].add_(agreeing, alpha=weight)
            count[rows] += agreeing != 0
        del delta
    if found is None or count is None:
        raise AssertionError("there is no update")
    for rows in blocks(found):
        found[rows].div_(count[rows].clamp(min=1))
    return found


def _agreeing(block: Tensor, signs: Tensor) -> Tensor:
    """Return the entries that have the elected sign, and zeros in place of all others."""
    return torch.where(signs > 0, block.clamp(min=0), torch.where(signs < 0, block.clamp(max=0), 0.0))


class _Votes:
    """What the updates say of the signs so far: the sum of the entries, and where numbers decide, the balance."""

    def __init__(self, options: Options) -> None:
        """Start without votes."""
        self._options = options
        self._total: Tensor | None = None
        self._balance: Tensor | None = None

    def add(self, delta: Tensor, rows: slice, block: Tensor) -> None:
        """Count what is left of some rows of an update."""
        if self._total is None:
            self._total = torch.zeros_like(delta)
            if self._options.majority == "frequency":
                self._balance = torch.zeros_like(delta, dtype=torch.int16)
        self._total[rows] += block
        if self._balance is not None:
            self._balance[rows] += (block > 0).to(torch.int16) - (block < 0).to(torch.int16)

    def signs(self) -> Tensor:
        """Return the elected sign of each entry, a byte for each."""
        if self._total is None:
            raise AssertionError("there is no update")
        total, balance = self._total, self._balance
        found = torch.empty_like(total, dtype=torch.int8)
        for rows in blocks(total):
            found[rows] = elected(total[rows], total[rows] if balance is None else balance[rows], self._options)
        return found


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
