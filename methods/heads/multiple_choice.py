"""The head that picks one of several texts: a score for each, as a classification head has them with one label.

    logits = score(text_1), …, score(text_c)

Sources: Zellers et al. 2018 (arXiv 1808.05326) §5 for the task; `adapters` 1.3.0, heads/base.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UsageError
from ...sites import Layout
from ..method import Binding, Live, Method, Seen, Shapes
from . import layers, losses
from .entering import flattened
from .pooling import PooledConfig, PooledHead, chosen, settled

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.utils.generic import ModelOutput


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceHeadConfig(PooledConfig):
    """What the head computes, besides the layers.

    Attributes:
        num_choices: number of texts to pick from; None leaves it to the input (batch, choices, sequence).
    """

    method: ClassVar[str] = "multiple_choice_head"

    num_choices: int | None = None

    @property
    def labels(self) -> int:
        """Number of choices that may have names."""
        return self.num_choices or 0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return self._faults(num_choices=self.num_choices)


def shapes(config: MultipleChoiceHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors.

    Raises:
        UnsupportedError: the head reads a pooler that the model does not have.
    """
    chosen(config.pooling, layout)
    return layers.shapes(config, layout, 1)


def initial(config: MultipleChoiceHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases."""
    return layers.start(shapes(config, layout))


def bind(config: MultipleChoiceHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=MultipleChoiceHead(config, tensors, live))


class MultipleChoiceHead(PooledHead):
    """The head in the forward pass; labels is the number of choices where that is settled."""

    __slots__ = ()

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer."""
        from transformers.modeling_outputs import MultipleChoiceModelOutput

        return MultipleChoiceModelOutput, MultipleChoiceModelOutput

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the base model's inputs: each choice is a text of its own."""
        return super().enter(flattened(inputs))

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return logits (batch, choices)."""
        return {"logits": self.answers(seen).view(-1, self._choices(seen.inputs))}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return cross entropy over the choices."""
        labels = seen.inputs.get("labels")
        return None if labels is None else losses.classes(answer["logits"], labels, items)

    def _choices(self, inputs: Mapping[str, Any]) -> int:
        """Return how many choices there are: as many as the input has, or else as the configuration says."""
        ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
        found = None
        if ids is not None and ids.dim() == 3:
            found = int(ids.shape[1])
        elif embeds is not None and embeds.dim() == 4:
            found = int(embeds.shape[1])
        wanted = self.labels or None
        if found is None and wanted is None:
            raise UsageError("the head picks one of several texts: give the inputs as (batch, choices, sequence)")
        if found is not None and wanted is not None and found != wanted:
            raise UsageError(f"the head was made for {wanted} choices, the inputs have {found}")
        return found or wanted or 1


METHOD = Method(
    config=MultipleChoiceHeadConfig,
    presets={"multiple_choice_head": MultipleChoiceHeadConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=layers.facts,
    settled=settled,
    is_head=True,
)
