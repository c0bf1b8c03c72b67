"""A plain training loop for text classification, for adapters and for full fine-tuning alike.

`fit` trains the parameters that it is given and nothing else: AdamW, linear warm-up and decay, gradients clipped by
their norm. What is trained on and what comes out stand in training_records.py, how well it does in evaluation.py.
The same seed, data, weights and machine give the same outcome, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import StateError
from .data import Example, shuffled_batches
from .evaluation import Data, Evaluation, Forward, evaluated, logits_of
from .training_records import Epoch, Progress, TrainingConfig, TrainingResult

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    device, length = parameters[0].device, config.max_length
    training = _Training(model, parameters, config, forward, on_progress, penalty)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _only_trainable(model, parameters):
        torch.manual_seed(config.seed)
        try:
            return training.run(Data.of(train, tokenizer, length, device), Data.of(evaluate, tokenizer, length, device))
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
    return evaluated(forward, Data.of(examples, tokenizer, config.max_length, device), config.batch_size)


def has_bf16(device: torch.device) -> bool:
    """Return whether the processor computes in bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public question for the CPU in all versions that we support.
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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

    def run(self, train: Data, evaluate: Data) -> TrainingResult:
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

    def _epoch(self, number: int, train: Data, evaluate: Data) -> None:
        """Train one epoch and evaluate after it."""
        start, total, seen = time.perf_counter(), 0.0, 0
        self.model.train()
        seed = self.config.seed * 1_000_003 + number
        for numbers in shuffled_batches(train.lengths, self.config.batch_size, seed):
            total += self._step(*train.batch(numbers)) * len(numbers)
            seen += len(numbers)
            self._report(number, total / seen)
        self.model.eval()
        evaluation = evaluated(self.forward, evaluate, self.config.batch_size) if evaluate.tokens else None
        self._report(number, total / seen, ends_epoch=True, evaluation=evaluation)
        self.epochs.append(Epoch(number, total / seen, evaluation, time.perf_counter() - start))
        self._remember_best()

    def _step(self, inputs: dict[str, Tensor], labels: Tensor) -> float:
        """Take one optimiser step and return the loss before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        loss = functional.cross_entropy(logits_of(self.forward, inputs, labels), labels)
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
