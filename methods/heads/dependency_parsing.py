"""The head that finds for each word the word that it depends on, and the relation between them (biaffine).

    arcs_ij = [w_i; 1]ᵀ · A · h_j,      relations_ijl = [w_i; 1]ᵀ · R_l · [h_j; 1]

w_i is the mean of the hidden states of the i-th word's tokens, h = (first token, w_1, w_2, …) the heads that a word may
have, the first token standing for the root. A (1, d + 1, d) is the key `head.arcs.weight`, R (labels, d + 1, d + 1) is
`head.relations.weight`.

Sources: Dozat & Manning 2017 (arXiv 1611.01734) §3; Glavaš & Vulić 2021 (arXiv 2008.06788) §2.1; `adapters` 1.3.0,
heads/dependency_parsing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UsageError
from ...sites import Layout
from ..config import Config
from ..method import Binding, Facts, Live, Method, Problem, Roles, Seen, Shapes
from . import losses
from .entering import entering
from .layers import MOST_LABELS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.utils.generic import ModelOutput


@dataclass(frozen=True, kw_only=True)
class DependencyParsingHeadConfig(Config):
    """What the head computes.

    Attributes:
        num_labels: number of relations.
        dropout_prob: on the hidden states, while training; None takes the base model's own.
    """

    method: ClassVar[str] = "dependency_parsing_head"

    num_labels: int
    dropout_prob: float | None = None

    @property
    def labels(self) -> int:
        """Number of relations that have names."""
        return self.num_labels

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        found = [] if 1 <= self.num_labels <= MOST_LABELS else [f"num_labels must lie in [1, {MOST_LABELS}]"]
        if self.dropout_prob is not None and not 0 <= self.dropout_prob < 1:
            found.append("dropout_prob must lie in [0, 1)")
        return found


def shapes(config: DependencyParsingHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors."""
    d = layout.width
    return {"head.arcs.weight": (1, d + 1, d), "head.relations.weight": (config.num_labels, d + 1, d + 1)}


def initial(config: DependencyParsingHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: zeros, as in the library of the second source."""
    import torch

    return {key: torch.zeros(shape) for key, shape in shapes(config, layout).items()}


def facts(config: DependencyParsingHeadConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the width of the hidden states."""
    return Facts(widths=have.get("head.arcs.weight", ())[2:3])


def bind(config: DependencyParsingHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=DependencyParsingHead(config, tensors, live))


class DependencyParsingHead:
    """The head in the forward pass."""

    __slots__ = ("arcs", "dropout", "labels", "mode", "padding", "problem", "relations", "settings", "takes")

    generates = False

    def __init__(self, config: DependencyParsingHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        self.settings = live.settings
        self.mode = live.mode
        self.arcs, self.relations = tensors["head.arcs.weight"], tensors["head.relations.weight"]
        self.dropout = live.settings.dropout if config.dropout_prob is None else config.dropout_prob
        # The id stands in word_starts and labels where there is no word.
        self.padding = -1 if live.settings.padding is None else live.settings.padding
        self.labels = config.num_labels
        self.takes: tuple[str, ...] = ("word_starts", "labels_arcs", "labels_rels")
        self.problem: Problem | None = None

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer."""
        from .parsing_output import DependencyParsingOutput

        return DependencyParsingOutput, DependencyParsingOutput

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the base model's inputs."""
        return entering(inputs, self.takes, self.settings)

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return rel_preds (batch, words, heads, labels) and arc_preds (batch, words, heads).

        There are as many words as tokens; those behind a text's last word are zero vectors.
        """
        from torch import cat, einsum
        from torch.nn.functional import dropout, pad

        hidden = seen.hidden
        if self.dropout and self.mode.training:
            hidden = dropout(hidden, self.dropout)
        starts = seen.inputs.get("word_starts")
        if starts is None:
            raise UsageError(
                "the head for dependency parsing needs to know where words begin",
                hint="pass word_starts (batch, n): the place of each word's first token, and of what follows the last",
            )
        words = self._averages(starts, hidden) @ hidden
        heads = cat([hidden[:, :1], words], dim=1)
        words = pad(words, (0, 1), value=1.0)
        arcs = einsum("bxi,oij,byj->boxy", words, self.arcs, heads).squeeze(1)
        relations = einsum("bxi,oij,byj->bxyo", words, self.relations, pad(heads, (0, 1), value=1.0))
        return {"rel_preds": relations, "arc_preds": arcs}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return the cross entropy of the heads plus that of the relations to the right heads."""
        heads, kinds = seen.inputs.get("labels_arcs"), seen.inputs.get("labels_rels")
        if heads is None or kinds is None:
            return None
        real = heads != self.padding
        right = heads[real]
        relations = answer["rel_preds"][real].take_along_dim(right.view(-1, 1, 1), dim=1).squeeze(1)
        return losses.classes(answer["arc_preds"][real], right, items) + losses.classes(relations, kinds[real], items)

    def _averages(self, starts: Tensor, hidden: Tensor) -> Tensor:
        """Return the weights (batch, words, tokens) that make words of tokens."""
        weights = hidden.new_zeros(hidden.shape[0], hidden.shape[1], hidden.shape[1])
        for row, places in enumerate(starts.tolist()):
            known = [place for place in places if place != self.padding]
            for word, (begin, end) in enumerate(pairwise(known)):
                if end <= 0:
                    break
                if not 0 <= begin < end <= hidden.shape[1]:
                    raise UsageError(f"word_starts says that a word goes from token {begin} to token {end}")
                weights[row, word, begin:end] = 1.0 / (end - begin)
        return weights


METHOD = Method(
    config=DependencyParsingHeadConfig,
    presets={"dependency_parsing_head": DependencyParsingHeadConfig(num_labels=2)},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    is_head=True,
)
