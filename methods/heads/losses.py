"""The losses of heads: a mean over the items, or their sum divided by a given number of them.

A Trainer that accumulates gradients gives the number of items of all its batches, so that the sum over these batches
is the mean over all items. Losses are computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of what does not count."""


def classes(logits: Tensor, labels: Tensor, items: Tensor | int | None, ignored: int = IGNORED) -> Tensor:
    """Return the cross entropy of logits (…, classes) and labels (…)."""
    from torch.nn.functional import cross_entropy

    rows, targets = logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)
    return _shared(cross_entropy(rows, targets, ignore_index=ignored, reduction=_reduction(items)), items)


def numbers(logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Return the squared error of as many numbers."""
    from torch.nn.functional import mse_loss

    return _shared(mse_loss(logits.reshape(-1).float(), labels.reshape(-1).float(), reduction=_reduction(items)), items)


def several(logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Return the binary cross entropy of logits (batch, classes) and labels, a 0 or 1 for each of them."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    loss = binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction=_reduction(items))
    return _shared(loss, items)


def lengthened(values: Tensor, length: int, fill: int) -> Tensor:
    """Return values (batch, sequence), with fill in front for what stands in front of the text: prompts."""
    from torch.nn.functional import pad

    missing = length - values.shape[1]
    return values if missing <= 0 else pad(values, (missing, 0), value=fill)


def _reduction(items: Tensor | int | None) -> str:
    return "mean" if items is None else "sum"


def _shared(loss: Tensor, items: Tensor | int | None) -> Tensor:
    if items is None:
        return loss
    return loss / (items if isinstance(items, int) else items.to(loss.device))
