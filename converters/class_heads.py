"""Heads of the classes of transformers that have one of their own, as files of foreign formats hold them.

Their tensors have the names of the class's modules, which the architecture's row lists; what they compute is known from
the class. The sizes are those of the tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..adapter import JSON
from ..architectures import HeadName
from ..methods import (
    ClassificationHeadConfig,
    HeadConfig,
    ImageClassificationHeadConfig,
    LanguageModelHeadConfig,
    MultipleChoiceHeadConfig,
    QuestionAnsweringHeadConfig,
    Shapes,
    TaggingHeadConfig,
)
from ..methods.config import config_from_json

POOLED: Mapping[str, type[Any]] = {
    "classification": ClassificationHeadConfig,
    "image_classification": ImageClassificationHeadConfig,
    "multiple_choice": MultipleChoiceHeadConfig,
}
OTHERS: Mapping[str, type[Any]] = {
    "tagging": TaggingHeadConfig,
    "question_answering": QuestionAnsweringHeadConfig,
}
LANGUAGE: Mapping[str, str] = {"masked_lm": "masked", "causal_lm": "causal", "seq2seq_lm": "seq2seq"}


def decode(head: HeadName, num_labels: JSON, have: Shapes, *, inverts: bool) -> HeadConfig:
    """Return what the head of a class computes.

    Args:
        head: the class's head.
        num_labels: what the file says, or None.
        have: canonical key → shape.
        inverts: whether the inverse of an invertible adapter stands in a head over the vocabulary.

    Raises:
        UsageError: a size is wrong.
    """
    layers = len(head.linears)
    last = have.get(f"head.{layers - 1}.weight", ())
    values: dict[str, JSON] = {
        "layers": layers,
        "activation_function": head.activation,
        "layer_norm": head.norm is not None,
        "bias": f"head.{layers - 1}.bias" in have,
        "inner_bias": not head.may_lack_bias or layers == 1 or "head.0.bias" in have,
        "norm_bias": not head.may_lack_bias or f"head.{layers - 2}.norm.bias" in have,
    }
    if head.kind in LANGUAGE:
        kind = LANGUAGE[head.kind]
        values |= {
            "kind": kind,
            "vocab_size": last[0] if last else None,
            "embedding_size": last[1] if last[1:] else None,
            "shift_labels": kind == "causal",
            "inverts": inverts,
        }
        return _made(LanguageModelHeadConfig, values)
    if head.kind in POOLED:
        values["pooling"] = head.pooling
    if head.kind in ("classification", "image_classification", "tagging"):
        values["num_labels"] = (last[0] if last else 2) if num_labels is None else num_labels
    return _made({**POOLED, **OTHERS}[head.kind], values)


def answer(config: HeadConfig) -> dict[str, JSON]:
    """Return what of a configuration counts for its answer, without what only training or a loss asks for.

    One layer has no activation behind it, whatever is named.
    """
    found = {key: value for key, value in config.to_json().items() if key not in ("dropout_prob", "multilabel")}
    return {**found, "activation_function": None} if found.get("layers") == 1 else found


def fits(head: HeadName, have: Collection[str]) -> bool:
    """Return whether keys are those of a head of the class, all of them."""
    return needed(head) <= {*have} <= {*places(head)} - (set() if biased(head) else {last_bias(head)})


def needed(head: HeadName) -> set[str]:
    """Return the keys that every head of the class has."""
    last, vocabulary = last_bias(head), head.kind in LANGUAGE
    free = {key for key in places(head) if key.endswith(".bias") and head.may_lack_bias and (key != last or vocabulary)}
    return {*places(head)} - free - (set() if biased(head) else {last})


def last_bias(head: HeadName) -> str:
    """Return the key of the bias of the last layer."""
    return f"head.{len(head.linears) - 1}.bias"


def biased(head: HeadName) -> bool:
    """Return whether the last layer has a bias; what transformers calls a score has none, but that of tokens."""
    return head.linears[-1] != "score" or head.kind == "tagging"


def places(head: HeadName) -> dict[str, tuple[str, ...]]:
    """Return canonical key → the names that the class has for it."""
    found: dict[str, tuple[str, ...]] = {}
    for k, path in enumerate(head.linears):
        found[f"head.{k}.weight"] = (f"{path}.weight",)
        found[f"head.{k}.bias"] = (f"{path}.bias",)
    if head.norm is not None:
        for leaf in ("weight", "bias"):
            found[f"head.{len(head.linears) - 2}.norm.{leaf}"] = (f"{head.norm}.{leaf}",)
    if head.bias:
        found[f"head.{len(head.linears) - 1}.bias"] = head.bias
    return found


def _made(config: type[Any], values: Mapping[str, JSON]) -> HeadConfig:
    found: HeadConfig = config_from_json(config, {"method": config.method, **values})
    return found
