"""Norms of updated weights, by which two forms of DoRA are turned into each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def norms(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return ‖W + scale · B A‖ of each row (outputs,), float64; weight: (outputs, inputs[, kernel])."""
    whole = weight.detach().double().flatten(1) + scale * (b.double().flatten(1) @ a.double().flatten(1))
    found: Tensor = whole.norm(dim=1)
    return found
