"""WaveFT: a weight gets an update that is sparse, or whose wavelet transform is (Bilican et al. 2025).

    D = s · C,      or D = s · (the inverse of one Haar step of C),      C: outputs × inputs with n entries

The adapter holds the entries; their places are drawn with its seed.

Source: Bilican et al. 2025 (arXiv 2505.12532) §3; PEFT 0.21.2, tuners/waveft (layer.py, waverec2d.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .spectrum import SpectrumConfig, of_coefficients

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class WaveftConfig(SpectrumConfig):
    """How many entries, and where.

    Attributes:
        haar: whether the entries are coefficients of Haar's wavelet, rather than of the weight itself.
    """

    method: ClassVar[str] = "waveft"

    frequencies: int = 2592
    scale: float = 25.0
    haar: bool = True


def delta(config: WaveftConfig, values: Tensor, places: Tensor, linear: Linear) -> Tensor:
    """Return D (outputs, inputs)."""
    rows, columns = linear.outputs, linear.inputs
    padded = (rows + rows % 2, columns + columns % 2) if config.haar else (rows, columns)
    found = values.new_zeros(padded).index_put((places[0], places[1]), values)
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


METHOD = of_coefficients(WaveftConfig, delta)
