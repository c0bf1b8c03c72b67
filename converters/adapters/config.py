"""Method configurations in files of `adapters` and adapter-transformers, and what is kept of their spelling.

Reading maps every era's fields to ours; one foreign configuration may be several of ours (a bottleneck and an
invertible adapter). Writing builds the current era's document, then puts back how the source spelled it (Kept): fields
that we do not have, fields that it left out, 16 for 16.0. What was kept is used only while it still says what the
adapter is.

Source: adapters 1.3.0, configuration/adapter_config.py and loading.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...adapter import JSON, MethodConfig
from ...errors import FormatError, UnsupportedError, UsageError
from ...methods import PromptTuningConfig, ReftConfig
from . import (
    bottleneck,
    compacter,
    ia3,
    invertible,
    lora,
    mtl_lora,
    prefix_tuning,
    prompt_tuning,
    reft,
    vera,
)
from .codec import Codec, Fields, Source

CODECS: tuple[Codec, ...] = (
    bottleneck.CODEC,
    compacter.CODEC,
    invertible.CODEC,
    lora.CODEC,
    ia3.CODEC,
    vera.CODEC,
    mtl_lora.CODEC,
    prefix_tuning.CODEC,
    prompt_tuning.CODEC,
    reft.CODEC,
)


def codec_of(config: MethodConfig) -> Codec | None:
    """Return the codec of one of our configurations, None where the format has no word for it."""
    return next((codec for codec in CODECS if type(config) is codec.config), None)


def decode(config: JSON, source: Source) -> tuple[MethodConfig, ...]:
    """Return the configurations that the `config` of an adapter_config.json describes.

    Raises:
        FormatError: a field is missing or has a wrong value.
        UnsupportedError: it names a method that this version does not run.
    """
    return _counted_there([ours for member in members(config) for ours in _decode_one(member, source)])


def encode(config: Sequence[MethodConfig], source: Source) -> JSON:
    """Return the `config` of an adapter_config.json in the current spelling.

    Raises:
        UnsupportedError: the format has no word for one of the configurations.
    """
    foreign = [part.method for part in config if codec_of(part) is None]
    if foreign:
        others = [part for part in config if codec_of(part) is not None]
        said = f"the adapters format has no word for {', '.join(foreign)}"
        raise UnsupportedError("; ".join([said, *_refusals(others, source)]), hint="write it in the native format")
    config = _counted_alone(config, source)
    refused = _refusals(config, source)
    if len(refused) > 1:
        raise UnsupportedError("; ".join(refused), hint="write it in the native format")
    found: list[dict[str, JSON]] = []
    for part in config:
        codec = codec_of(part)
        if codec is None:
            continue
        in_front = found[-1] if found and found[-1].get("architecture") is None else None
        amended = None if in_front is None else codec.amends(part, in_front, source)
        if amended is None:
            found.append(codec.encode(part, source))
        else:
            found[-1] = amended
    return found[0] if len(found) == 1 else {"architecture": "union", "configs": found}


def _beside_prompt(config: Sequence[MethodConfig]) -> bool:
    """Return whether ReFT counts its positions in a text that a prompt of the same adapter has joined."""
    return any(isinstance(part, PromptTuningConfig) for part in config)


def _counted_there(config: Sequence[MethodConfig]) -> tuple[MethodConfig, ...]:
    """Return members with what the library makes of ReFT's positions beside a prompt."""
    if not _beside_prompt(config):
        return tuple(config)
    return tuple(replace(part, positions="adapters") if isinstance(part, ReftConfig) else part for part in config)


def _counted_alone(config: Sequence[MethodConfig], source: Source) -> list[MethodConfig]:
    """Return members with the positions that the fields of each alone stand for.

    Raises:
        UnsupportedError: the library would count positions otherwise.
    """
    if not _beside_prompt(config):
        return list(config)
    if any(isinstance(part, ReftConfig) and part.positions != "adapters" for part in config):
        raise UnsupportedError(
            "`adapters` counts the positions of ReFT in the text as it was before a prompt of the same adapter joined"
            " it, so that they are not its first and last ones",
            hint="set positions='adapters', keep the two in adapters of their own, or write them in the native format",
        )
    return [
        replace(part, positions=reft.positions(part.suffix_positions, source.row))
        if isinstance(part, ReftConfig)
        else part
        for part in config
    ]


def _refusals(config: Sequence[MethodConfig], source: Source) -> list[str]:
    """Return why the format cannot say configurations, one sentence for each that it cannot."""
    refused = []
    for part in config:
        codec = codec_of(part)
        try:
            if codec is not None:
                codec.encode(part, source)
        except UnsupportedError as error:
            refused.append(error.message)
    return refused


def members(config: JSON) -> list[dict[str, JSON]]:
    """Return the members of a union, or the one configuration itself.

    Raises:
        FormatError: the value is no configuration.
    """
    if isinstance(config, dict) and config.get("architecture") == "union":
        found = config.get("configs")
        if not isinstance(found, list) or not found or len(found) > 100:
            raise FormatError("adapter_config.json: a union needs a list of configs", hint=_AGAIN)
    else:
        found = [config]
    if not all(isinstance(item, dict) for item in found):
        raise FormatError(f"adapter_config.json: config is {_short(config)}, expected an object", hint=_AGAIN)
    return found


def meaning(config: Mapping[str, JSON], source: Source) -> dict[str, JSON]:
    """Return what a foreign configuration says as fields of ours, {} if it says nothing right."""
    try:
        found = _decode_one(config, source)
    except (FormatError, UnsupportedError):
        return {}
    # 16 and 16.0 say the same.
    return {str(i): _number(part.to_json()) for i, part in enumerate(found)}


_AGAIN = "correct adapter_config.json, or save the adapter again with the library that made it"


def _decode_one(fields: Fields, source: Source) -> tuple[MethodConfig, ...]:
    """Return what one foreign configuration is of ours."""
    if source.unused_inverse:
        fields = {name: value for name, value in fields.items() if name not in bottleneck.INVERSE}
    claiming = [codec for codec in CODECS if codec.claims(fields)]
    if not claiming:
        raise _unknown(fields)
    try:
        return tuple(codec.decode(fields, source) for codec in claiming)
    except UsageError as error:
        raise FormatError(f"adapter_config.json: {error.message}", hint=_AGAIN) from None
    except FormatError as error:
        raise FormatError(error.message, faults=error.faults, hint=error.hint or _AGAIN) from None


def _unknown(fields: Fields) -> FormatError | UnsupportedError:
    architecture = fields.get("architecture")
    if architecture in KNOWN:
        return UnsupportedError(f"the adapter is of a form of {architecture} which this version does not run")
    return FormatError(f"adapter_config.json: architecture {_short(architecture)} is unknown", hint=_AGAIN)


KNOWN = ("lora", "mtl_lora", "prefix_tuning", "prompt_tuning", "reft")
"""Values of `architecture` that the library has."""


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _short(value: JSON) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
