"""The tiny models and the inputs of the drawn cases; they are made with transformers 4 and 5 alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from drawn_options import MODELS, Options
from families import IDS, settle, values
from make_further_cases import WITH_HEAD

PADDING = 1
IMAGE, SPEECH = 12, 16


def configuration(name: str) -> Any:
    """Return the configuration of a tiny model."""
    import transformers

    family = MODELS[name]
    model_class = getattr(transformers, family.model)
    if not family.parts:
        return model_class.config_class(**family.sizes)
    encoder, decoder = (configuration(part) for part in family.parts)
    return model_class.config_class.from_encoder_decoder_configs(encoder, decoder, **IDS, decoder_start_token_id=4)


def head_class(name: str) -> str | None:
    """Return the class of transformers with a head, None where there is none here; that of mT5 differs by release."""
    if MODELS[name].row == "mt5":
        return None
    return WITH_HEAD.get(name) or WITH_HEAD.get(MODELS[name].row)


def plain(name: str, kind: str, attention: str | None, rename: Callable[[str], str] = str) -> tuple[Any, Any]:
    """Return a model of transformers and the bare one in it.

    kind: `head` for a class with a head, where there is one; attention: its implementation, None for the default.
    """
    import transformers

    config = configuration(name)
    if attention is not None:
        set_attention(config, attention)
    wanted = head_class(name) if kind == "head" else None
    model = settle(getattr(transformers, wanted or MODELS[name].model)(config), rename)
    bare = model if wanted is None else bare_of(name, model)
    return model, settle(bare, rename)


def set_attention(config: Any, attention: str) -> None:
    """Set the implementation of attention of a configuration and of those in it."""
    config._attn_implementation = attention
    for part in ("encoder", "decoder", "text_config", "vision_config"):
        if hasattr(config, part) and not isinstance(getattr(config, part), (int, str, bool)):
            getattr(config, part)._attn_implementation = attention


def bare_of(name: str, model: Any) -> Any:
    """Return the bare model in one with a head."""
    return model.model if name == "gemma3_text" else model.base_model


def inputs(case: str, shape: Options, taken: Any) -> dict[str, Any]:
    """Return what a model is given; taken: the names that its forward takes."""
    import torch

    rows, tokens = shape["rows"], shape["tokens"]
    found: dict[str, Any] = {}
    if "input_ids" in taken:
        found["input_ids"] = words(f"{case} text", rows, tokens)
        found |= padded(found["input_ids"], shape["padding"])
    if "decoder_input_ids" in taken:
        found["decoder_input_ids"] = words(f"{case} decoder", rows, shape["decoder"])
        if shape["decoder_mask"] and rows > 1:
            mask = torch.ones_like(found["decoder_input_ids"])
            mask[-1, -2:] = 0
            found["decoder_attention_mask"] = mask
    if "pixel_values" in taken:
        found["pixel_values"] = values(f"{case} pixels", (rows, 3, IMAGE, IMAGE), 1.0)
    if "input_features" in taken:
        found["input_features"] = values(f"{case} features", (rows, 8, SPEECH), 1.0)
    return found


def words(name: str, rows: int, tokens: int) -> Any:
    """Return tokens that follow from a name; 5 … 94, so that none of them means anything."""
    drawn = values(name, (rows, tokens), 1.0)
    return ((drawn + 1) * 44.5).long() + 5


def padded(ids: Any, padding: str) -> dict[str, Any]:
    """Fill the last row up at one side and return the mask, if there is to be one."""
    import torch

    if padding == "unmasked":
        return {}
    mask = torch.ones_like(ids)
    if padding != "none" and len(ids) > 1:
        place = slice(None, 2) if padding == "left" else slice(-2, None)
        ids[-1, place] = PADDING
        mask[-1, place] = 0
    return {"attention_mask": mask}


def taken_by(model: Any) -> Any:
    """Return the names that the forward of a model takes."""
    return inspect.signature(model.forward).parameters


def answers(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the floating outputs of a model that a case keeps."""
    import torch

    with torch.no_grad():
        found = model(**given)
    kept = (
        "last_hidden_state",
        "logits",
        "logits_per_image",
        "start_logits",
        "end_logits",
        "image_embeds",
        "text_embeds",
    )
    return {name: found[name].contiguous().clone() for name in kept if found.get(name) is not None}
