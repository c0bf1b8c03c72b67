"""Configurations of methods in words for people, from their JSON.

The methods themselves are not imported for that: it would take as long as all else that `show` does. Only where a value
is left out or odd, or a method has no sentence here, it is asked: it completes a configuration or refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from .words import number

JSON: TypeAlias = Any
Config: TypeAlias = Mapping[str, JSON]
Usual: TypeAlias = Mapping[str, Callable[[JSON], bool]]


def method(configs: Iterable[Config]) -> str:
    """Return the configuration string of a union of configurations.

    Raises:
        UsageError: a method does not know such a configuration.
    """
    from ..methods import configs_from_json, describe

    return describe(configs_from_json(configs))


def sentence(config: Config) -> str:
    """Return what the JSON of a configuration computes, in words.

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


def _bottleneck(config: Config) -> str:
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
    parts += _gated(config["use_gating"])
    parts += ["with its own norm"] if config["ln_before"] or config["ln_after"] else []
    return ", ".join([*parts, *_left_out(config)])


def _compacter(config: Config) -> str:
    return f"{_bottleneck(config)}, weights of {config['phm_dim']} Kronecker products"


def _invertible(config: Config) -> str:
    where = ", undone in front of the output embeddings" if config["before_output"] else ""
    return f"an invertible adapter behind the embeddings, {config['non_linearity']}{where}"


def _reft(config: Config) -> str:
    name = "LoReFT" if config["orthogonality"] else "NoReFT"
    ends = (("first", config["prefix_positions"]), ("last", config["suffix_positions"]))
    places = " and ".join(f"the {end} {count}" for end, count in ends if count) or "no"
    layers = "" if config["layers"] == "all" else f", in layers {', '.join(map(str, config['layers']))}"
    return f"{name if config['subtract_projection'] else 'DiReFT'} of rank {config['r']} at {places} positions{layers}"


def _width(factor: float | Mapping[str, float]) -> str:
    if isinstance(factor, Mapping):
        parts = ", ".join(f"{layer}: {_short(value)}" for layer, value in factor.items())
        return f"of widths that differ by layer (reduction {parts})"
    return f"1/{_short(factor)} as wide as the model" if factor >= 1 else f"{1 / factor:g} times as wide as the model"


def _short(value: float) -> str:
    """Return a number with few digits; a whole one may be too large to be a float."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _gated(there: bool) -> list[str]:
    return ["gated"] if there else []


def _left_out(config: Config) -> list[str]:
    return [f"not in layers {', '.join(map(str, config['leave_out']))}"] if config["leave_out"] else []


def _lora(config: Config) -> str:
    name = "LoRA" if config["magnitude"] == "none" else "DoRA"
    parts = [f"{name} of rank {config['r']} on {', '.join(config['targets'])}", f"alpha {number(config['alpha'])}"]
    parts += ["scaled by alpha / √rank"] if config["rank_stabilised"] else []
    parts += ["ranks or alphas that differ by place"] if config["ranks"] or config["alphas"] else []
    return ", ".join([*parts, *_gated(config["gating"]), *_left_out(config)])


def _ia3(config: Config) -> str:
    parts = [f"(IA)³ on {', '.join(config['targets'])}"]
    parts += [f"and on what goes into {', '.join(config['inputs'])}"] if config["inputs"] else []
    return ", ".join([*parts, *_gated(config["gating"]), *_left_out(config)])


def _vera(config: Config) -> str:
    name = "VeRA" if config["magnitude"] == "none" else "DVoRA"
    parts = [f"{name} of rank {config['r']} on {', '.join(config['targets'])}"]
    return ", ".join([*parts, *_gated(config["gating"]), *_left_out(config)])


def _mtl_lora(config: Config) -> str:
    parts = [f"MTL-LoRA of rank {config['r']} on {', '.join(config['targets'])}", f"alpha {number(config['alpha'])}"]
    parts += [f"{config['ups']} up projections"] if config["ups"] != 1 else []
    return ", ".join([*parts, *_gated(config["gating"]), *_left_out(config)])


def _prefix(config: Config) -> str:
    made = f"made by a network of width {config['bottleneck_size']}, {config['non_linearity']}"
    parts = [f"prefixes of {config['prefix_length']} tokens in the attentions", *([] if config["flat"] else [made])]
    return ", ".join([*parts, *_gated(config["use_gating"]), *_left_out(config)])


def _prompt(config: Config) -> str:
    return f"a prompt of {config['prompt_length']} vectors"


def _p_tuning(config: Config) -> str:
    return f"a prompt of {config['prompt_length']} vectors, made by an encoder ({config['encoder']})"


def _layer_norm(config: Config) -> str:
    return "all layer norms" if config["modules"] is None else f"{len(config['modules'])} layer norms"


_READS = {
    None: "what the model's family reads",
    "first": "the first token",
    "last": "the last token",
    "eos": "the end token",
    "mean": "the mean of the tokens",
    "pooler": "the pooler's output",
}


def _head(config: Config) -> str:
    classes = "1 number" if config["num_labels"] == 1 else f"{config['num_labels']} classes"
    if config.get("multilabel"):  # files before 0.2 have no such field
        classes = f"{config['num_labels']} classes, any of them"
    return f"head for {classes}: {_layers(config)} on {_READS[config['pooling']]}"


def _choice(config: Config) -> str:
    count = config["num_choices"] or "several"
    return f"head for one of {count} texts: {_layers(config)} on {_READS[config['pooling']]}"


def _layers(config: Config) -> str:
    count, activation = config["layers"], config["activation_function"]
    if count == 1:
        return "a linear layer"
    own = "the model's own activation" if activation == "hidden_act" else activation
    return f"{count} layers, {own}," if own else f"{count} linear layers"


def _tagging(config: Config) -> str:
    return f"head for {config['num_labels']} classes of tokens: {_layers(config).removesuffix(',')}"


def _answer(config: Config) -> str:
    return f"head for the first and the last token of an answer: {_layers(config).removesuffix(',')}"


def _language_model(config: Config) -> str:
    task = {"masked": "masked tokens", "causal": "the next token", "seq2seq": "the next token of another text"}
    words = "" if config["vocab_size"] is None else f" out of {config['vocab_size']}"
    return f"head for {task[config['kind']]}{words}: {_layers(config).removesuffix(',')}"


def _parsing(config: Config) -> str:
    return f"head for the word that each word depends on, by {config['num_labels']} relations"


def _flag(value: JSON) -> bool:
    return isinstance(value, bool)


def _text(value: JSON) -> bool:
    return isinstance(value, str)


def _text_or_none(value: JSON) -> bool:
    return value is None or isinstance(value, str)


def _positive(value: JSON) -> bool:
    return type(value) in (int, float) and value > 0


def _scaling(value: JSON) -> bool:
    return _text(value) or _positive(value)


def _list(value: JSON) -> bool:
    return isinstance(value, list)


def _list_or_none(value: JSON) -> bool:
    return value is None or isinstance(value, list)


def _texts(value: JSON) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _none_of_them(value: JSON) -> bool:
    return isinstance(value, dict) and not value


def _positive_or_none(value: JSON) -> bool:
    return value is None or _positive(value)


def _count(value: JSON) -> bool:
    return type(value) is int and value >= 0


def _all_or_list(value: JSON) -> bool:
    return value == "all" or isinstance(value, list)


def _read(value: JSON) -> bool:
    return value in tuple(_READS)


def _kind(value: JSON) -> bool:
    return value in ("masked", "causal", "seq2seq")


_ANYWHERE: Usual = {"leave_out": _list}
_LINEAR: Usual = {**_ANYWHERE, "targets": _texts, "gating": _flag}
_LAYERED: Usual = {"layers": _positive, "activation_function": _text_or_none}
_POOLED: Usual = {**_LAYERED, "pooling": _read}
_CLASSES: Usual = {**_POOLED, "num_labels": _positive}

_BOTTLENECK: Usual = {
    **_ANYWHERE,
    **dict.fromkeys(("mh_adapter", "cross_adapter", "output_adapter", "is_parallel", "use_gating"), _flag),
    **dict.fromkeys(("ln_before", "ln_after"), _flag),
    "reduction_factor": _positive,
    "non_linearity": _text,
    "scaling": _scaling,
}

_SENTENCES: Mapping[str, tuple[Usual, Callable[[Config], str]]] = {
    "bottleneck": (_BOTTLENECK, _bottleneck),
    "compacter": ({**_BOTTLENECK, "phm_dim": _positive}, _compacter),
    "invertible": ({"before_output": _flag, "non_linearity": _text}, _invertible),
    "lora": (
        {
            **_LINEAR,
            **dict.fromkeys(("r", "alpha"), _positive),
            **dict.fromkeys(("ranks", "alphas"), _none_of_them),
            "rank_stabilised": _flag,
            "magnitude": _text,
        },
        _lora,
    ),
    "ia3": ({**_LINEAR, "inputs": _texts}, _ia3),
    "vera": ({**_LINEAR, "r": _positive, "magnitude": _text}, _vera),
    "mtl_lora": ({**_LINEAR, **dict.fromkeys(("r", "alpha", "ups"), _positive)}, _mtl_lora),
    "prefix_tuning": (
        {
            **_ANYWHERE,
            **dict.fromkeys(("prefix_length", "bottleneck_size"), _positive),
            **dict.fromkeys(("flat", "use_gating"), _flag),
            "non_linearity": _text,
        },
        _prefix,
    ),
    "prompt_tuning": ({"prompt_length": _positive}, _prompt),
    "p_tuning": ({"prompt_length": _positive, "encoder": _text}, _p_tuning),
    "reft": (
        {
            "layers": _all_or_list,
            "r": _positive,
            **dict.fromkeys(("prefix_positions", "suffix_positions"), _count),
            **dict.fromkeys(("orthogonality", "subtract_projection"), _flag),
        },
        _reft,
    ),
    "layer_norm": ({"modules": _list_or_none}, _layer_norm),
    "classification_head": (_CLASSES, _head),
    "image_classification_head": (_CLASSES, _head),
    "multiple_choice_head": ({**_POOLED, "num_choices": _positive_or_none}, _choice),
    "tagging_head": ({**_LAYERED, "num_labels": _positive}, _tagging),
    "question_answering_head": (_LAYERED, _answer),
    "language_model_head": ({**_LAYERED, "kind": _kind, "vocab_size": _positive_or_none}, _language_model),
    "dependency_parsing_head": ({"num_labels": _positive}, _parsing),
}
"""Method → what the values have to be for its sentence, and what makes it."""
