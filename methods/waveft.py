"""WaveFT: a weight gets an update that is sparse, or whose wavelet transform is (Bilican et al. 2025).

    D = s · C,      or D = s · (the inverse of one Haar step of C),      C: outputs × inputs with n entries

The adapter holds the entries; their places are drawn with its seed.

Source: Bilican et al. 2025 (arXiv 2505.12532) §3; PEFT 0.21.2, tuners/waveft (layer.py, waverec2d.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .fourierft import MOST_PLACES, places
from .method import Live, Shapes
from .updating import Added, Base, Rule, UpdatingConfig, at, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class WaveftConfig(UpdatingConfig):
    """How many entries, and where.

    Attributes:
        frequencies: n.
        own_frequencies: module path or projection → its own n.
        scale: s.
        haar: whether the entries are coefficients of Haar's wavelet, rather than of the weight itself.
        seed: what the places are drawn with.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "waveft"

    frequencies: int = 2592
    own_frequencies: Mapping[str, int] = field(default_factory=dict)
    scale: float = 25.0
    haar: bool = True
    seed: int = 777
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(most=MOST_PLACES, frequencies=self.frequencies, own_frequencies=self.own_frequencies)
        return faults if abs(self.seed) < 2**63 else [*faults, "seed must have at most 63 bits"]


def shapes(config: WaveftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the map has fewer entries.
    """
    count = at(config.own_frequencies, linear, config.frequencies)
    if not count <= linear.inputs * linear.outputs <= MOST_PLACES:
        raise UsageError(f"{count} entries do not fit the {linear.inputs * linear.outputs} of {linear.path}")
    return {"waveft_spectrum": (count,)}


def start(config: WaveftConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: zero."""
    import torch

    return torch.zeros(shape)


def delta(config: WaveftConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    values, spots = own["waveft_spectrum"], own["places"]
    rows, columns = linear.outputs, linear.inputs
    padded = (rows + rows % 2, columns + columns % 2) if config.haar else (rows, columns)
    found = values.new_zeros(padded).index_put((spots[0], spots[1]), values)
    if config.haar:
        found = _haar(_haar(_crossed(found)).t()).t()[:rows, :columns]
    return found * config.scale


def _crossed(coefficients: Tensor) -> Tensor:
    """Return the upper right and lower left quarter in each other's place, as PEFT takes them."""
    import torch

    upper, lower = coefficients.chunk(2)
    (a, h), (v, d) = upper.chunk(2, dim=1), lower.chunk(2, dim=1)
    return torch.cat([torch.cat([a, v], dim=1), torch.cat([h, d], dim=1)])


def _haar(coefficients: Tensor) -> Tensor:
    """Return the inverse of one step along the first dimension: means in the upper half, differences in the lower."""
    import torch

    upper, lower = coefficients.chunk(2)
    taken: Tensor = torch.stack([upper + lower, upper - lower], dim=1).flatten(0, 1) * 0.5**0.5
    return taken


def op(config: WaveftConfig, own: Own, linear: Linear, live: Live) -> Added:
    """Return what acts at a map; the places are drawn here, once."""
    values = own["waveft_spectrum"]
    spots = places(linear, values.shape[0], config.seed).to(values.device)
    return Added(config, {**own, "places": spots}, linear, live, delta)


def seen(config: WaveftConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with enough entries; the shapes say nothing of its sizes."""
    values = own.get("waveft_spectrum", ())
    return Linear(path=path, inputs=max(1, values[0]), outputs=1) if len(values) == 1 else None


METHOD = method(
    Rule(
        config=WaveftConfig,
        presets={"waveft": WaveftConfig()},
        shapes=shapes,
        start=start,
        op=op,
        seen=seen,
        sized=False,
    )
)
