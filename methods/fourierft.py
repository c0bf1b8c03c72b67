"""FourierFT: an update with few frequencies, at places that a seed draws (Gao et al. 2024).

    D = s · Re F⁻¹(Z),      Z: zero but for n values c at places drawn by a seed; F⁻¹ the inverse 2-D Fourier transform

Source: Gao et al. 2024 (arXiv 2405.03003) equations 2 to 4; PEFT 0.21.2, tuners/fourierft/layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .spectrum import SpectrumConfig, of_coefficients

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FourierftConfig(SpectrumConfig):
    """How many frequencies, and where; the fields are those of SpectrumConfig."""

    method: ClassVar[str] = "fourierft"

    frequencies: int = 1000
    scale: float = 150.0


def delta(config: FourierftConfig, values: Tensor, places: Tensor, linear: Linear) -> Tensor:
    """Return D (outputs, inputs)."""
    import torch

    dense = values.new_zeros((linear.outputs, linear.inputs), dtype=torch.float32)
    dense = dense.index_put((places[0], places[1]), values.float())
    found: Tensor = torch.fft.ifft2(dense).real * config.scale
    return found


METHOD = of_coefficients(FourierftConfig, delta)
