"""The probe: a few inputs and the answers that the adapted model gave, stored in the artifact and replayed later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapter import Probe
from ..errors import IntegrityError
from .layout import Ground

WIDTH = 8
"""So many numbers of a hidden state are kept."""

_LOSS = {torch.float32: 0.0, torch.float64: 0.0, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far an answer may be off, relative to its size, in a model that is loaded in a smaller dtype."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replayed probe.

    Attributes:
        difference: largest absolute difference to the stored answers.
        tolerance: the difference that was allowed.
        effect: largest absolute difference that the adapter makes to the base model's answers, or None for a head.
    """

    difference: float
    tolerance: float
    effect: float | None


def default_inputs(ground: Ground) -> dict[str, Tensor]:
    """Return token ids (2, 8) spread over the vocabulary, the second row with two tokens of padding."""
    weight = next(ground.bare.get_input_embeddings().parameters())
    vocabulary = weight.shape[0]
    ids = torch.tensor([[(7919 * k + 13) % vocabulary for k in range(row, row + 8)] for row in (1, 101)])
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def record(
    ground: Ground, inputs: Mapping[str, Tensor], *, head: bool, base_values: list[list[float]] | None = None
) -> Probe:
    """Return the probe of what is active on the model now.

    inputs: model inputs (batch, sequence); head: whether the answer is `logits`.
    """
    output = "logits" if head else "last_hidden_state"
    return Probe(
        inputs={name: tensor.tolist() for name, tensor in inputs.items()},
        output=output,
        values=rounded(answer(ground, inputs, output)),
        base_values=base_values,
    )


def rounded(values: Tensor) -> list[list[float]]:
    """Return float32 values (batch, n) with the nine digits that tell them apart."""
    return [[float(f"{value:.9g}") for value in row] for row in values.tolist()]


def answer(ground: Ground, inputs: Mapping[str, Tensor], output: str) -> Tensor:
    """Return what the model answers now: logits (batch, labels), or the first token's first numbers (batch, 8)."""
    asked = ground.model if output == "logits" else ground.bare
    modes = {module: module.training for module in ground.model.modules()}
    ground.model.eval()
    try:
        with torch.no_grad():
            device = ground.bare.device
            result = asked(**{name: tensor.to(device) for name, tensor in inputs.items()}, return_dict=True)
    finally:
        for module, mode in modes.items():
            module.training = mode
    values: Tensor = result[output]
    return (values if output == "logits" else values[:, 0, :WIDTH]).float().cpu()


def replay(ground: Ground, probe: Probe, what: str) -> Replay:
    """Return what the model that is active now answers to a probe, held against the stored answer.

    Raises:
        IntegrityError: the answers differ by more than the tolerance.
    """
    inputs = {name: torch.tensor(value) for name, value in probe.inputs.items()}
    stored = torch.tensor(probe.values)
    found = answer(ground, inputs, probe.output)
    difference = float((found - stored).abs().max()) if found.shape == stored.shape else float("inf")
    tolerance = probe.atol + _LOSS.get(ground.bare.dtype, 0.1) * float(stored.abs().max())
    # Written so that a NaN fails.
    if not difference <= tolerance:
        raise IntegrityError(
            f"{what} does not answer its probe as it did when it was saved: off by {difference:.3g}, "
            f"allowed {tolerance:.3g}",
            hint="the adapter or the base model was changed; pull both again",
        )
    effect = None
    if probe.base_values is not None:
        effect = float((stored - torch.tensor(probe.base_values)).abs().max())
    return Replay(difference, tolerance, effect)
