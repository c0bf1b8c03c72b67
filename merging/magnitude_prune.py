"""Magnitude pruning: of each update only the largest entries are kept, and these are added up.

    D = Σ w_i trim(D_i),      trim keeps the ⌊density · n⌋ entries of largest magnitude

Sources: the trimming step of TIES (Yadav et al. 2023, arXiv 2306.01708, §4); PEFT 0.21.2, utils/merge_utils.py, for the
name and the rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .combination import Options, total


def magnitude_prune(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the weighted sum of the trimmed updates."""
    return total((w, trimmed(delta, options.density)) for w, delta in zip(weights, deltas, strict=True))


def trimmed(delta: Tensor, density: float) -> Tensor:
    """Return an update with all but its largest entries set to zero.

    >>> trimmed(torch.tensor([3.0, -4.0, 1.0, 2.0]), 0.5)
    tensor([ 3., -4.,  0.,  0.])
    """
    if density >= 1:
        return delta
    flat = delta.flatten()
    largest = flat.abs().topk(int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(delta)
