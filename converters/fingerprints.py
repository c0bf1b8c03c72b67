"""A few values of a base model's weights, by which it is recognised again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..adapter import Fingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POSITIONS = (0.11, 0.37, 0.61, 0.89)
"""Where values are taken, as fractions of a tensor's length."""


def sampled(weights: Mapping[str, Tensor]) -> Fingerprint:
    """Return the fingerprint of some weights by their paths in the bare base model."""
    return Fingerprint(
        shapes={name: tuple(weight.shape) for name, weight in weights.items()},
        samples=dict(zip(weights, samples(list(weights.values())), strict=True)),
        dtype=dtype_name(next(iter(weights.values()))),
    )


def samples(weights: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """Return the values of each weight at POSITIONS, with seven digits; they come from the device all at once."""
    import torch

    if not weights:
        return []
    taken = [weight.detach().take(_places(weight.numel(), weight.device)).float() for weight in weights]
    rows = torch.stack([values.to(taken[0].device) for values in taken]).tolist()
    return [tuple(float(f"{value:.7g}") for value in row) for row in rows]


@functools.lru_cache(maxsize=64)
def _places(count: int, device: torch.device) -> Tensor:
    """Return the indices of POSITIONS in a tensor of so many values."""
    import torch

    return torch.tensor([int(count * p) for p in POSITIONS], device=device)


def dtype_name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, such as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")
