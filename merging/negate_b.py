"""Arithmetic on the factors of LoRAs, where a negative weight negates B alone (Zhang et al. 2023).

    A = Σ |w_i| A_i,      B = Σ w_i B_i

The product B A has mixed terms B_i A_j: it is no sum of the updates. With one adapter it scales by w². The sign of a
factor means nothing of itself, so the result depends on how each adapter came to its factors; `adapters` has it, and
`linear` here adds the updates.

Sources: Zhang et al. 2023 (arXiv 2306.14870) §3; `adapters` 1.3.0, methods/lora.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def negate_b(a: Sequence[Tensor], b: Sequence[Tensor], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return A and B."""
    first = sum((abs(w) * one for w, one in zip(weights, a, strict=True)), a[0].new_zeros(a[0].shape))
    second = sum((w * one for w, one in zip(weights, b, strict=True)), b[0].new_zeros(b[0].shape))
    return first, second
