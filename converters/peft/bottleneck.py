"""Bottleneck adapters in files of PEFT: a type that PEFT learns from `adapterhub.peft_plugin`.

PEFT has no bottlenecks. A process that imports the plug-in has them: PEFT and transformers then load such a folder,
train it and save it. One that does not import it fails on the value of `peft_type`, which names the module to import.

The fields are those of `adapters`' BnConfig, `phm_layer` telling Compacter from plain projections. The tensors of a
site are those of a module `bottleneck` in the site's own module, what all sites share those of one in the whole model:

    base_model.model.bert.encoder.layer.0.attention.output.bottleneck.bottleneck_down.weight
    base_model.model.bottleneck.bottleneck_shared_phm_rule
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...adapter import JSON, MethodConfig
from ...methods import BottleneckConfig, CompacterConfig
from ...methods.bottleneck import DOUBLE
from ...methods.config import config_from_json
from ...sites import Layout
from .codec import Codec, ConfigClass, Fields, Places

TYPE = "ADAPTERHUB.PEFT_PLUGIN.BOTTLENECK"
PLUGIN = "adapterhub.peft_plugin"

LAYER = "bottleneck"
"""Name of the module that holds the tensors."""

PREFIX = "bottleneck_"
"""What the names of the tensors begin with; PEFT knows them by it."""

_SHARED = "shared_"
_PAIRS = ("down", "up", "norm_before", "norm_after", "gate")
_PHM = ("phm_down", "phm_up")
_RULES = ("rule", "rule_left", "rule_right")
_WEIGHTS = ("W", "W_left", "W_right")


def _theirs(name: str) -> str:
    return name if name.startswith(PREFIX) else f"{PREFIX}{name}"


PARAMETERS: Mapping[str, str] = {
    _theirs(ours): ours
    for ours in (
        *(f"{PREFIX}{pair}.{leaf}" for pair in _PAIRS for leaf in ("weight", "bias")),
        f"{PREFIX}scaling",
        *(f"{phm}.{leaf}" for phm in _PHM for leaf in (*_WEIGHTS, *_RULES, "bias")),
    )
}
"""What a tensor of a site is called in the module → the parameter's name in ours."""

SHARED: Mapping[str, str] = {
    f"{PREFIX}{_SHARED}{ours}": ours
    for ours in (*(f"phm_{rule}" for rule in _RULES), *(f"{phm}.{leaf}" for phm in _PHM for leaf in _WEIGHTS))
}
"""The same for what all sites share; ours behind `shared.`."""

OURS = tuple(field.name for field in dataclasses.fields(CompacterConfig))
_PLAIN = tuple(field.name for field in dataclasses.fields(BottleneckConfig))


def _default(field: dataclasses.Field[Any]) -> JSON:
    value = getattr(DOUBLE, field.name) if field.default is dataclasses.MISSING else field.default
    return list(value) if isinstance(value, tuple) else value


FIELDS: Mapping[str, JSON] = {
    **dict.fromkeys(("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision")),
    **dict.fromkeys(("target_modules", "modules_to_save", "architecture")),
    "peft_type": TYPE,
    "inference_mode": False,
    "plugin": PLUGIN,
    "phm_layer": False,
    **{field.name: _default(field) for field in dataclasses.fields(CompacterConfig)},
}
"""Field → what it is where nothing is said."""


def config_of(fields: Fields) -> BottleneckConfig:
    """Return the bottlenecks that a configuration describes; fields: those of the type, with all defaults.

    Raises:
        UsageError: a value is wrong.
    """
    if fields["phm_layer"]:
        return config_from_json(CompacterConfig, {"method": "compacter", **{name: fields[name] for name in OURS}})
    return config_from_json(BottleneckConfig, {"method": "bottleneck", **{name: fields[name] for name in _PLAIN}})


def fields_of(config: BottleneckConfig) -> dict[str, JSON]:
    """Return the fields of bottlenecks; config_of({**FIELDS, **fields_of(config)}) == config."""
    found: dict[str, JSON] = {name: value for name, value in config.to_json().items() if name != "method"}
    return {**found, "phm_layer": isinstance(config, CompacterConfig)}


def architecture(document: JSON) -> str | None:
    """Return the model family that a document of this type names, None for any other document."""
    mine = isinstance(document, dict) and document.get("peft_type") == TYPE
    return document.get("architecture") if mine else None


def _decode(fields: Fields, places: Places) -> MethodConfig:
    return config_of(fields)


def _encode(config: BottleneckConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    return {**fields_of(config), "architecture": places.row.name}


def _codec(config: ConfigClass) -> Codec:
    return Codec(
        type=TYPE,
        config=config,
        leaves={f"{LAYER}.{theirs}": ours for theirs, ours in PARAMETERS.items()},
        shared={f"model.{LAYER}.{theirs}": ours for theirs, ours in SHARED.items()},
        meant=(*OURS, "phm_layer", "architecture"),
        idle=("plugin",),
        decode=_decode,
        encode=_encode,
    )


CODECS = (_codec(BottleneckConfig), _codec(CompacterConfig))
"""Both write the same type; decoding, they are one."""
