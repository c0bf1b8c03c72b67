"""How well a model does on texts with labels; texts are tokenised once, and batches hold texts of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from .data import Example, Padding, Tokens, padded, sorted_batches, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Forward = Callable[[dict[str, Tensor]], Tensor]
"""Model inputs → logits (batch, classes)."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a model does on a set of examples; all are means over the examples.

    Attributes:
        loss: cross-entropy in nats.
        accuracy: share of right answers.
        macro_f1: mean of the F1 scores of the classes that occur, each class weighing the same.
        examples: number of examples.
    """

    loss: float
    accuracy: float
    macro_f1: float
    examples: int


@dataclass(frozen=True, slots=True)
class Data:
    """Tokenised examples, and what is needed to make batches of them."""

    tokens: Sequence[Tokens]
    labels: Sequence[int]
    lengths: Sequence[int]
    padding: Padding
    device: torch.device

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        device: torch.device,
    ) -> Data:
        """Return the examples, each text tokenised."""
        tokens = tokenise([example.text for example in examples], tokenizer, max_length)
        return cls(
            tokens=tokens,
            labels=[example.label for example in examples],
            lengths=[len(text["input_ids"]) for text in tokens],
            padding=Padding.of(tokenizer),
            device=device,
        )

    def batch(self, numbers: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model inputs (batch, longest) and the labels (batch,) of these examples."""
        rows = padded([self.tokens[number] for number in numbers], self.padding)
        inputs = {name: torch.tensor(row).to(self.device, non_blocking=True) for name, row in rows.items()}
        labels = torch.tensor([self.labels[number] for number in numbers])
        return inputs, labels.to(self.device, non_blocking=True)


def logits_of(forward: Forward, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Return the logits (batch, classes), after making sure that each label is one of the classes."""
    logits = forward(inputs)
    highest = int(labels.max())
    if highest >= logits.shape[-1]:
        raise UsageError(
            f"an example has label number {highest}, but the head has only {logits.shape[-1]} classes (0 … n-1)",
            hint="add the adapter with a head of as many labels as the data have",
        )
    return logits


@torch.no_grad()
def evaluated(forward: Forward, data: Data, batch_size: int) -> Evaluation:
    """Return the evaluation of forward on the data."""
    losses: list[Tensor] = []
    answers: list[Tensor] = []
    truth: list[Tensor] = []
    for numbers in sorted_batches(data.lengths, batch_size):
        inputs, labels = data.batch(numbers)
        logits = logits_of(forward, inputs, labels)
        losses.append(functional.cross_entropy(logits, labels, reduction="none"))
        answers.append(logits.argmax(dim=-1))
        truth.append(labels)
    given, true = torch.cat(answers), torch.cat(truth)
    return Evaluation(
        loss=torch.cat(losses).double().mean().item(),
        accuracy=(given == true).double().mean().item(),
        macro_f1=_macro_f1(given, true),
        examples=len(true),
    )


def _macro_f1(given: Tensor, true: Tensor) -> float:
    """Return the mean over the classes in either tensor of 2 hits / (given + true).

    >>> round(_macro_f1(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])), 3)
    0.667
    """
    classes = int(torch.maximum(given.max(), true.max())) + 1
    hits = torch.bincount(true[given == true], minlength=classes).double()
    counts = torch.bincount(given, minlength=classes) + torch.bincount(true, minlength=classes)
    return (2 * hits / counts)[counts > 0].mean().item()
