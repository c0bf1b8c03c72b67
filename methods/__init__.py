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
    adalora,
    beft,
    boft,
    bottleneck,
    c3a,
    compacter,
    deft,
    delora,
    fourierft,
    fusion,
    glora,
    gralora,
    hira,
    hra,
    ia3,
    invertible,
    layer_norm,
    loha,
    lokr,
    lora,
    miss,
    mtl_lora,
    oft,
    p_tuning,
    parameters,
    peanut,
    prefix_tuning,
    prompt_tuning,
    randlora,
    reft,
    road,
    shira,
    supertuning,
    trainable_tokens,
    vblora,
    vera,
    waveft,
)
from .adalora import AdaloraConfig
from .beft import BeftConfig
from .boft import BoftConfig
from .bottleneck import BottleneckConfig
from .c3a import C3aConfig
from .compacter import CompacterConfig
from .config import config_from_json, field_types
from .deft import DeftConfig
from .delora import DeloraConfig
from .fourierft import FourierftConfig
from .fusion import FusionConfig
from .glora import GloraConfig
from .gralora import GraloraConfig
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
from .hira import HiraConfig
from .hra import HraConfig
from .ia3 import IA3Config
from .invertible import InvertibleConfig
from .layer_norm import LayerNormConfig
from .loha import LohaConfig
from .lokr import LokrConfig
from .lora import LoraConfig
from .method import (
    Ahead,
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
    left_out,
    united,
)
from .miss import MissConfig
from .mtl_lora import MtlLoraConfig
from .oft import OftConfig
from .p_tuning import PTuningConfig
from .parameters import ParametersConfig
from .peanut import PeanutConfig
from .prefix_tuning import PrefixTuningConfig
from .prompt_tuning import PromptTuningConfig
from .randlora import RandloraConfig
from .reft import ReftConfig
from .road import RoadConfig
from .shira import ShiraConfig
from .supertuning import SupertuningConfig
from .text import parse
from .trainable_tokens import TrainableTokensConfig
from .vblora import VbloraConfig
from .vera import VeraConfig
from .waveft import WaveftConfig

__all__ = [
    "HEAD_ARGUMENTS",
    "METHODS",
    "PRESETS",
    "AdaloraConfig",
    "Ahead",
    "BeftConfig",
    "Binding",
    "BlockOp",
    "BoftConfig",
    "BottleneckConfig",
    "C3aConfig",
    "Chainable",
    "ClassificationHeadConfig",
    "CompacterConfig",
    "DeftConfig",
    "DeloraConfig",
    "DependencyParsingHeadConfig",
    "EmbeddingOp",
    "Facts",
    "FourierftConfig",
    "FusionConfig",
    "FusionOp",
    "GloraConfig",
    "GraloraConfig",
    "HeadConfig",
    "HeadOp",
    "HiraConfig",
    "HraConfig",
    "IA3Config",
    "ImageClassificationHeadConfig",
    "InvertibleConfig",
    "LanguageModelHeadConfig",
    "LayerNormConfig",
    "LinearOp",
    "Live",
    "LohaConfig",
    "LokrConfig",
    "LoraConfig",
    "Method",
    "MissConfig",
    "MtlLoraConfig",
    "MultipleChoiceHeadConfig",
    "OftConfig",
    "PTuningConfig",
    "ParametersConfig",
    "PeanutConfig",
    "PrefixOp",
    "PrefixTuningConfig",
    "Prefixed",
    "PromptOp",
    "PromptTuningConfig",
    "QuestionAnsweringHeadConfig",
    "RandloraConfig",
    "ReftConfig",
    "RoadConfig",
    "Seen",
    "Settings",
    "Shapes",
    "ShiraConfig",
    "SiteOp",
    "SupertuningConfig",
    "TaggingHeadConfig",
    "TrainableTokensConfig",
    "VbloraConfig",
    "VeraConfig",
    "WaveftConfig",
    "configs_from_json",
    "default_head",
    "describe",
    "is_head",
    "left_out",
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
    adalora.METHOD,
    beft.METHOD,
    boft.METHOD,
    c3a.METHOD,
    deft.METHOD,
    delora.METHOD,
    fourierft.METHOD,
    glora.METHOD,
    gralora.METHOD,
    hira.METHOD,
    hra.METHOD,
    loha.METHOD,
    lokr.METHOD,
    miss.METHOD,
    oft.METHOD,
    peanut.METHOD,
    randlora.METHOD,
    road.METHOD,
    shira.METHOD,
    supertuning.METHOD,
    vblora.METHOD,
    waveft.METHOD,
    layer_norm.METHOD,
    parameters.METHOD,
    trainable_tokens.METHOD,
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

PLAIN: tuple[str, ...] = tuple(method.name for method in METHODS if not method.presets)
"""Methods without a preset: their fields depend on the model."""


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
    found: list[MethodConfig] = []
    for name, changes in parse(text, [*PRESETS, *PLAIN]):
        if name in PRESETS:
            found += _changed(PRESETS[name], changes)
        else:
            found.append(config_from_json(_by_name(name).config, {"method": name, **changes}))
    return tuple(found)


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
    configs = tuple(configs)
    return dict(layout.once(("shapes", repr(configs)), lambda: _shapes(configs, layout)))


def _shapes(configs: tuple[MethodConfig, ...], layout: Layout) -> Shapes:
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
        if best is None or len(changes) < best[0]:
            best = (len(changes), _with_changes(name, changes))
    return _with_changes(config.method, {k: v for k, v in data.items() if k != "method"}) if best is None else best[1]


def _with_changes(name: str, changes: Mapping[str, Any]) -> str:
    return name + (f"[{','.join(f'{field}={_word(value)}' for field, value in changes.items())}]" if changes else "")


def _word(value: Any) -> str:
    import json

    if isinstance(value, str) and value.replace("_", "").isalnum() and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, separators=(",", ":"))
