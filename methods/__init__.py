"""Adapter methods, one file each, and the table that lists them.

A new method is one file with a METHOD and one entry in METHODS. A configuration string names presets with changes:
`double_seq_bn[reduction_factor=8]+layer_norm` is a union of two methods; values are JSON, or bare words for texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..adapter import MethodConfig
from ..errors import UsageError
from ..sites import Layout
from . import bottleneck, classification_head, ia3, layer_norm, lora, mtl_lora, vera
from .bottleneck import BottleneckConfig
from .classification_head import ClassificationHeadConfig
from .config import config_from_json
from .ia3 import IA3Config
from .layer_norm import LayerNormConfig
from .lora import LoraConfig
from .method import (
    Binding,
    BlockOp,
    EmbeddingOp,
    Facts,
    HeadOp,
    LinearOp,
    Live,
    Method,
    PrefixOp,
    Shapes,
    SiteOp,
    united,
)
from .mtl_lora import MtlLoraConfig
from .text import parse
from .vera import VeraConfig

__all__ = [
    "METHODS",
    "PRESETS",
    "Binding",
    "BlockOp",
    "BottleneckConfig",
    "ClassificationHeadConfig",
    "EmbeddingOp",
    "Facts",
    "HeadOp",
    "IA3Config",
    "LayerNormConfig",
    "LinearOp",
    "Live",
    "LoraConfig",
    "Method",
    "MtlLoraConfig",
    "PrefixOp",
    "Shapes",
    "SiteOp",
    "VeraConfig",
    "configs_from_json",
    "describe",
    "method_of",
    "parse_method",
    "shapes",
    "united",
]

METHODS: tuple[Method, ...] = (
    bottleneck.METHOD,
    lora.METHOD,
    ia3.METHOD,
    vera.METHOD,
    mtl_lora.METHOD,
    layer_norm.METHOD,
    classification_head.METHOD,
)

PRESETS: dict[str, MethodConfig] = {name: preset for method in METHODS for name, preset in method.presets.items()}
"""Name → configuration, for `add`, the command line and indices."""


def method_of(config: MethodConfig) -> Method:
    """Return the row of METHODS that a configuration belongs to."""
    return _by_name(config.method)


def configs_from_json(data: Iterable[Mapping[str, Any]]) -> tuple[MethodConfig, ...]:
    """Return the configurations that a list of JSON objects describes, each with its `method`.

    Raises:
        UsageError: a method or field is unknown, or a value is wrong.
    """
    return tuple(config_from_json(_by_name(str(item.get("method"))).config, item) for item in data)


def parse_method(text: str) -> tuple[MethodConfig, ...]:
    """Return the configurations that a string such as `double_seq_bn[reduction_factor=8]+layer_norm` names.

    Raises:
        UsageError: a name or field is unknown, a value is wrong, or the brackets do not match.
    """
    found = []
    for name, changes in parse(text, PRESETS):
        preset = PRESETS[name].to_json()
        found.append(config_from_json(_by_name(preset["method"]).config, {**preset, **changes}))
    return tuple(found)


def describe(configs: Iterable[MethodConfig]) -> str:
    """Return the shortest name of a union of configurations: presets, with the fields that differ.

    Law: `parse_method(describe(c)) == c`.
    """
    return "+".join(_describe(config) for config in configs)


def shapes(configs: Iterable[MethodConfig], layout: Layout) -> Shapes:
    """Return canonical key → shape of all tensors of a union: the complete account of an adapter.

    Raises:
        UsageError: two configurations of the union claim the same tensor.
    """
    found: Shapes = {}
    for config in configs:
        part = method_of(config).shapes(config, layout)
        both = sorted(found.keys() & part.keys())
        if both:
            raise UsageError(
                f"two parts of the configuration claim {both[0]}" + (f" and {len(both) - 1} more" if both[1:] else ""),
                hint="the parts of a union must stand at different sites",
            )
        found |= part
    return found


def _by_name(name: str) -> Method:
    for method in METHODS:
        if method.name == name:
            return method
    raise UsageError(f"no method is called {name!r}", hint=f"known are {', '.join(m.name for m in METHODS)}")


def _describe(config: MethodConfig) -> str:
    data = config.to_json()
    best: tuple[int, str] | None = None
    for name, preset in method_of(config).presets.items():
        base = preset.to_json()
        changes = {key: value for key, value in data.items() if value != base[key]}
        text = name + (f"[{','.join(f'{k}={_word(v)}' for k, v in changes.items())}]" if changes else "")
        if best is None or len(changes) < best[0]:
            best = (len(changes), text)
    return config.method if best is None else best[1]


def _word(value: Any) -> str:
    import json

    if isinstance(value, str) and value.replace("_", "").isalnum() and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, separators=(",", ":"))
