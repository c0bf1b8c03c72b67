"""A plain training loop for text classification, for adapters and for full fine-tuning alike.

`fit` trains the parameters that it is given and nothing else: AdamW, linear warm-up and decay, gradients clipped by
their norm. Texts are tokenised once; a batch holds texts of similar length and is padded to its longest.
The same seed, data, weights and machine give the same outcome, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import StateError, UsageError
from .data import Example, Padding, Tokens, padded, shuffled_batches, sorted_batches, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Forward = Callable[[dict[str, Tensor]], Tensor]
"""Model inputs → logits (batch, classes)."""


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


def fit(
    model: nn.Module,
    trainable: Iterable[nn.Parameter],
    train: Sequence[Example],
    evaluate: Sequence[Example],
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainingConfig,
    forward: Forward,
    on_progress: Callable[[Progress], None] | None = None,
    penalty: Callable[[], Tensor] | None = None,
) -> TrainingResult:
    """Train the given parameters and return how it went; the model is left in evaluation mode.

    Parameters that are not given do not change and get no gradient. Every `requires_grad` and the state of torch's
    random generators are as before afterwards, after an error too.

    penalty: what is added to the loss of every step, such as `AdapterSet.regularisation`.

    Raises:
        StateError: nothing to train or no examples, or the loss is no longer a number.
        UsageError: the label of an example is no class of the head.
    """
    parameters = list({id(parameter): parameter for parameter in trainable}.values())
    if not parameters:
        raise StateError("no parameters to train", hint="give the parameters of an adapter, or model.parameters()")
    if not train:
        raise StateError("no examples to train on")
    device = parameters[0].device
    training = _Training(model, parameters, config, forward, on_progress, penalty)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _only_trainable(model, parameters):
        torch.manual_seed(config.seed)
        try:
            return training.run(
                _Data.of(train, tokenizer, config, device), _Data.of(evaluate, tokenizer, config, device)
            )
        finally:
            model.eval()


def measure(
    examples: Sequence[Example],
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainingConfig,
    forward: Forward,
    device: torch.device,
) -> Evaluation:
    """Return how well forward does on the examples; the model is to be in evaluation mode.

    Raises:
        StateError: there are no examples.
    """
    if not examples:
        raise StateError("no examples to evaluate on")
    return _evaluate(forward, _Data.of(examples, tokenizer, config, device), config.batch_size)


def has_bf16(device: torch.device) -> bool:
    """Return whether the processor computes in bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public question for the CPU in all versions that we support.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True, slots=True)
class _Data:
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
        config: TrainingConfig,
        device: torch.device,
    ) -> _Data:
        """Return the examples, each text tokenised."""
        tokens = tokenise([example.text for example in examples], tokenizer, config.max_length)
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


class _Training:
    """One training on its way: the optimiser, its schedule, and the epochs so far."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        config: TrainingConfig,
        forward: Forward,
        on_progress: Callable[[Progress], None] | None,
        penalty: Callable[[], Tensor] | None,
    ) -> None:
        self.model, self.parameters, self.config, self.on_progress = model, parameters, config, on_progress
        self.penalty = penalty
        self.bf16 = config.bf16 and has_bf16(parameters[0].device)
        self.forward = _autocast(forward, parameters[0].device) if self.bf16 else forward
        self.optimiser = _optimiser(parameters, config)
        self.epochs: list[Epoch] = []
        self.best = 0
        self.best_weights: list[Tensor] = []
        self.step = self.steps = 0

    def run(self, train: _Data, evaluate: _Data) -> TrainingResult:
        """Train all epochs and return how it went."""
        start = time.perf_counter()
        self.steps = self.config.epochs * math.ceil(len(train.tokens) / self.config.batch_size)
        for number in range(1, self.config.epochs + 1):
            self._epoch(number, train, evaluate)
        kept = self._restore_best()
        return TrainingResult(
            epochs=tuple(self.epochs),
            kept=kept,
            best=self.best,
            steps=self.step,
            parameters=sum(parameter.numel() for parameter in self.parameters),
            precision="bfloat16" if self.bf16 else "float32",
            seconds=time.perf_counter() - start,
        )

    def _epoch(self, number: int, train: _Data, evaluate: _Data) -> None:
        """Train one epoch and evaluate after it."""
        start, total, seen = time.perf_counter(), 0.0, 0
        self.model.train()
        seed = self.config.seed * 1_000_003 + number
        for numbers in shuffled_batches(train.lengths, self.config.batch_size, seed):
            total += self._step(*train.batch(numbers)) * len(numbers)
            seen += len(numbers)
            self._report(number, total / seen)
        self.model.eval()
        evaluation = _evaluate(self.forward, evaluate, self.config.batch_size) if evaluate.tokens else None
        self._report(number, total / seen, ends_epoch=True, evaluation=evaluation)
        self.epochs.append(Epoch(number, total / seen, evaluation, time.perf_counter() - start))
        self._remember_best()

    def _step(self, inputs: dict[str, Tensor], labels: Tensor) -> float:
        """Take one optimiser step and return the loss before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        loss = functional.cross_entropy(_logits(self.forward, inputs, labels), labels)
        value = loss.item()
        loss = loss if self.penalty is None else loss + self.penalty()
        if not math.isfinite(value):
            raise StateError(
                f"the loss is {value} in step {self.step + 1}",
                hint=f"train with a lower learning rate than {self.config.learning_rate:g}",
            )
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimiser.step()
        self.step += 1
        return value

    def _learning_rate(self) -> float:
        """Return the rate of the coming step: linear from 0 up to the highest, then linear down to 0."""
        warm = int(self.config.warmup * self.steps)
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        return self.config.learning_rate * (self.steps - self.step) / max(1, self.steps - warm)

    def _report(
        self, epoch: int, loss: float, *, ends_epoch: bool = False, evaluation: Evaluation | None = None
    ) -> None:
        if self.on_progress is not None:
            rate = self.optimiser.param_groups[0]["lr"]
            place = (epoch, self.config.epochs, self.step, self.steps)
            self.on_progress(Progress(*place, loss, rate, ends_epoch, evaluation))

    def _remember_best(self) -> None:
        """Note the last epoch if it is the best so far, with its weights if they are to be kept."""
        if self.best and _rank(self.epochs[-1]) <= _rank(self.epochs[self.best - 1]):
            return
        self.best = len(self.epochs)
        if self.config.keep_best:
            self.best_weights = [parameter.detach().clone() for parameter in self.parameters]

    def _restore_best(self) -> int:
        """Return the number of the epoch whose weights the model has, after putting the best ones back if asked for."""
        if not self.config.keep_best or self.best == len(self.epochs):
            return len(self.epochs)
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self.best_weights, strict=True):
                parameter.copy_(weight)
        return self.best


def _rank(epoch: Epoch) -> tuple[float, float]:
    """Return what orders epochs from bad to good; without evaluation the later epoch is the better one."""
    if epoch.evaluation is None:
        return (0.0, float(epoch.number))
    return (epoch.evaluation.accuracy, -epoch.evaluation.loss)


def _optimiser(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters, those with fewer than two dimensions without weight decay."""
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


def _autocast(forward: Forward, device: torch.device) -> Forward:
    """Return forward computed in bfloat16, its logits in float32."""

    def cast(inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return forward(inputs).float()

    return cast


def _logits(forward: Forward, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
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
def _evaluate(forward: Forward, data: _Data, batch_size: int) -> Evaluation:
    """Return the evaluation of forward on the data."""
    losses: list[Tensor] = []
    answers: list[Tensor] = []
    truth: list[Tensor] = []
    for numbers in sorted_batches(data.lengths, batch_size):
        inputs, labels = data.batch(numbers)
        logits = _logits(forward, inputs, labels)
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


@contextmanager
def _only_trainable(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let exactly the given parameters ask for gradients, and put every flag back at the end."""
    everything = list({id(p): p for p in (*model.parameters(), *parameters)}.values())
    flags = [parameter.requires_grad for parameter in everything]
    chosen = {id(parameter) for parameter in parameters}
    for parameter in everything:
        parameter.requires_grad_(id(parameter) in chosen)
    try:
        yield
    finally:
        for parameter, flag in zip(everything, flags, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
