"""How to train, and what a training gave: plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from .evaluation import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Attributes:
        epochs: passes over the training examples.
        learning_rate: the highest learning rate, reached after the warm-up.
        batch_size: examples per step.
        warmup: fraction of all steps in which the learning rate rises from 0; in the others it falls to 0.
        weight_decay: of weight matrices; biases, norms and scales are not decayed.
        seed: of the order of the examples and of dropout.
        max_length: longer texts are cut to so many tokens.
        bf16: compute in bfloat16 where the processor has instructions for it; the weights stay as they are.
        clip: largest norm of the gradient of all trained parameters; 0 does not clip.
        keep_best: end with the weights of the best epoch on the evaluation examples, not with those of the last. Its
            metrics are then chosen on the data that they are measured on, and so a little too good.
    """

    epochs: int = 3
    learning_rate: float = 1e-3
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 42
    max_length: int = 128
    bf16: bool = False
    clip: float = 1.0
    keep_best: bool = False

    def __post_init__(self) -> None:
        """Raise one UsageError that lists every value out of its range."""
        faults = [
            text
            for wrong, text in (
                (self.epochs < 1, f"epochs is {self.epochs}, below 1"),
                (self.batch_size < 1, f"batch size is {self.batch_size}, below 1"),
                (self.max_length < 1, f"max length is {self.max_length}, below 1"),
                (not 0 < self.learning_rate < math.inf, f"learning rate is {self.learning_rate}, not above 0"),
                (not 0 <= self.warmup < 1, f"warmup is {self.warmup}, not from 0 to below 1"),
                (not 0 <= self.weight_decay < math.inf, f"weight decay is {self.weight_decay}, below 0"),
                (not 0 <= self.clip < math.inf, f"clip is {self.clip}, below 0"),
            )
            if wrong
        ]
        if faults:
            raise UsageError("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training examples gave; evaluation is None where there is nothing to evaluate on."""

    number: int
    train_loss: float
    evaluation: Evaluation | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands after a step.

    Attributes:
        epoch, step: count from 1; the steps of all epochs together.
        epochs, steps: how many there will be.
        loss: mean of the training loss over this epoch so far.
        learning_rate: that of the step.
        ends_epoch: whether this is the one more report that ends an epoch.
        evaluation: only in that one, and if there is something to evaluate on.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    ends_epoch: bool = False
    evaluation: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        epochs: one record per epoch.
        kept: number of the epoch whose weights the model has now.
        best: number of the epoch with the highest accuracy (then the lowest loss) on the evaluation examples.
        steps: number of optimiser steps.
        parameters: number of trained values.
        precision: `bfloat16` or `float32`, what was computed in.
        seconds: wall time, evaluation included.
    """

    epochs: tuple[Epoch, ...]
    kept: int
    best: int
    steps: int
    parameters: int
    precision: str
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """Return the evaluation of the weights that the model has now, the way a manifest states it; {} without one."""
        evaluation = self.epochs[self.kept - 1].evaluation
        if evaluation is None:
            return {}
        return {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "macro_f1": evaluation.macro_f1}
