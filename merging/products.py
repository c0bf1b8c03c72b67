"""Lengths and inner products of updates, by their factors: none of them is built.

⟨B_1 A_1, B_2 A_2⟩ = trace((B_1ᵀ B_2) (A_2 A_1ᵀ)), two matrices of the size of the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..methods.deltas import Block, Delta


def inner(one: Block, two: Block) -> float:
    """Return the sum of the products of the entries of B_1 A_1 and B_2 A_2."""
    return float(((one.b.t() @ two.b) * (one.a @ two.a.t())).sum())


def norm(block: Block) -> float:
    """Return the Frobenius norm of B A, without the cancellation that a difference of squares would have."""
    if min(block.a.shape) == 0:
        return 0.0
    if block.a.shape[0] >= min(block.a.shape[1], block.b.shape[0]):
        return float((block.b @ block.a).norm())
    r_a, r_b = (torch.linalg.qr(m, mode="r").R for m in (block.a.t(), block.b))
    return float((r_b @ r_a.t()).norm())


def joined(blocks: Sequence[tuple[float, Block]]) -> Block:
    """Return factors of Σ c_i B_i A_i: those of all one after the other, the numbers in B."""
    if len(blocks) == 1:
        number, block = blocks[0]
        return block if number == 1 else Block(block.a, block.b * number)
    return Block(torch.cat([block.a for _, block in blocks]), torch.cat([block.b * c for c, block in blocks], dim=1))


def gram(deltas: Sequence[Delta | None], weight: Tensor | None) -> Tensor:
    """Return the inner products (n, n) of updates at one map, 0 for those that are none; weight: W, for gains."""
    if all(delta is None or (delta.blocks and delta.gain is None) for delta in deltas):
        blocks = [None if delta is None else delta.whole() for delta in deltas]
        rows = [[0.0 if a is None or b is None else inner(a, b) for b in blocks] for a in blocks]
        return torch.tensor(rows, dtype=torch.float64)
    matrices = [None if delta is None else delta.matrix(weight) for delta in deltas]
    rows = [[0.0 if a is None or b is None else float((a * b).sum()) for b in matrices] for a in matrices]
    return torch.tensor(rows, dtype=torch.float64)


def relative(difference: float, whole: float) -> float:
    """Return difference / whole, 0 where both are 0."""
    if whole:
        return difference / whole
    return math.inf if difference else 0.0
