"""The head that finds where in a text an answer begins and where it ends.

    (start_t, end_t) = W_L · drop(… act(W_1 · drop(h_t) + b_1) …) + b_L

Sources: Devlin et al. 2019 (arXiv 1810.04805) §5.2; `adapters` 1.3.0, heads/base.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...sites import Layout
from ..method import Binding, Live, Method, Seen, Shapes
from . import layers, losses

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.utils.generic import ModelOutput


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringHeadConfig(layers.LayeredConfig):
    """What the head computes, besides the layers.

    Attributes:
        scaled: whether it reads the hidden states scaled as they are in front of the model's output embeddings; only
            T5 scales them.
    """

    method: ClassVar[str] = "question_answering_head"

    scaled: bool = False


def shapes(config: QuestionAnsweringHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors."""
    return layers.shapes(config, layout, 2)


def initial(config: QuestionAnsweringHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases."""
    return layers.start(shapes(config, layout))


def bind(config: QuestionAnsweringHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=QuestionAnsweringHead(config, tensors, live))


class QuestionAnsweringHead(layers.LayeredHead):
    """The head in the forward pass."""

    __slots__ = ("scale",)

    takes: tuple[str, ...] = ("start_positions", "end_positions")

    def __init__(self, config: QuestionAnsweringHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        super().__init__(config, tensors, live)
        self.scale = live.settings.scale if config.scaled else 1.0

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the classes of the answer."""
        from transformers.modeling_outputs import QuestionAnsweringModelOutput, Seq2SeqQuestionAnsweringModelOutput

        return QuestionAnsweringModelOutput, Seq2SeqQuestionAnsweringModelOutput

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return start_logits and end_logits (batch, sequence)."""
        hidden = seen.hidden if self.scale == 1.0 else seen.hidden * self.scale
        start, end = self.dense(hidden).unbind(dim=-1)
        return {"start_logits": start.contiguous(), "end_logits": end.contiguous()}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return the mean of both cross entropies; places behind the text do not count."""
        start, end = (seen.inputs.get(name) for name in self.takes)
        if start is None or end is None:
            return None
        both = [
            losses.classes(logits, place.view(-1).clamp(0, logits.shape[1]), items, ignored=logits.shape[1])
            for logits, place in ((answer["start_logits"], start), (answer["end_logits"], end))
        ]
        return (both[0] + both[1]) / 2


METHOD = Method(
    config=QuestionAnsweringHeadConfig,
    presets={"question_answering_head": QuestionAnsweringHeadConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=layers.facts,
    is_head=True,
)
