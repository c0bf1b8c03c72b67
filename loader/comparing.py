"""Two adapters on one base model: how far their outputs are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter import Adapter, Probe
from ..methods import is_head
from . import probe as probes
from .adapter_set import AdapterSet
from .layout import survey
from .settings import settings_of

if TYPE_CHECKING:
    from torch import nn

    from ..architectures import Architecture


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two adapters answer to the same inputs.

    Attributes:
        output: name of the output that was compared.
        difference: largest absolute difference.
        largest: largest absolute value of the first one's answer.
        effect: largest absolute difference between the first one's answer and the base model's, None for a head.
    """

    output: str
    difference: float
    largest: float
    effect: float | None


def answer(adapters: AdapterSet, probe: Probe) -> Tensor:
    """Return what is active answers to the inputs of a probe: the whole output that it looks at."""
    inputs = {name: torch.tensor(value) for name, value in probe.inputs.items()}
    return probes.whole_answer(adapters._ground, inputs, probe.output.removesuffix("[-1]"))


def compare(
    model: nn.Module, first: Adapter, second: Adapter, *, architecture: Architecture | None = None
) -> Comparison:
    """Return how far two adapters are apart on a model, on a few token ids, an image or speech.

    Raises:
        BaseMismatchError, FormatError: one of them does not fit the model.
        StateError: adapters are attached to the model.
    """
    ground = survey(model, architecture)
    settings = settings_of(ground)
    adapters = AdapterSet(model, architecture=architecture)
    try:
        head = next((config for config in first.config if is_head(config)), None)
        inputs = probes.default_inputs(ground, settings, head)
        output = probes.output_of(ground, inputs) if head is None else probes.output_of_head(ground, head)
        name = output.removesuffix("[-1]")
        answers = []
        for one, called in ((first, "first"), (second, "second")):
            adapters.load(one, name=called, set_active=True)
            answers.append(probes.whole_answer(ground, inputs, name))
        adapters.activate(None)
        plain = None if head is not None else probes.whole_answer(ground, inputs, name)
    finally:
        adapters.detach()
    mine, other = answers
    same_length = plain is not None and plain.shape == mine.shape
    return Comparison(
        output=name,
        difference=float((mine - other).abs().max()) if mine.shape == other.shape else float("inf"),
        largest=float(mine.abs().max()),
        effect=float((mine - plain).abs().max()) if plain is not None and same_length else None,
    )
