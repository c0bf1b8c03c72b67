"""The answer of a head for dependency parsing; transformers has no class for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass
class DependencyParsingOutput(ModelOutput):
    """What a head for dependency parsing answers; words are counted as in `word_starts`.

    Attributes:
        loss: the sum of the cross entropies of heads and of relations, where there are labels.
        rel_preds: scores of the relation between each word and each head it may have (batch, words, heads, labels).
        arc_preds: scores of those heads (batch, words, heads); head 0 is the root, head k the k-th word.
        hidden_states, attentions: the base model's, where they are asked for.
    """

    loss: Tensor | None = None
    rel_preds: Tensor | None = None
    arc_preds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
