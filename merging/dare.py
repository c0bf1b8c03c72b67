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

from .combination import Options
from .entries import Cut, Left, weighted_sum, whole
from .ties import disjoint_mean


def dare_linear(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the weighted sum of what is left of the updates."""
    return weighted_sum(deltas, weights, dropped(options))


def dare_ties(deltas: Iterable[Tensor], weights: Sequence[float], options: Options) -> Tensor:
    """Return the mean, at each entry, of what is left of the weighted updates and has its elected sign."""
    return disjoint_mean(deltas, weights, options, dropped(options))


def dropped(options: Options) -> Left:
    """Return what drops entries of an update at random, so that the mean over all masks is the update."""

    def left(delta: Tensor) -> Cut:
        if options.density >= 1:
            return whole(delta)
        return _Drawn(options.density, options.generator or torch.default_generator)

    return left


class _Drawn:
    """The mask of one update, drawn anew whenever its first rows are asked for."""

    def __init__(self, density: float, generator: torch.Generator) -> None:
        """Begin with what the generator draws next."""
        self._density, self._generator = density, generator
        self._state = generator.get_state()

    def __call__(self, delta: Tensor, rows: slice) -> Tensor:
        """Return what is left of some rows."""
        if rows.start == 0:
            self._generator.set_state(self._state)
        block = delta[rows]
        mask = torch.bernoulli(torch.full(block.shape, self._density), generator=self._generator)
        return (block * mask.to(block.device)).div_(self._density)
