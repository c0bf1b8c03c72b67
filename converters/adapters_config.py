"""Method configurations in files of `adapters` and adapter-transformers, and what is kept of their spelling.

Reading maps every era's fields to ours. Writing builds the current era's document, then puts back how the source
spelled it (Kept): fields that we do not have, fields that it left out, 16 for 16.0. What was kept is used only while it
still says what the adapter is.

Source: adapters 1.3.0, configuration/adapter_config.py and loading.py; FORMATS §1.1 and §3.1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..adapter import JSON, MethodConfig
from ..errors import FormatError, UnsupportedError, UsageError
from ..methods import BottleneckConfig
from ..methods.config import config_from_json, field_types

OLD_NAMES = (
    ("LN_after", "ln_after"),
    ("LN_before", "ln_before"),
    ("MH_Adapter", "mh_adapter"),
    ("Output_Adapter", "output_adapter"),
)
"""Field names before adapter-transformers 1.0, and since."""

ACTIVATIONS = (("gelu", "gelu_new"), ("gelu_orig", "gelu"))
"""Names in files without a version, and what they mean by now."""

WITH_WEIGHTS = ("prelu", "xielu")
"""Activations that have tensors of their own."""

METHODS_ELSEWHERE = ("lora", "mtl_lora", "prefix_tuning", "prompt_tuning", "reft")
"""Values of `architecture` in a method's configuration that are no bottleneck."""

FIELDS = tuple(field_types(BottleneckConfig))

Kept = dict[str, JSON]
"""How a source spelled a document: {"set": {field: value}, "absent": [field]}, either left out where empty."""


def decode(config: JSON, *, old_activations: bool, unused_inverse: bool) -> tuple[BottleneckConfig, ...]:
    """Return the method configurations that the `config` of an adapter_config.json describes.

    Args:
        config: its value.
        old_activations: the file has no version, so its activations have their old names.
        unused_inverse: the file may name an invertible adapter that it does not hold.

    Raises:
        FormatError: a field is missing or has a wrong value.
        UnsupportedError: it names a method that this version does not run.
    """
    return tuple(
        _decode_one(member, old_activations=old_activations, unused_inverse=unused_inverse)
        for member in members(config)
    )


def encode(config: Sequence[MethodConfig], *, old_activations: bool) -> JSON:
    """Return the `config` of an adapter_config.json in the current spelling.

    Raises:
        UnsupportedError: the format has no word for one of the configurations.
    """
    foreign = [part.method for part in config if not isinstance(part, BottleneckConfig)]
    if foreign:
        raise UnsupportedError(
            f"the adapters format has no word for {', '.join(foreign)}", hint="write it in the native format"
        )
    found = [_encode_one(part, old_activations) for part in config]
    return found[0] if len(found) == 1 else {"architecture": "union", "configs": found}


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


def kept(source: Mapping[str, JSON], built: Mapping[str, JSON]) -> Kept:
    """Return what restores source from built.

    >>> kept({"r": 8.0, "x": 1}, {"r": 8, "y": 2})
    {'set': {'r': 8.0, 'x': 1}, 'absent': ['y']}
    """
    changed = {key: value for key, value in source.items() if key not in built or not same(value, built[key])}
    absent = sorted(set(built) - set(source))
    return ({"set": changed} if changed else {}) | ({"absent": absent} if absent else {})


def restored(
    built: Mapping[str, JSON], spelling: Kept, meaning: Callable[[Mapping[str, JSON]], Mapping[str, JSON]]
) -> dict[str, JSON]:
    """Return built in the kept spelling, wherever that spelling means the same.

    Args:
        built: a document in the current spelling.
        spelling: what kept returned for the source.
        meaning: document → our field → what the document says about it.
    """
    document = {key: value for key, value in built.items() if key not in spelling.get("absent", ())}
    document |= spelling.get("set", {})
    said, wanted = meaning(document), meaning(built)
    old = {new: former for former, new in OLD_NAMES}
    for name in wanted:
        if not same(said.get(name), wanted[name]):
            document.pop(old.get(name, ""), None)
            document[name] = built[name]
    return document


def meaning(config: Mapping[str, JSON], *, old_activations: bool) -> dict[str, JSON]:
    """Return our fields with what a foreign configuration says about them, {} if it says nothing right."""
    try:
        found = _decode_one(config, old_activations=old_activations, unused_inverse=True)
    except (FormatError, UnsupportedError):
        return {}
    # 16 and 16.0 say the same.
    return {name: _number(value) for name, value in found.to_json().items() if name != "method"}


def same(a: JSON, b: JSON) -> bool:
    """Return whether two JSON values are written alike; 1, 1.0 and true are not."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


_AGAIN = "correct adapter_config.json, or save the adapter again with the library that made it"


def _decode_one(config: Mapping[str, JSON], *, old_activations: bool, unused_inverse: bool) -> BottleneckConfig:
    _refuse_other_methods(config, unused_inverse)
    fields = dict(config)
    for old, new in OLD_NAMES:
        if old in fields:
            if new in fields:
                raise FormatError(f"adapter_config.json: config has both {old} and {new}", hint=_AGAIN)
            fields[new] = fields.pop(old)
    activation = fields.get("non_linearity")
    if old_activations and isinstance(activation, str):
        fields["non_linearity"] = dict(ACTIVATIONS).get(activation, activation)
    if isinstance(activation, str) and activation.lower() in WITH_WEIGHTS:
        raise UnsupportedError(f"the activation {activation} has weights, which this version does not run", hint=_LATER)
    try:
        return config_from_json(BottleneckConfig, {"method": "bottleneck", **_ours(fields)})
    except UsageError as error:
        raise FormatError(f"adapter_config.json: {error.message}", hint=_AGAIN) from None


def _encode_one(config: MethodConfig, old_activations: bool) -> dict[str, JSON]:
    fields = {name: value for name, value in config.to_json().items() if name != "method"}
    # `adapters` wants a number with a point here.
    fields["scaling"] = float(fields["scaling"]) if isinstance(fields["scaling"], int) else fields["scaling"]
    if old_activations:
        old = {new: former for former, new in ACTIVATIONS}
        fields["non_linearity"] = old.get(fields["non_linearity"], fields["non_linearity"])
    return fields


def _refuse_other_methods(config: Mapping[str, JSON], unused_inverse: bool) -> None:
    """Raise for what is more than a bottleneck."""
    architecture = config.get("architecture")
    if architecture in METHODS_ELSEWHERE:
        raise UnsupportedError(f"the adapter is of method {architecture}, which this version does not run", hint=_LATER)
    if architecture is not None:
        raise FormatError(f"adapter_config.json: architecture {_short(architecture)} is unknown", hint=_AGAIN)
    if config.get("phm_layer"):
        raise UnsupportedError("the adapter has PHM layers (Compacter), which this version does not run", hint=_LATER)
    inverse = config.get("inv_adapter") or config.get("invertible_adapter")
    if inverse and not unused_inverse:
        raise UnsupportedError(
            f"the adapter has an invertible adapter ({_short(inverse)}), which this version does not run", hint=_LATER
        )


_LATER = "bottleneck adapters, unions of them and classification heads are what it reads of this format"


def _ours(fields: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in fields.items() if name in FIELDS}


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _short(value: JSON) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
