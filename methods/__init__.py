"""Adapter methods, one file each, and the table that lists them.

A new method is one file with a METHOD and one entry in METHODS. A configuration string names presets with changes:
`double_seq_bn[reduction_factor=8]+layer_norm` is a union of two methods; values are JSON, or bare words for texts. A
preset may be a union itself (`mam`); a change goes to each of its parts that has the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..adapter import MethodConfig
from ..errors import UsageError
from ..sites import Layout
from . import (
    bottleneck,
    compacter,
    fusion,
    ia3,
    invertible,
    layer_norm,
    lora,
    mtl_lora,
    p_tuning,
    prefix_tuning,
    prompt_tuning,
    reft,
    vera,
)
from .bottleneck import BottleneckConfig
from .compacter import CompacterConfig
from .config import config_from_json, field_types
from .fusion import FusionConfig
from .heads import (
    HEAD_ARGUMENTS,
    HEADS,
    ClassificationHeadConfig,
    DependencyParsingHeadConfig,
    HeadConfig,
    ImageClassificationHeadConfig,
    LanguageModelHeadConfig,
    MultipleChoiceHeadConfig,
    QuestionAnsweringHeadConfig,
    TaggingHeadConfig,
    default_head,
    is_head,
)
from .ia3 import IA3Config
from .invertible import InvertibleConfig
from .layer_norm import LayerNormConfig
from .lora import LoraConfig
from .method import (
    Binding,
    BlockOp,
    Chainable,
    EmbeddingOp,
    Facts,
    FusionOp,
    HeadOp,
    LinearOp,
    Live,
    Method,
    Prefixed,
    PrefixOp,
    PromptOp,
    Seen,
    Settings,
    Shapes,
    SiteOp,
    united,
)
from .mtl_lora import MtlLoraConfig
from .p_tuning import PTuningConfig
from .prefix_tuning import PrefixTuningConfig
from .prompt_tuning import PromptTuningConfig
from .reft import ReftConfig
from .text import parse
from .vera import VeraConfig

__all__ = [
    "HEAD_ARGUMENTS",
    "METHODS",
    "PRESETS",
    "Binding",
    "BlockOp",
    "BottleneckConfig",
    "Chainable",
    "ClassificationHeadConfig",
    "CompacterConfig",
    "DependencyParsingHeadConfig",
    "EmbeddingOp",
    "Facts",
    "FusionConfig",
    "FusionOp",
    "HeadConfig",
    "HeadOp",
    "IA3Config",
    "ImageClassificationHeadConfig",
    "InvertibleConfig",
    "LanguageModelHeadConfig",
    "LayerNormConfig",
    "LinearOp",
    "Live",
    "LoraConfig",
    "Method",
    "MtlLoraConfig",
    "MultipleChoiceHeadConfig",
    "PTuningConfig",
    "PrefixOp",
    "PrefixTuningConfig",
    "Prefixed",
    "PromptOp",
    "PromptTuningConfig",
    "QuestionAnsweringHeadConfig",
    "ReftConfig",
    "Seen",
    "Settings",
    "Shapes",
    "SiteOp",
    "TaggingHeadConfig",
    "VeraConfig",
    "configs_from_json",
    "default_head",
    "describe",
    "is_head",
    "method_of",
    "parse_method",
    "settled",
    "shapes",
    "united",
]

METHODS: tuple[Method, ...] = (
    bottleneck.METHOD,
    compacter.METHOD,
    invertible.METHOD,
    lora.METHOD,
    ia3.METHOD,
    vera.METHOD,
    mtl_lora.METHOD,
    prefix_tuning.METHOD,
    prompt_tuning.METHOD,
    p_tuning.METHOD,
    reft.METHOD,
    layer_norm.METHOD,
    fusion.METHOD,
    *HEADS,
)

_SEQ_BN_INV = (bottleneck.SEQUENTIAL, InvertibleConfig())
_DOUBLE_SEQ_BN_INV = (bottleneck.DOUBLE, InvertibleConfig(non_linearity=bottleneck.DOUBLE.non_linearity))

UNIONS: dict[str, tuple[MethodConfig, ...]] = {
    "mam": (PrefixTuningConfig(bottleneck_size=800), bottleneck.METHOD.presets["par_bn"]),
    "unipelt": (
        PrefixTuningConfig(prefix_length=10, use_gating=True),
        dataclasses.replace(bottleneck.SEQUENTIAL, use_gating=True),
        LoraConfig(gating=True),
    ),
    "seq_bn_inv": _SEQ_BN_INV,
    "pfeiffer+inv": _SEQ_BN_INV,
    "double_seq_bn_inv": _DOUBLE_SEQ_BN_INV,
    "houlsby+inv": _DOUBLE_SEQ_BN_INV,
}
"""Presets of several methods: MAM adapters (He et al. 2022, arXiv 2110.04366), UniPELT (Mao et al. 2022), the language
adapters of MAD-X (Pfeiffer et al. 2020, arXiv 2005.00052)."""

PRESETS: dict[str, tuple[MethodConfig, ...]] = {
    **{name: (preset,) for method in METHODS for name, preset in method.presets.items()},
    **UNIONS,
}
"""Name → configurations, for `add`, the command line and indices."""


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
    return tuple(config for name, changes in parse(text, PRESETS) for config in _changed(PRESETS[name], changes))


def _changed(preset: tuple[MethodConfig, ...], changes: Mapping[str, Any]) -> Iterable[MethodConfig]:
    """Yield the parts of a preset with the changes that concern them; what concerns none is refused by the first."""
    fields = [field_types(type(part)) for part in preset]
    foreign = {name for name in changes if not any(name in own for own in fields)}
    for part, own in zip(preset, fields, strict=True):
        ours = {name: value for name, value in changes.items() if name in own or name in foreign}
        yield config_from_json(type(part), {**part.to_json(), **ours})


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


def settled(configs: Iterable[MethodConfig], layout: Layout) -> tuple[MethodConfig, ...]:
    """Return the configurations with everything filled in that they leave to the base model.

    Raises:
        UnsupportedError: the base model lacks what a configuration needs.
    """
    return tuple(method_of(config).settled(config, layout) for config in configs)


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
