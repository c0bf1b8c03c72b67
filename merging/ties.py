"""TIES: trim, elect a sign for each entry, and average what agrees with it (Yadav et al. 2023).

    D = Σ_{i ∈ A} w_i trim(D_i) / |A|,      A: the updates whose entry has the elected sign

The sign is that of Σ trim(D_i) (`total`), or of the sum of their signs (`frequency`), in both cases without weights, as
in the paper. Where neither sign has the majority, by total nor by number, the entry becomes 0, so that the method is
the same for D and for -D; PEFT elects + there.

Sources: Yadav et al. 2023 (arXiv 2306.01708) §4; PEFT 0.21.2, utils/merge_utils.py, for what weights do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .combination import Options, stacked
from .magnitude_prune import trimmed


def ties(deltas: Sequence[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean, at each entry, of the weighted updates that have its elected sign."""
    return disjoint_mean([trimmed(delta, options.density) for delta in deltas], weights, options)


def disjoint_mean(deltas: Sequence[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean over the weighted updates that have the elected sign; entries that are zero do not count."""
    whole, factors = stacked(deltas, weights)
    agrees = whole.sign() == elected(whole, options)
    found: Tensor = (whole * factors * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
    return found


def elected(whole: Tensor, options: Options) -> Tensor:
    """Return the elected sign of each entry: 1 or -1, or 2, which no entry has, where there is no majority.

    whole: the updates (n, …).

    >>> elected(torch.tensor([[1.0, -3.0, 1.0], [1.0, 1.0, -1.0]]), Options())
    tensor([ 1., -1.,  2.])
    """
    votes = (whole if options.majority == "total" else whole.sign()).sum(dim=0)
    if options.favours_plus:
        return torch.where(votes >= 0, 1.0, -1.0).to(whole.dtype)
    signs = torch.where(votes == 0, whole.sum(dim=0), votes).sign()
    return torch.where(signs == 0, 2.0, signs)
