"""What a head reads that answers once for each text: one vector for each.

Sources: Devlin et al. 2019 (arXiv 1810.04805) §3 for the first token; Reimers & Gurevych 2019 (arXiv 1908.10084) §3 for
the mean; Lewis et al. 2019 (arXiv 1910.13461) §3.1 for the end token of the decoder; `adapters` 1.3.0,
heads/base.py (`_get_cls_output`) and models/*/adapter_model.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from ...errors import StateError, UnsupportedError, UsageError
from ...sites import Layout
from ..method import Live, Seen, Settings
from . import layers
from .losses import lengthened

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["first", "last", "eos", "mean", "pooler"]
"""The `first` token, the `last` token that is no padding, the last `eos` token, the `mean` over the tokens that are no
padding, or the `pooler`'s output."""


@dataclass(frozen=True, kw_only=True)
class PooledConfig(layers.LayeredConfig):
    """What every head has that answers once for each text.

    Attributes:
        pooling: what the first layer reads; None is what the base model's family reads.
    """

    pooling: Pooling | None = None


C = TypeVar("C", bound=PooledConfig)


class PooledHead(layers.LayeredHead):
    """What those heads have in common in the forward pass."""

    __slots__ = ("compat", "pooling")

    def __init__(self, config: PooledConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        super().__init__(config, tensors, live)
        self.compat = live.compat
        self.pooling = chosen(config.pooling, live.layout)

    def answers(self, seen: Seen) -> Tensor:
        """Return what the layers make of each text (batch, rows)."""
        return self.dense(vectors(self.pooling, seen, self.settings, compat=self.compat))


def settled(config: C, layout: Layout) -> C:
    """Return the configuration with a pooling.

    Raises:
        UnsupportedError: the head reads a pooler that the model does not have.
    """
    return replace(config, pooling=chosen(config.pooling, layout))


def chosen(pooling: Pooling | None, layout: Layout) -> Pooling:
    """Return pooling, or what the model's family reads where that is None.

    Raises:
        UnsupportedError: the model has no pooler, or nothing that a head could read.
    """
    found = pooling or layout.reads
    if found == "":
        raise UnsupportedError(f"no prediction head can stand on a model of the family {layout.architecture}")
    if found == "pooler" and not layout.pooler:
        raise UnsupportedError(
            "the head reads the output of the base model's pooler, and this model has none",
            hint="load the model class that keeps its pooler",
        )
    return found


def vectors(pooling: Pooling, seen: Seen, settings: Settings, *, compat: bool) -> Tensor:
    """Return what a head reads of each text (batch, width); compat: as in Live."""
    from torch import arange

    hidden = seen.hidden
    if pooling == "pooler":
        return _pooler(seen)
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "mean":
        return _mean(seen)
    at = _end(seen, settings) if pooling == "eos" else _last(seen, settings.padding, compat=compat)
    return hidden[:, -1] if at is None else hidden[arange(hidden.shape[0], device=hidden.device), at]


def _pooler(seen: Seen) -> Tensor:
    if seen.pooled is None:
        raise StateError("the base model gave no output of its pooler", hint="ask it for no other kind of output")
    return seen.pooled


def _mean(seen: Seen) -> Tensor:
    mask = seen.entered.get("attention_mask")
    if mask is None:
        return seen.hidden.mean(dim=1)
    weights = lengthened(mask, seen.hidden.shape[1], 1).to(seen.hidden.dtype).unsqueeze(-1)
    return (seen.hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _last(seen: Seen, padding: int | None, *, compat: bool) -> Tensor | None:
    """Return the place of the last token that is no padding (batch), None where nothing tells it from the others."""
    ids, mask = seen.entered.get("input_ids"), seen.entered.get("attention_mask")
    if ids is not None and padding is not None:
        real: Tensor = ids != padding
    elif mask is not None and mask.dim() == 2 and not compat:
        real = mask != 0
    else:
        return None
    if compat:
        # adapters 1.3.0 counts tokens, which is their last one's place only where padding stands behind them.
        count: Tensor = real.sum(dim=-1) - 1
        return count
    place: Tensor = _rightmost(real) + seen.hidden.shape[1] - real.shape[1]
    return place


def _end(seen: Seen, settings: Settings) -> Tensor:
    """Return the place of the last end token (batch)."""
    from torch.compiler import is_compiling

    ids = seen.entered.get("input_ids")
    if ids is None:
        raise UsageError("the head reads the hidden state of each text's end token: give the texts as input_ids")
    if ids.shape[1] != seen.hidden.shape[1]:
        raise UsageError(
            f"the head reads the decoder at the end token of the input, but the input has {ids.shape[1]} tokens and "
            f"the decoder's {seen.hidden.shape[1]}",
            hint="leave decoder_input_ids away, or give as many",
        )
    real = (ids.unsqueeze(-1) == ids.new_tensor(settings.end)).any(dim=-1)
    if not is_compiling() and not bool(real.any(dim=-1).all()):
        raise UsageError(
            f"a text has no end token (id {', '.join(map(str, settings.end)) or 'not configured'}), which the "
            "head reads",
            hint="let the tokenizer add its special tokens",
        )
    return _rightmost(real)


def _rightmost(real: Tensor) -> Tensor:
    """Return the last place that is true of each row (batch)."""
    from torch import arange

    return (arange(real.shape[1], device=real.device) * real).argmax(dim=-1)
