"""What FourierFT and WaveFT share: an adapter of a few coefficients, whose places in a matrix a seed draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..sites import Linear
from .method import Live, Method, Shapes
from .targets import at
from .updating import Added, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own

MOST_PLACES = 2**30
"""Entries of a weight beyond which no places are drawn."""


@dataclass(frozen=True, kw_only=True)
class SpectrumConfig(UpdatingConfig):
    """How many coefficients, and where.

    Attributes:
        frequencies: n.
        own_frequencies: module path or projection → its own n.
        scale: s.
        seed: what the places are drawn with.
        dropout: probability, on the input of the update, while training.
    """

    frequencies: int
    own_frequencies: Mapping[str, int] = field(default_factory=dict)
    scale: float
    seed: int = 777
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(most=MOST_PLACES, frequencies=self.frequencies, own_frequencies=self.own_frequencies)
        return faults if abs(self.seed) < 2**63 else [*faults, "seed must have at most 63 bits"]


def of_coefficients(config: type[Any], update: Callable[[Any, Tensor, Tensor, Linear], Tensor]) -> Method:
    """Return the row of METHODS of a method whose tensors are coefficients.

    update: configuration, coefficients (n,), their places (2, n) and the map → D (outputs, inputs).
    """
    name = f"{config.method}_spectrum"
    return method(
        Rule(
            config=config,
            presets={config.method: config()},
            shapes=partial(_shapes, name),
            op=partial(_op, name, update),
            seen=partial(_seen, name),
            sized=False,
        )
    )


def places(linear: Linear, count: int, seed: int) -> Tensor:
    """Return the places (2, n) of the coefficients, as torch's generator draws them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(linear.outputs * linear.inputs, generator=generator)[:count]
    return torch.stack([drawn // linear.inputs, drawn % linear.inputs])


def _shapes(name: str, config: SpectrumConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the map has fewer entries than there are coefficients.
    """
    count = at(config.own_frequencies, linear, config.frequencies)
    if not count <= linear.inputs * linear.outputs <= MOST_PLACES:
        raise UsageError(
            f"{count} frequencies do not fit the {linear.inputs * linear.outputs} entries of {linear.path}"
        )
    return {name: (count,)}


def _op(
    name: str,
    update: Callable[[Any, Tensor, Tensor, Linear], Tensor],
    config: SpectrumConfig,
    own: Own,
    linear: Linear,
    live: Live,
) -> Added:
    """Return what acts at a map; the places are drawn here, once."""
    values = own[name]
    spots = places(linear, values.shape[0], config.seed).to(values.device)
    return Added(partial(_delta, update), config, {"values": values, "places": spots}, linear, live)


def _delta(
    update: Callable[[Any, Tensor, Tensor, Linear], Tensor], config: SpectrumConfig, own: Own, linear: Linear, w: Tensor
) -> Tensor:
    return update(config, own["values"], own["places"], linear)


def _seen(name: str, config: SpectrumConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with enough entries; the shapes say nothing of its sizes."""
    values = own.get(name, ())
    return Linear(path=path, inputs=max(1, values[0]), outputs=1) if len(values) == 1 else None
