"""Configurations in words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..adapter import Dataset, MethodConfig, Probe
    from ..methods import BottleneckConfig, ClassificationHeadConfig, LayerNormConfig


def sentence(config: MethodConfig) -> str:
    """Return what a configuration computes, in words.

    >>> from adapterhub.methods import parse_method
    >>> [sentence(config) for config in parse_method("double_seq_bn+layer_norm")]
    ['bottlenecks behind attention and feed-forward, 1/16 as wide as the model, swish', 'all layer norms']
    """
    from ..methods import BottleneckConfig, ClassificationHeadConfig, LayerNormConfig, describe

    match config:
        case BottleneckConfig():
            return _bottleneck(config)
        case LayerNormConfig():
            return _layer_norm(config)
        case ClassificationHeadConfig():
            return _head(config)
        case _:
            return describe([config])


def dataset(data: Dataset) -> str:
    """Return a data set in words: name, licence, sizes, source and split, one line each."""
    sizes = ", ".join(f"{count:,} {part}" for part, count in data.sizes.items())
    head = data.name + (f" ({data.license})" if data.license else "") + (f": {sizes}" if sizes else "")
    return "\n".join(filter(None, [head, data.source, data.split and f"split: {data.split}"]))


def probe(stored: Probe | None) -> str:
    """Return what a probe holds, in words."""
    if stored is None:
        return "none: `verify --run` cannot replay anything"
    count = len(next(iter(stored.inputs.values())))
    return f"{count} inputs with their {stored.output}, same within {stored.atol:g}"


def training(recipe: Mapping[str, object]) -> str:
    """Return the plain values of a recipe; what is off, and what stands elsewhere, is left out.

    >>> training({"method": "seq_bn", "epochs": 3, "bf16": False, "learning_rate": 0.001})
    'epochs 3, learning rate 0.001'
    """
    plain = {key: value for key, value in recipe.items() if isinstance(value, (str, int, float))}
    shown = {key: value for key, value in plain.items() if value is not False and key not in ("method", "parameters")}
    return ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in shown.items())


def labels(names: Sequence[str]) -> str:
    """Return the names of classes, cut after 20."""
    more = f", … {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def number(value: object) -> str:
    """Return a value of a manifest for people.

    >>> number(0.86432), number("adam"), number(True)
    ('0.8643', 'adam', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bottleneck(config: BottleneckConfig) -> str:
    places = [
        name
        for name, there in (
            ("attention", config.mh_adapter),
            ("cross-attention", config.cross_adapter),
            ("feed-forward", config.output_adapter),
        )
        if there
    ]
    side = "beside" if config.is_parallel else "behind"
    parts = [f"bottlenecks {side} {' and '.join(places)}", _width(config.reduction_factor), config.non_linearity]
    parts += [f"scaled by {number(config.scaling)}"] if config.scaling != 1.0 else []
    parts += ["gated"] if config.use_gating else []
    parts += ["with its own norm"] if config.ln_before or config.ln_after else []
    parts += [f"not in layers {', '.join(map(str, config.leave_out))}"] if config.leave_out else []
    return ", ".join(parts)


def _width(factor: float | Mapping[str, float]) -> str:
    if isinstance(factor, Mapping):
        return f"of widths that differ by layer (reduction {', '.join(f'{k}: {v:g}' for k, v in factor.items())})"
    return f"1/{factor:g} as wide as the model" if factor >= 1 else f"{1 / factor:g} times as wide as the model"


def _layer_norm(config: LayerNormConfig) -> str:
    return "all layer norms" if config.modules is None else f"{len(config.modules)} layer norms"


def _head(config: ClassificationHeadConfig) -> str:
    reads = {"first": "the first token", "mean": "the mean of the tokens", "pooler": "the pooler's output"}
    layers = "a linear layer" if config.layers == 1 else f"{config.layers} layers, {config.activation_function},"
    classes = "1 number" if config.num_labels == 1 else f"{config.num_labels} classes"
    return f"head for {classes}: {layers} on {reads[config.pooling]}"
