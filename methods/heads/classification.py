"""Heads that give each text, or each picture, a class or several, or a number.

    logits = W_L · drop(… act(W_1 · drop(pool(h)) + b_1) …) + b_L

Sources: Houlsby et al. 2019 (arXiv 1902.00751) §3.1 (a linear layer on the first token, trained with the adapter);
`adapters` 1.3.0, heads/base.py, for the two-layer form, the classes that are not exclusive, and pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...sites import Layout
from ..method import Binding, Live, Method, Problem, Seen, Shapes
from . import layers, losses
from .pooling import PooledConfig, PooledHead, chosen, settled

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.utils.generic import ModelOutput


@dataclass(frozen=True, kw_only=True)
class ClassificationHeadConfig(PooledConfig):
    """What the head computes, besides the layers.

    Attributes:
        num_labels: number of classes; 1 means regression, unless the classes are not exclusive.
        multilabel: whether a text can be of several classes.
    """

    method: ClassVar[str] = "classification_head"

    num_labels: int
    multilabel: bool = False

    @property
    def labels(self) -> int:
        """Number of classes that have names."""
        return self.num_labels

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return self._faults(num_labels=self.num_labels)


@dataclass(frozen=True, kw_only=True)
class ImageClassificationHeadConfig(ClassificationHeadConfig):
    """What a head computes that tells what is on a picture; the fields are those of ClassificationHeadConfig."""

    method: ClassVar[str] = "image_classification_head"


def shapes(config: ClassificationHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors.

    Raises:
        UnsupportedError: the head reads a pooler that the model does not have.
    """
    chosen(config.pooling, layout)
    return layers.shapes(config, layout, config.num_labels)


def initial(config: ClassificationHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases."""
    return layers.start(shapes(config, layout))


def bind(config: ClassificationHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=ClassificationHead(config, tensors, live))


def bind_image(config: ImageClassificationHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head for pictures on the given tensors themselves."""
    return Binding(head=ImageClassificationHead(config, tensors, live))


class ClassificationHead(PooledHead):
    """The head in the forward pass."""

    __slots__ = ()

    def __init__(self, config: ClassificationHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        super().__init__(config, tensors, live)
        self.problem = self._problem(config)

    def _problem(self, config: ClassificationHeadConfig) -> Problem:
        if config.multilabel:
            return "multi_label_classification"
        return "regression" if self.labels == 1 else "single_label_classification"

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the classes of the answer."""
        from transformers.modeling_outputs import Seq2SeqSequenceClassifierOutput, SequenceClassifierOutput

        return SequenceClassifierOutput, Seq2SeqSequenceClassifierOutput

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return logits (batch, labels)."""
        return {"logits": self.answers(seen)}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return cross entropy, that of each class by itself, or the squared error."""
        labels = seen.inputs.get("labels")
        if labels is None:
            return None
        kinds = {"multi_label_classification": losses.several, "regression": losses.numbers}
        found: Tensor = kinds.get(self.problem or "", losses.classes)(answer["logits"], labels, items)
        return found


class ImageClassificationHead(ClassificationHead):
    """The head for pictures in the forward pass."""

    __slots__ = ()

    def _problem(self, config: ClassificationHeadConfig) -> Problem:
        # With one label adapters 1.3.0 takes a number for the answer, whatever multilabel says.
        return "regression" if self.labels == 1 else super()._problem(config)

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer."""
        from transformers.modeling_outputs import ImageClassifierOutput

        return ImageClassifierOutput, ImageClassifierOutput


METHOD = Method(
    config=ClassificationHeadConfig,
    presets={
        "classification_head": ClassificationHeadConfig(num_labels=2),
        "multilabel_classification_head": ClassificationHeadConfig(num_labels=2, multilabel=True),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=layers.facts,
    settled=settled,
    is_head=True,
)

IMAGE = Method(
    config=ImageClassificationHeadConfig,
    presets={"image_classification_head": ImageClassificationHeadConfig(num_labels=2)},
    shapes=shapes,
    initial=initial,
    bind=bind_image,
    facts=layers.facts,
    settled=settled,
    is_head=True,
)
