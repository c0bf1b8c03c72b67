"""The head that gives each token a class.

    logits_t = W_L · drop(… act(W_1 · drop(h_t) + b_1) …) + b_L

Where there are two stacks, h_t is what the encoder makes of a token: the decoder has not read it yet.

Sources: Devlin et al. 2019 (arXiv 1810.04805) §5.3; `adapters` 1.3.0, heads/base.py.
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
class TaggingHeadConfig(layers.LayeredConfig):
    """What the head computes, besides the layers.

    Attributes:
        num_labels: number of classes.
    """

    method: ClassVar[str] = "tagging_head"

    num_labels: int

    @property
    def labels(self) -> int:
        """Number of classes that have names."""
        return self.num_labels

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return self._faults(num_labels=self.num_labels)


def shapes(config: TaggingHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors."""
    return layers.shapes(config, layout, config.num_labels)


def initial(config: TaggingHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases."""
    return layers.start(shapes(config, layout))


def bind(config: TaggingHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=TaggingHead(config, tensors, live))


class TaggingHead(layers.LayeredHead):
    """The head in the forward pass."""

    __slots__ = ()

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer."""
        from transformers.modeling_outputs import TokenClassifierOutput

        return TokenClassifierOutput, TokenClassifierOutput

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return logits (batch, sequence, labels)."""
        return {"logits": self.dense(seen.hidden if seen.encoded is None else seen.encoded)}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return cross entropy over the tokens that are no padding."""
        labels, mask = seen.inputs.get("labels"), seen.entered.get("attention_mask")
        if labels is None:
            return None
        length = answer["logits"].shape[1]
        labels = losses.lengthened(labels, length, losses.IGNORED)
        if mask is not None and mask.dim() == 2:
            labels = labels.masked_fill(losses.lengthened(mask, length, 1) != 1, losses.IGNORED)
        return losses.classes(answer["logits"], labels, items)


METHOD = Method(
    config=TaggingHeadConfig,
    presets={"tagging_head": TaggingHeadConfig(num_labels=2)},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=layers.facts,
    is_head=True,
)
