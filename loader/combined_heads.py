"""Prediction heads of several adapters: each answers for the rows that are its adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from ..errors import UnsupportedError
from ..methods import Binding, HeadOp, Seen
from ..methods.method import Problem
from .combined_prefixes import Which


@dataclass
class HeadOutputs(ModelOutput):
    """The answers of several heads.

    Attributes:
        loss: the sum of the heads' losses, if all have one.
        logits: those of all rows in the order of the batch, where all heads answer with the same shape; else None.
        outputs: the answer of each head for its own rows, in the order of the composition.
        past_key_values, hidden_states, attentions: of the base model, for the whole batch.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    outputs: tuple[ModelOutput, ...] | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Heads:
    """Several heads, each for its rows of the batch."""

    __slots__ = ("distinct", "generates", "labels", "places", "problem", "takes", "which")

    labels: int
    problem: Problem | None
    takes: tuple[str, ...]

    def __init__(self, heads: Sequence[HeadOp], which: Which) -> None:
        """Make it; which tells the number of the head of each row."""
        self.distinct = list({id(head): head for head in heads}.values())
        self.places = [next(i for i, one in enumerate(self.distinct) if one is head) for head in heads]
        self.which = which
        self.takes = tuple(dict.fromkeys(name for head in heads for name in head.takes))
        self.generates = all(head.generates for head in self.distinct)
        labels, problems = {head.labels for head in heads}, {head.problem for head in heads}
        self.labels = labels.pop() if len(labels) == 1 else 0
        self.problem = problems.pop() if len(problems) == 1 else None

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer."""
        return HeadOutputs, HeadOutputs

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return what the base model is called with: the same for every head.

        Raises:
            UnsupportedError: the heads want different inputs.
        """
        first, *others = [head.enter(dict(inputs)) for head in self.distinct]
        for other in others:
            if other.keys() != first.keys() or any(not _same(first[name], other[name]) for name in first):
                raise UnsupportedError("the heads of these adapters call the base model in different ways")
        return first

    def __call__(self, seen: Seen) -> Any:
        """Return `outputs`, and `logits` of all rows where they have one shape."""
        device = seen.hidden.device
        owner = torch.tensor(self.places, device=device)[self.which(len(seen.hidden), device)]
        answers, places = [], []
        for number, head in enumerate(self.distinct):
            own = (owner == number).nonzero().squeeze(1)
            part = _part(seen, own)
            found = head(part)
            loss = head.loss(found, part, None) if len(own) else None
            answers.append(head.outputs()[0](**found, loss=loss))
            places.append(own)
        return {"outputs": tuple(answers), "logits": _joined([a.get("logits") for a in answers], places)}

    def loss(self, answer: Mapping[str, Any], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return the sum of the heads' losses, None if one has none."""
        losses = [one.get("loss") for one in answer["outputs"]]
        return None if any(loss is None for loss in losses) else torch.stack(losses).sum()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or torch.equal(a, b)
    return a is b or (isinstance(a, (bool, int, str)) and a == b)


def _part(seen: Seen, rows: Tensor) -> Seen:
    """Return what a head sees of some rows."""
    count = len(seen.hidden)

    def cut(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value.index_select(0, rows)
            if isinstance(value, Tensor) and value.ndim and value.shape[0] == count
            else value
            for name, value in values.items()
        }

    pooled, encoded = (None if one is None else one.index_select(0, rows) for one in (seen.pooled, seen.encoded))
    return Seen(seen.hidden.index_select(0, rows), pooled, cut(seen.inputs), cut(seen.entered), seen.invert, encoded)


def _joined(logits: Sequence[Tensor | None], places: Sequence[Tensor]) -> Tensor | None:
    """Return logits in the order of the batch, None if the heads answer in different shapes."""
    present = [one for one in logits if one is not None]
    if len(present) < len(logits) or len({one.shape[1:] for one in present}) > 1:
        return None
    return torch.cat(present).index_select(0, torch.cat(list(places)).argsort())


def last(children: Sequence[Binding]) -> HeadOp | None:
    """Return the head of a stack: that of the last adapter which has one."""
    return next((child.head for child in reversed(children) if child.head is not None), None)


def only(children: Sequence[Binding], what: str) -> HeadOp | None:
    """Return the only head among children that share one answer.

    Raises:
        UnsupportedError: there are several.
    """
    found = list({id(child.head): child.head for child in children if child.head is not None}.values())
    if len(found) > 1:
        raise UnsupportedError(
            f"{len(found)} heads cannot share the answer of {what}",
            hint="say whose head answers: --head NAME, or activate(…, head=NAME)",
        )
    return found[0] if found else None


def side_by_side(children: Sequence[Binding], which: Which) -> HeadOp | None:
    """Return the heads of adapters for the rows of a batch, None if none has one.

    Raises:
        UnsupportedError: some have none.
    """
    heads = [child.head for child in children if child.head is not None]
    if not heads:
        return None
    if len(heads) < len(children):
        raise UnsupportedError(
            "some rows of the batch would have an answer of a head, and others none",
            hint="give every adapter a head, or none; or say whose answers: --head NAME, or activate(…, head=NAME)",
        )
    if all(head is heads[0] for head in heads):
        return heads[0]
    return Heads(heads, which)
