"""What the base model is called with when a head stands on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..method import Settings
from .losses import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def entering(
    given: Mapping[str, Any], takes: Collection[str], settings: Settings, target: Any = None
) -> dict[str, Any]:
    """Return the arguments of the base model; one with a decoder gets something to decode.

    given: the caller's arguments; takes: those that are the head's.
    target: labels (batch, sequence) that the decoder has to produce, or None: it then reads the input once more.
    """
    inputs = {name: value for name, value in given.items() if name not in takes}
    there = inputs.get("decoder_input_ids") is not None or inputs.get("decoder_inputs_embeds") is not None
    source = inputs.get("input_ids") if target is None else target
    if settings.shifts and not there and source is not None:
        inputs["decoder_input_ids"] = shifted(source, settings)
    return inputs


def shifted(ids: Tensor, settings: Settings) -> Tensor:
    """Return ids (batch, sequence) one place to the right, behind the token that a decoder starts with.

    Raises:
        UsageError: the model's configuration does not say which token that is.

    Sources: transformers, modeling_bart.py and modeling_mbart.py (`shift_tokens_right`), modeling_t5.py.
    """
    from torch import cat

    if settings.shifts == "start" and settings.start is None:
        raise UsageError(
            "there are no decoder_input_ids, and model.config has no decoder_start_token_id to make them with",
            hint="give one of them",
        )
    padding = settings.padding or 0
    ids = ids.masked_fill(ids == IGNORED, padding)
    if settings.shifts == "wrap":
        first = ids.gather(1, ((ids != padding).sum(dim=1, keepdim=True) - 1).clamp(min=0))
    else:
        first = ids.new_full((ids.shape[0], 1), settings.start or 0)
    return cat([first, ids[:, :-1]], dim=1)


def flattened(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs (batch, choices, sequence) as (batch · choices, sequence); others are left alone."""
    return {
        name: value.flatten(0, 1) if name in _TEXTS and value is not None and value.dim() == _TEXTS[name] else value
        for name, value in inputs.items()
    }


_TEXTS = {"input_ids": 3, "attention_mask": 3, "token_type_ids": 3, "position_ids": 3, "inputs_embeds": 4}
"""Arguments that hold texts, and how many dimensions they have where there are choices."""
