"""Prediction heads that were trained beside an adapter: modules of the wrapped class that PEFT saves in full.

A head that is whole and of a kind that we run becomes ours, and fits every class of the family; what is saved of other
heads stays what it is: parameters of the wrapped class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures import Architecture
from ...architectures.architecture import HeadName
from ...errors import UsageError
from ...methods import ClassificationHeadConfig

if TYPE_CHECKING:
    import torch

TASKS: Mapping[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classification",),
    "TOKEN_CLS": ("tagging",),
    "QUESTION_ANS": ("question_answering",),
    "CAUSAL_LM": ("causal_lm",),
    "SEQ_2_SEQ_LM": ("seq2seq_lm",),
}
"""Task of PEFT → kinds of heads in architectures/."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head, decoded.

    Attributes:
        config: what it computes.
        keys: parameter path around the base model → key of ours.
    """

    config: ClassificationHeadConfig
    keys: Mapping[str, str]


def decode(document: Mapping[str, JSON], saved: Mapping[str, torch.Tensor], row: Architecture) -> Head | None:
    """Return the head that parameters around the base model are, or None if they are none that we run.

    saved: parameter path → tensor.
    """
    for head in row.heads:
        keys = _keys(head)
        have = {key for key in saved if key in keys}
        weights = {key for key in keys if key.endswith(".weight")}
        if weights <= have and _meant(head, document):
            config = _config(head, saved, f"{head.linears[-1]}.bias" in have)
            if config is not None and have == {key for key in keys if key != f"{head.linears[-1]}.bias" or config.bias}:
                return Head(config, {key: keys[key] for key in have})
    return None


def encode(config: ClassificationHeadConfig, row: Architecture) -> tuple[HeadName, dict[str, str]] | None:
    """Return the class of the family that has this head, and key of ours → parameter path; None if none has it."""
    for head in row.heads:
        if head.kind == "classification" and _built(head, config.num_labels, config.bias) == config:
            return head, {ours: theirs for theirs, ours in _keys(head).items()}
    return None


def _meant(head: HeadName, document: Mapping[str, JSON]) -> bool:
    """Return whether the document says that the wrapped class has this head, which is one that we run."""
    if head.kind != "classification" or head.norm is not None:
        return False
    mapping = document.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name in head.classes or (name is None and head.kind in TASKS.get(str(document.get("task_type")), ()))


def _keys(head: HeadName) -> dict[str, str]:
    return {f"{path}.{leaf}": f"head.{k}.{leaf}" for k, path in enumerate(head.linears) for leaf in ("weight", "bias")}


def _config(head: HeadName, saved: Mapping[str, torch.Tensor], bias: bool) -> ClassificationHeadConfig | None:
    last = saved[f"{head.linears[-1]}.weight"]
    return _built(head, last.shape[0], bias) if last.ndim == 2 else None


def _built(head: HeadName, labels: int, bias: bool) -> ClassificationHeadConfig | None:
    try:
        return ClassificationHeadConfig(
            num_labels=labels,
            layers=len(head.linears),
            activation_function=head.activation,
            pooling=head.pooling,  # type: ignore[arg-type]
            bias=bias,
        )
    except UsageError:
        return None
