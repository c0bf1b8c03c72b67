"""Prediction heads in files of PEFT: a head of one of transformers' classes, saved in full as `modules_to_save`.

The document says which class was wrapped, or the task, and the row of the family which modules are the head. A head
that answers a question about a text becomes ours, and fits every class of the family; a head over the vocabulary, or a
part of a head, stays what it is: parameters of the wrapped class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures import Architecture, HeadName
from ...errors import FormatError, UsageError
from ...methods import HeadConfig
from .. import class_heads

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

OURS = ("classification", "image_classification", "multiple_choice", "tagging", "question_answering")
"""Kinds of heads that become ours."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head, decoded.

    Attributes:
        config: what it computes.
        keys: parameter path around the base model → key of ours.
    """

    config: HeadConfig
    keys: Mapping[str, str]


def decode(document: Mapping[str, JSON], saved: Mapping[str, torch.Tensor], row: Architecture) -> Head | None:
    """Return the head that parameters around the base model are, or None if they are none that becomes ours.

    saved: parameter path → tensor.

    Raises:
        FormatError: a bias is missing.
    """
    for head in row.heads:
        keys = _keys(head)
        have = {ours: tuple(saved[theirs].shape) for theirs, ours in keys.items() if theirs in saved}
        if head.kind not in OURS or not meant(head, document):
            continue
        needed = class_heads.needed(head)
        wanted = {theirs: ours for theirs, ours in keys.items() if ours in needed or ours in have}
        if all(ours in have for ours in wanted.values() if ours.endswith(".weight")):
            lost = [theirs for theirs, ours in wanted.items() if ours not in have]
            if lost:
                raise FormatError(f"the file has a head without {lost[0]}", hint="save the adapter again with PEFT")
            config = _config(head, have)
            if config is not None:
                return Head(config, wanted)
    return None


def encode(
    config: HeadConfig, tensors: Mapping[str, torch.Tensor], row: Architecture
) -> tuple[HeadName, dict[str, str]] | None:
    """Return the class of the family that has this head, and key of ours → parameter path; None if none has it."""
    have = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wanted = class_heads.answer(config)
    for head in row.heads:
        names = {ours: theirs for theirs, ours in _keys(head).items()}
        whole = class_heads.biased(head) == (class_heads.last_bias(head) in have)
        if whole and head.kind in OURS and {key for key in have if key.startswith("head.")} <= names.keys():
            found = _config(head, have)
            if found is not None and class_heads.answer(found) == wanted:
                return head, names
    return None


def mapping(head: HeadName, row: Architecture) -> dict[str, JSON]:
    """Return `auto_mapping`, which tells the wrapped class where no task does."""
    package = row.model_types[0].replace("-", "_")
    return {"base_model_class": head.classes[0], "parent_library": f"transformers.models.{package}.modeling_{package}"}


def task_of(head: HeadName) -> str | None:
    """Return the task of the classes that have this head, None where PEFT has no word for it."""
    return next((task for task, kinds in TASKS.items() if head.kind in kinds), None)


def meant(head: HeadName, document: Mapping[str, JSON]) -> bool:
    """Return whether the document says that the wrapped class has this head."""
    said = document.get("auto_mapping")
    name = said.get("base_model_class") if isinstance(said, dict) else None
    return name in head.classes or (name is None and head.kind in TASKS.get(str(document.get("task_type")), ()))


def _keys(head: HeadName) -> dict[str, str]:
    """Return parameter path around the base model → key of ours."""
    return {theirs: ours for ours, every in class_heads.places(head).items() for theirs in every}


def _config(head: HeadName, have: dict[str, tuple[int, ...]]) -> HeadConfig | None:
    try:
        return class_heads.decode(head, None, have, inverts=head.inverts)
    except UsageError:
        return None
