"""FourierFT: an update with few frequencies, at places that a seed draws (Gao et al. 2024).

    D = s · Re F⁻¹(Z),      Z: zero but for n values c at places drawn by a seed; F⁻¹ the inverse 2-D Fourier transform

Source: Gao et al. 2024 (arXiv 2405.03003) equations 2 to 4; PEFT 0.21.2, tuners/fourierft/layer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Live, Shapes
from .updating import Added, Base, Rule, UpdatingConfig, at, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own

MOST_PLACES = 2**30
"""Entries of a weight beyond which no places are drawn."""


@dataclass(frozen=True, kw_only=True)
class FourierftConfig(UpdatingConfig):
    """How many frequencies, and where.

    Attributes:
        frequencies: n.
        own_frequencies: module path or projection → its own n.
        scale: s.
        seed: what the places are drawn with.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "fourierft"

    frequencies: int = 1000
    own_frequencies: Mapping[str, int] = field(default_factory=dict)
    scale: float = 150.0
    seed: int = 777
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(most=MOST_PLACES, frequencies=self.frequencies, own_frequencies=self.own_frequencies)
        return faults if abs(self.seed) < 2**63 else [*faults, "seed must have at most 63 bits"]


def shapes(config: FourierftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the map has fewer entries than there are frequencies.
    """
    count = at(config.own_frequencies, linear, config.frequencies)
    if not count <= linear.inputs * linear.outputs <= MOST_PLACES:
        raise UsageError(
            f"{count} frequencies do not fit the {linear.inputs * linear.outputs} entries of {linear.path}"
        )
    return {"fourierft_spectrum": (count,)}


def start(config: FourierftConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: zero."""
    import torch

    return torch.zeros(shape)


def places(linear: Linear, count: int, seed: int) -> Tensor:
    """Return the places (2, n) of the frequencies, as torch's generator draws them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(linear.outputs * linear.inputs, generator=generator)[:count]
    return torch.stack([drawn // linear.inputs, drawn % linear.inputs])


def delta(config: FourierftConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    import torch

    values, spots = own["fourierft_spectrum"], own["places"]
    dense = values.new_zeros((linear.outputs, linear.inputs), dtype=torch.float32)
    dense = dense.index_put((spots[0], spots[1]), values.float())
    found: Tensor = torch.fft.ifft2(dense).real * config.scale
    return found


def op(config: FourierftConfig, own: Own, linear: Linear, live: Live) -> Added:
    """Return what acts at a map; the places are drawn here, once."""
    values = own["fourierft_spectrum"]
    spots = places(linear, values.shape[0], config.seed).to(values.device)
    return Added(config, {**own, "places": spots}, linear, live, delta)


def seen(config: FourierftConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with enough entries; the shapes say nothing of its sizes."""
    values = own.get("fourierft_spectrum", ())
    return Linear(path=path, inputs=max(1, values[0]), outputs=1) if len(values) == 1 else None


METHOD = method(
    Rule(
        config=FourierftConfig,
        presets={"fourierft": FourierftConfig()},
        shapes=shapes,
        start=start,
        op=op,
        seen=seen,
        sized=False,
        kinds=("linear", "conv1d"),
    )
)
