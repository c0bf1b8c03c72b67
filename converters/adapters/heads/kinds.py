"""Flexible heads of `adapters`: the kinds, what their fields mean, and where their layers stand.

A flexible head is a sequence of modules, and a layer's key is its place in it: dropout, linear, activation, dropout,
linear, … in most heads (so the k-th linear layer is `heads.<name>.<1 + 3k>`, or `1 + 2k` without activation); linear,
activation, norm, …, linear in heads over the vocabulary.

Source: adapters 1.3.0, heads/base.py, heads/language_modeling.py and heads/dependency_parsing.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....adapter import JSON
from ....architectures import Architecture
from ....errors import FormatError, UnsupportedError, UsageError
from ....methods import (
    ClassificationHeadConfig,
    DependencyParsingHeadConfig,
    HeadConfig,
    ImageClassificationHeadConfig,
    LanguageModelHeadConfig,
    MultipleChoiceHeadConfig,
    QuestionAnsweringHeadConfig,
    Shapes,
    TaggingHeadConfig,
)
from ....methods.config import config_from_json
from ....methods.heads.layers import OF_THE_BASE

LAYERS: Mapping[str, JSON] = {"layers": 2, "activation_function": "tanh", "dropout_prob": None}
POOLED: Mapping[str, JSON] = {**LAYERS, "use_pooler": False}
TOKENS: Mapping[str, JSON] = {**LAYERS, "layers": 1, "num_labels": 2}
WORDS: Mapping[str, JSON] = {
    "vocab_size": None,
    "layers": 1,
    "activation_function": None,
    "layer_norm": False,
    "bias": False,
    "shift_labels": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of flexible head.

    Attributes:
        head_type: its name in `adapters`.
        config: what it is here.
        defaults: field → what it means if it is left out; None of a size stands for what the tensors say.
        constants: field of ours → its value for all heads of the kind.
    """

    head_type: str
    config: type[Any]
    defaults: Mapping[str, JSON]
    constants: Mapping[str, JSON] = field(default_factory=dict)


KINDS: tuple[Kind, ...] = (
    Kind(
        head_type="classification",
        config=ClassificationHeadConfig,
        defaults={**POOLED, "num_labels": 2, "bias": True},
        constants={"multilabel": False},
    ),
    Kind(
        head_type="multilabel_classification",
        config=ClassificationHeadConfig,
        defaults={**POOLED, "num_labels": 2, "bias": True},
        constants={"multilabel": True},
    ),
    Kind(
        head_type="image_classification",
        config=ImageClassificationHeadConfig,
        defaults={**POOLED, "num_labels": 2, "bias": True, "multilabel": False},
    ),
    Kind(head_type="multiple_choice", config=MultipleChoiceHeadConfig, defaults={**POOLED, "num_choices": 2}),
    Kind(head_type="tagging", config=TaggingHeadConfig, defaults=TOKENS),
    Kind(head_type="question_answering", config=QuestionAnsweringHeadConfig, defaults=TOKENS),
    Kind(head_type="dependency_parsing", config=DependencyParsingHeadConfig, defaults={"num_labels": 2}),
    Kind(
        head_type="masked_lm",
        config=LanguageModelHeadConfig,
        defaults={
            **WORDS,
            "embedding_size": None,
            "layers": 2,
            "activation_function": "gelu",
            "layer_norm": True,
            "bias": True,
        },
        constants={"kind": "masked"},
    ),
    Kind(
        head_type="causal_lm",
        config=LanguageModelHeadConfig,
        defaults={**WORDS, "embedding_size": None, "shift_labels": True},
        constants={"kind": "causal"},
    ),
    Kind(
        head_type="seq2seq_lm",
        config=LanguageModelHeadConfig,
        defaults=WORDS,
        constants={"kind": "seq2seq"},
    ),
)


_CLASSES = ("classification", "multilabel_classification", "question_answering")
_TOKENS = (*_CLASSES, "tagging")
_ENCODER = (*_TOKENS, "multiple_choice", "masked_lm")
_EVERY = (*_ENCODER, "dependency_parsing", "causal_lm")
_DECODER = (*_TOKENS, "causal_lm")
_BOTH = (*_CLASSES, "seq2seq_lm")

HAVE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "distilbert", "electra", "roberta", "xlm-roberta", "xmod"), _EVERY),
    **dict.fromkeys(("albert", "deberta", "deberta-v2"), _ENCODER),
    **dict.fromkeys(("gpt2", "gptj", "llama", "mistral"), _DECODER),
    **dict.fromkeys(("bart", "mbart", "mt5", "plbart", "t5"), _BOTH),
    **dict.fromkeys(("beit", "vit"), ("image_classification",)),
    "bert-generation": ("masked_lm", "causal_lm"),
    "whisper": ("seq2seq_lm",),
}
"""Family → the flexible heads that its class of `adapters` takes.

Source: adapters 1.3.0, models/*/adapter_model.py (`head_types`).
"""


def decode(fields: Mapping[str, JSON], row: Architecture, have: Shapes) -> HeadConfig:
    """Return the configuration that a flexible head's `config` describes.

    have: canonical key → shape, for sizes that the fields leave out.

    Raises:
        FormatError: a field has a wrong value.
        UnsupportedError: it is of an unknown kind.
    """
    kind = _kind(fields)
    values = {name: fields.get(name, default) for name, default in kind.defaults.items()}
    if "use_pooler" in values:
        values["pooling"] = _pooling(values.pop("use_pooler"), row)
    if kind.config is QuestionAnsweringHeadConfig:
        values["scaled"] = row.scales
        if values.pop("num_labels") != 2:
            raise FormatError("head_config.json: a question answering head has num_labels 2", hint=AGAIN)
    if values.get("num_choices", 0) is None:
        raise FormatError("head_config.json: num_choices is null", hint=AGAIN)
    if values.get("activation_function") == OF_THE_BASE:
        raise FormatError(f"head_config.json: activation_function {OF_THE_BASE!r} is unknown", hint=AGAIN)
    if kind.config is LanguageModelHeadConfig:
        last = have.get(f"head.{_whole(values['layers']) - 1}.weight", ())
        sizes = {"vocab_size": last[:1], "embedding_size": last[1:2]}
        values |= {name: size[0] for name, size in sizes.items() if values.get(name) is None and size}
    return made(kind.config, {**values, **kind.constants})


def encode(config: HeadConfig, row: Architecture, have: Shapes) -> dict[str, JSON]:
    """Return the `config` of a flexible head's head_config.json, but for its label2id.

    Raises:
        UnsupportedError: no kind of flexible head computes this on models of the family.
    """
    known = config.to_json()
    kind = next(
        kind
        for kind in KINDS
        if kind.config is type(config) and all(known[name] == value for name, value in kind.constants.items())
    )
    if kind.head_type not in HAVE.get(row.name, ()):
        raise UnsupportedError(
            f"`adapters` has no class with a flexible {kind.head_type} head for {row.name} models"
            if row.name in HAVE
            else f"`adapters` has no class with flexible heads for {row.name} models",
            hint="write it in the native format, or take the head off",
        )
    fields = {name: known.get(name, default) for name, default in kind.defaults.items()} | {
        "head_type": kind.head_type,
        "label2id": None,
    }
    if "use_pooler" in fields:
        fields["use_pooler"] = known["pooling"] == "pooler"
    try:
        same = decode(fields, row, have).to_json()
    except FormatError as error:
        raise UnsupportedError(
            f"the adapters format has no such {kind.head_type} head: {error.message}",
            hint="write it in the native format",
        ) from None
    foreign = [f"{name} {value!r}" for name, value in known.items() if same[name] != value]
    if foreign:
        raise UnsupportedError(
            f"a {kind.head_type} head of the adapters format on {row.name} has no {', '.join(foreign)}",
            hint="write it in the native format",
        )
    return fields


def places(config: HeadConfig) -> dict[str, str]:
    """Return canonical key → key behind `heads.<name>.` for every tensor that a flexible head may have."""
    if isinstance(config, DependencyParsingHeadConfig):
        return {"head.arcs.weight": "biaffine_arcs.weight", "head.relations.weight": "biaffine_rels.weight"}
    if isinstance(config, LanguageModelHeadConfig):
        return dict(_language_model(config))
    layered: Any = config
    step = 3 if layered.activation_function else 2
    return {f"head.{k}.{leaf}": f"{1 + step * k}.{leaf}" for k in range(layered.layers) for leaf in ("weight", "bias")}


def _language_model(config: LanguageModelHeadConfig) -> Iterable[tuple[str, str]]:
    place = 0
    for k in range(config.layers):
        yield from ((f"head.{k}.{leaf}", f"{place}.{leaf}") for leaf in ("weight", "bias"))
        place += 2 if config.activation_function else 1
        if config.layer_norm:
            yield from ((f"head.{k}.norm.{leaf}", f"{place}.{leaf}") for leaf in ("weight", "bias"))
            place += 1


def made(config: type[Any], values: Mapping[str, JSON]) -> HeadConfig:
    """Return a configuration with these fields.

    Raises:
        FormatError: one of them has a wrong value.
    """
    try:
        found: HeadConfig = config_from_json(config, {"method": config.method, **values})
    except UsageError as error:
        raise FormatError(f"head_config.json: {error.message}", hint=AGAIN) from None
    return found


AGAIN = "correct head_config.json, or save the head again with the library that made it"


def _kind(fields: Mapping[str, JSON]) -> Kind:
    name = fields.get("head_type")
    for kind in KINDS:
        if kind.head_type == name:
            return kind
    raise UnsupportedError(
        f"the adapter has a head of type {name!r}, which is none of adapters 1.3.0",
        hint="take head_config.json and its weights out of a copy of the folder to read the adapter alone",
    )


def _pooling(pooler: JSON, row: Architecture) -> str:
    """Return what a head reads; only families whose heads read the first token let it choose the pooler."""
    if type(pooler) is not bool:
        raise FormatError("head_config.json: use_pooler must be true or false", hint=AGAIN)
    return "pooler" if pooler and row.reads == "first" else row.reads


def _whole(value: JSON) -> int:
    return value if type(value) is int else 0
