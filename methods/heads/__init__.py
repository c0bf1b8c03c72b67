"""Prediction heads, one file each: what turns the base model's hidden states into a task's answer.

A head is a method like others; its tensors have keys that begin with `head.`. What stands around it, running the base
model and giving its answer the class that transformers has for it, is written once, in loader/model_forwards.py.
"""

from __future__ import annotations

from typing import Protocol, TypeGuard

from ...adapter import MethodConfig
from ...sites import Layout
from ..method import Method
from . import classification, dependency_parsing, language_model, multiple_choice, question_answering, tagging
from .classification import ClassificationHeadConfig, ImageClassificationHeadConfig
from .dependency_parsing import DependencyParsingHeadConfig
from .language_model import LanguageModelHeadConfig
from .multiple_choice import MultipleChoiceHeadConfig
from .question_answering import QuestionAnsweringHeadConfig
from .tagging import TaggingHeadConfig

__all__ = [
    "HEADS",
    "HEAD_ARGUMENTS",
    "ClassificationHeadConfig",
    "DependencyParsingHeadConfig",
    "HeadConfig",
    "ImageClassificationHeadConfig",
    "LanguageModelHeadConfig",
    "MultipleChoiceHeadConfig",
    "QuestionAnsweringHeadConfig",
    "TaggingHeadConfig",
    "default_head",
    "is_head",
]

HEADS: tuple[Method, ...] = (
    classification.METHOD,
    classification.IMAGE,
    multiple_choice.METHOD,
    tagging.METHOD,
    question_answering.METHOD,
    language_model.METHOD,
    dependency_parsing.METHOD,
)

HEAD_ARGUMENTS = (
    "labels",
    "start_positions",
    "end_positions",
    "word_starts",
    "labels_arcs",
    "labels_rels",
    "logits_to_keep",
)
"""Arguments of a call that some head takes."""


class HeadConfig(MethodConfig, Protocol):
    """The configuration of a head."""

    @property
    def labels(self) -> int:
        """Number of classes that have names, 0 where there are none."""
        ...


def is_head(config: MethodConfig) -> TypeGuard[HeadConfig]:
    """Return whether a configuration is that of a head."""
    return any(config.method == head.name for head in HEADS)


def default_head(labels: int, layout: Layout) -> ClassificationHeadConfig:
    """Return the head that an adapter with so many labels gets if it names none: one linear layer."""
    pictures = bool(layout.embeddings) and layout.embeddings[0].tokens is None
    kind = ImageClassificationHeadConfig if pictures else ClassificationHeadConfig
    return kind(num_labels=labels)
