"""A few values of a base model's weights, by which it is recognised again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..adapter import Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = (0.11, 0.37, 0.61, 0.89)
"""Where values are taken, as fractions of a tensor's length."""


def sampled(weights: Mapping[str, Tensor]) -> Fingerprint:
    """Return the fingerprint of some weights by their paths in the bare base model."""
    return Fingerprint(
        shapes={name: tuple(weight.shape) for name, weight in weights.items()},
        samples={name: sample(weight) for name, weight in weights.items()},
        dtype=dtype_name(next(iter(weights.values()))),
    )


def sample(weight: Tensor) -> tuple[float, ...]:
    """Return the values at POSITIONS, with seven digits."""
    from torch import tensor

    n = weight.numel()
    at = tensor([int(n * p) for p in POSITIONS], device=weight.device)
    values = weight.detach().flatten()[at].float().tolist()
    return tuple(float(f"{value:.7g}") for value in values)


def dtype_name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, such as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")
