"""Configurations in words for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = Any

_TOLERANCE = 1e-4
"""What adapter.Probe has where a file leaves it out."""


def method(configs: Iterable[Mapping[str, JSON]]) -> str:
    """Return the configuration string of a union of configurations.

    Raises:
        UsageError: a method does not know such a configuration.
    """
    from ..methods import configs_from_json, describe

    return describe(configs_from_json(configs))


def sentence(config: Mapping[str, JSON]) -> str:
    """Return what the JSON of a configuration computes, in words.

    Methods are not imported for that, but where a value is left out or odd: the method completes or refuses it.

    Raises:
        UsageError: its method does not know such a configuration.

    >>> from adapterhub.methods import parse_method
    >>> [sentence(config.to_json()) for config in parse_method("double_seq_bn+layer_norm")]
    ['bottlenecks behind attention and feed-forward, 1/16 as wide as the model, swish', 'all layer norms']
    """
    if config["method"] not in _SENTENCES:
        return method([config])
    usual, say = _SENTENCES[config["method"]]
    if not all(field in config and fits(config[field]) for field, fits in usual.items()):
        from ..methods import configs_from_json

        (checked,) = configs_from_json([config])
        config = checked.to_json()
    return say(config)


def dataset(data: Mapping[str, JSON]) -> str:
    """Return a data set in words: name, licence, sizes, source and split, one line each."""
    sizes = ", ".join(f"{count:,} {part}" for part, count in data.get("sizes", {}).items())
    licence = f" ({data['license']})" if data.get("license") else ""
    head = data["name"] + licence + (f": {sizes}" if sizes else "")
    split = f"split: {data['split']}" if data.get("split") else ""
    return "\n".join(filter(None, [head, data.get("source"), split]))


def probe(stored: Mapping[str, JSON] | None) -> str:
    """Return what a probe holds, in words."""
    if stored is None:
        return "none: `verify --run` cannot replay anything"
    count = len(next(iter(stored["inputs"].values())))
    return f"{count} inputs with their {stored['output']}, same within {stored.get('atol', _TOLERANCE):g}"


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


def _bottleneck(config: Mapping[str, JSON]) -> str:
    places = [
        name
        for name, there in (
            ("attention", config["mh_adapter"]),
            ("cross-attention", config["cross_adapter"]),
            ("feed-forward", config["output_adapter"]),
        )
        if there
    ]
    side = "beside" if config["is_parallel"] else "behind"
    parts = [f"bottlenecks {side} {' and '.join(places)}", _width(config["reduction_factor"]), config["non_linearity"]]
    parts += [f"scaled by {number(config['scaling'])}"] if config["scaling"] != 1.0 else []
    parts += ["gated"] if config["use_gating"] else []
    parts += ["with its own norm"] if config["ln_before"] or config["ln_after"] else []
    return ", ".join([*parts, *_left_out(config)])


def _width(factor: float | Mapping[str, float]) -> str:
    if isinstance(factor, Mapping):
        parts = ", ".join(f"{layer}: {_short(value)}" for layer, value in factor.items())
        return f"of widths that differ by layer (reduction {parts})"
    return f"1/{_short(factor)} as wide as the model" if factor >= 1 else f"{1 / factor:g} times as wide as the model"


def _short(value: float) -> str:
    """Return a number with few digits; a whole one may be too large to be a float."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _left_out(config: Mapping[str, JSON]) -> list[str]:
    return [f"not in layers {', '.join(map(str, config['leave_out']))}"] if config["leave_out"] else []


def _lora(config: Mapping[str, JSON]) -> str:
    name = "LoRA" if config["magnitude"] == "none" else "DoRA"
    parts = [f"{name} of rank {config['r']} on {', '.join(config['targets'])}", f"alpha {number(config['alpha'])}"]
    parts += ["scaled by alpha / √rank"] if config["rank_stabilised"] else []
    parts += ["ranks or alphas that differ by place"] if config["ranks"] or config["alphas"] else []
    parts += ["gated"] if config["gating"] else []
    return ", ".join([*parts, *_left_out(config)])


def _layer_norm(config: Mapping[str, JSON]) -> str:
    return "all layer norms" if config["modules"] is None else f"{len(config['modules'])} layer norms"


_READS = {"first": "the first token", "mean": "the mean of the tokens", "pooler": "the pooler's output"}


def _head(config: Mapping[str, JSON]) -> str:
    layers = (
        "a linear layer" if config["layers"] == 1 else f"{config['layers']} layers, {config['activation_function']},"
    )
    classes = "1 number" if config["num_labels"] == 1 else f"{config['num_labels']} classes"
    return f"head for {classes}: {layers} on {_READS[config['pooling']]}"


def _flag(value: JSON) -> bool:
    return isinstance(value, bool)


def _text(value: JSON) -> bool:
    return isinstance(value, str)


def _positive(value: JSON) -> bool:
    return type(value) in (int, float) and value > 0


def _list(value: JSON) -> bool:
    return isinstance(value, list)


def _texts(value: JSON) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_Usual: TypeAlias = Mapping[str, Callable[[JSON], bool]]

_SENTENCES: Mapping[str, tuple[_Usual, Callable[[Mapping[str, JSON]], str]]] = {
    "bottleneck": (
        dict.fromkeys(("mh_adapter", "cross_adapter", "output_adapter", "is_parallel", "use_gating"), _flag)
        | {"ln_before": _flag, "ln_after": _flag, "reduction_factor": _positive, "non_linearity": _text}
        | {"scaling": lambda value: _text(value) or _positive(value), "leave_out": _list},
        _bottleneck,
    ),
    "lora": (
        {"targets": _texts, "r": _positive, "alpha": _positive, "rank_stabilised": _flag, "leave_out": _list}
        | {"ranks": lambda value: value == {}, "alphas": lambda value: value == {}, "gating": _flag}
        | {"magnitude": _text},
        _lora,
    ),
    "layer_norm": ({"modules": lambda value: value is None or _list(value)}, _layer_norm),
    "classification_head": (
        {
            "num_labels": _positive,
            "layers": _positive,
            "activation_function": lambda value: value is None or _text(value),
        }
        | {"pooling": lambda value: value in ("first", "mean", "pooler")},
        _head,
    ),
}
"""Method → what the values have to be for its sentence, and what makes it."""
