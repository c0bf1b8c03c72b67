"""Attention masks of text and prefix.

A mask is boolean, true where a query sees a key, or a number that is added to the score; (batch or 1, heads or 1,
queries or 1, keys). None lets every query see every key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods import PrefixOp


def implied(query: Tensor, key: Tensor, *, causal: bool) -> Tensor | None:
    """Return the mask that sdpa means where it is given none: the queries are the first positions of the text."""
    queries, keys = query.shape[-2], key.shape[-2]
    if not causal or queries == 1:
        return None
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device).tril()


def widened(
    mask: Tensor | None, query: Tensor, key: Tensor, op: PrefixOp, seen: Tensor | None, bonus: float = 0.0
) -> Tensor | None:
    """Return the mask of the text with columns for the prefix in front.

    key: of the text alone; seen: which of the prefix each row sees (batch, 1, 1, length), or None for all; bonus: what
    the scores of the prefix get in a batch with padding.
    """
    if mask is None and seen is None:
        return None
    if mask is None:
        mask = torch.ones(1, 1, 1, key.shape[-2], dtype=torch.bool, device=query.device)
    if bonus:
        mask = additive(mask, query.dtype)
    columns = raised(mask, op.length, bonus) if bonus else mask.new_full((*mask.shape[:-1], op.length), _seen(mask))
    if seen is not None:
        return joined(columns.masked_fill(~seen, _hidden(mask)), mask)
    return torch.cat((columns, mask), dim=-1)


def joined(columns: Tensor, mask: Tensor) -> Tensor:
    """Return a mask with columns in front, of as many rows and queries as either has."""
    return torch.cat(_as_many(columns, mask), dim=-1)


def windowed(mask: Tensor | None, query: Tensor, key: Tensor, op: PrefixOp, start: Any, window: int) -> Tensor:
    """Return a mask of prefix and text in which a sliding window hides the prefix from queries far behind it.

    start: number of the first query.
    """
    if mask is None:
        mask = torch.ones(1, 1, 1, op.length + key.shape[-2], dtype=torch.bool, device=query.device)
    positions = torch.arange(query.shape[-2], device=mask.device) + start + op.shift
    behind = positions[:, None] - torch.arange(op.length, device=mask.device) >= window
    return joined(mask[..., : op.length].masked_fill(behind, _hidden(mask)), mask[..., op.length :])


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask that is added to the scores."""
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)


def raised(mask: Tensor, length: int, bonus: float) -> Tensor:
    """Return columns that raise the scores of the prefix if some key is padding: seen by no query of its row."""
    padded = (mask <= _hidden(mask)).all(dim=-2).any()
    return (padded * bonus).to(mask.dtype).expand(*mask.shape[:-1], length)


def _as_many(columns: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return two masks of the same rows, so that they can be joined."""
    shape = torch.broadcast_shapes(columns.shape[:-1], mask.shape[:-1])
    return columns.expand(*shape, -1), mask.expand(*shape, -1)


def _hidden(mask: Tensor) -> float:
    """Return what stands in a mask for a key that is not seen; 0 and 1 may stand for false and true."""
    return torch.finfo(mask.dtype).min if mask.is_floating_point() else 0


def _seen(mask: Tensor) -> float:
    return 0 if mask.is_floating_point() else 1
