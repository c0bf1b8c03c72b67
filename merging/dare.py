"""DARE: entries of each update are dropped at random, and those that are left are scaled up (Yu et al. 2024).

    drop(D_i) = m_i ∘ D_i / density,      m_i ~ Bernoulli(density)
    D = Σ w_i drop(D_i)                                              dare_linear
    D = TIES without trimming, of the drop(D_i)                      dare_ties

The masks are drawn in float32, adapter by adapter, so that a seed gives those that PEFT draws.

Sources: Yu et al. 2024 (arXiv 2311.03099) §3; PEFT 0.21.2, utils/merge_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .combination import Options, total
from .ties import disjoint_mean


def dare_linear(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the weighted sum of what is left of the updates."""
    return total((w, dropped(delta, options)) for w, delta in zip(weights, deltas, strict=True))


def dare_ties(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean, at each entry, of what is left of the weighted updates and has its elected sign."""
    return disjoint_mean((dropped(delta, options) for delta in deltas), weights, options)


def dropped(delta: Tensor, options: Options) -> Tensor:
    """Return an update with entries dropped at random, whose mean over all masks is the update."""
    if options.density >= 1:
        return delta
    mask = torch.bernoulli(torch.full(delta.shape, options.density), generator=options.generator)
    return (delta * mask.to(delta.device)).div_(options.density)
