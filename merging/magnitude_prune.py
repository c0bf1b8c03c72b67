"""Magnitude pruning: of each update only the largest entries are kept, and these are added up.

    D = Σ w_i trim(D_i),      trim keeps the ⌊density · n⌋ entries of largest magnitude

Sources: the trimming step of TIES (Yadav et al. 2023, arXiv 2306.01708, §4); PEFT 0.21.2, utils/merge_utils.py, for the
name, the rounding, and which of equal entries are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .combination import Options
from .entries import Cut, Left, blocks, weighted_sum, whole

BITS = 48
"""So many bits of a float64 are left out when entries are sorted roughly: 4 of those behind the point are looked at."""


def magnitude_prune(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the weighted sum of the trimmed updates."""
    return weighted_sum(deltas, weights, trimmed(options.density))


def trimmed(density: float) -> Left:
    """Return what leaves the largest entries of an update, and zeros in place of all others.

    >>> delta = torch.tensor([3.0, -4.0, 1.0, 2.0])
    >>> trimmed(0.5)(delta)(delta, slice(4))
    tensor([ 3., -4.,  0.,  0.])
    """

    def left(delta: Tensor) -> Cut:
        if density >= 1:
            return whole(delta)
        count = int(density * delta.numel())
        smallest, is_clear = _smallest(delta, count)
        if is_clear:
            return lambda delta, rows: torch.where(delta[rows].abs() >= smallest, delta[rows], 0.0)
        # Several entries are as large as the last one that is kept.
        flat = delta.flatten()
        kept = torch.zeros(flat.shape, dtype=torch.bool, device=flat.device)
        kept[flat.abs().topk(count).indices] = True
        marks = kept.view(delta.shape)
        return lambda delta, rows: torch.where(marks[rows], delta[rows], 0.0)

    return left


def _smallest(delta: Tensor, count: int) -> tuple[float, bool]:
    """Return the magnitude of the last of the largest entries, and whether no further entry has it too.

    The entries are counted by their first bits; only those that share them with the one looked for are sorted.
    """
    if count == 0:
        return float("inf"), True
    counts = torch.zeros(2 ** (63 - BITS), dtype=torch.int64, device=delta.device)
    for rows in blocks(delta):
        counts += torch.bincount(_first_bits(delta[rows]), minlength=len(counts))
    from_there = counts.flip(0).cumsum(0).flip(0)
    place = int((from_there >= count).nonzero()[-1])
    larger = int(from_there[place] - counts[place])
    near = torch.cat([_magnitudes(delta[rows])[_first_bits(delta[rows]) == place] for rows in blocks(delta)])
    smallest = near.topk(count - larger).values[-1]
    return float(smallest), larger + int((near >= smallest).sum()) == count


def _magnitudes(block: Tensor) -> Tensor:
    return block.abs().double().flatten()


def _first_bits(block: Tensor) -> Tensor:
    """Return what sorts magnitudes roughly: exponent and first bits behind the point of each."""
    return _magnitudes(block).view(torch.int64) >> BITS
