"""DeLoRA: an update of normalised low-rank components, whose strength is one number (Bini et al. 2025).

    D = B diag(λ / (r ‖aᵢ‖ ‖bᵢ‖)) A · diag(n),      A: r × inputs, B: outputs × r, n: norms of W's columns

aᵢ are the rows of A, bᵢ the columns of B; λ is trained, n is that of the base model that the adapter started from.

Source: Bini et al. 2025 (arXiv 2503.18225) equation 6; PEFT 0.21.2, tuners/delora/layer.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Shapes
from .targets import at
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own

SMALLEST = 1e-4
"""Norms below count as this."""


@dataclass(frozen=True, kw_only=True)
class DeloraConfig(UpdatingConfig):
    """Ranks and strength.

    Attributes:
        r: the rank.
        ranks: module path or projection → its own r.
        strength: λ at the start.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "delora"

    r: int = 8
    ranks: Mapping[str, int] = field(default_factory=dict)
    strength: float = 15.0
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r, ranks=self.ranks)


def shapes(config: DeloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = at(config.ranks, linear, config.r)
    return {
        "delora_A": (r, linear.inputs),
        "delora_B": (linear.outputs, r),
        "delora_lambda": (1,),
        "delora_w_norm": (linear.inputs,),
    }


def start(config: DeloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: A after Kaiming, B zero, λ as configured, the norms of W's columns."""
    import torch
    from torch.nn import init

    if name == "delora_w_norm":
        norms: Tensor = base(f"{linear.path}.weight").detach().float().norm(dim=0).cpu()
        return norms
    if name == "delora_lambda":
        return torch.full(shape, config.strength)
    tensor = torch.zeros(shape)
    return tensor if name == "delora_B" else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def delta(config: DeloraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    a, b = own["delora_A"], own["delora_B"]
    norms = a.norm(dim=1).clamp(min=SMALLEST) * b.norm(dim=0).clamp(min=SMALLEST)
    scale = own["delora_lambda"] / at(config.ranks, linear, config.r) / norms
    found: Tensor = (b * scale) @ (a * own["delora_w_norm"])
    return found


def seen(config: DeloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    a, b = own.get("delora_A", ()), own.get("delora_B", ())
    return Linear(path=path, inputs=a[1], outputs=b[0]) if len(a) == len(b) == 2 else None


METHOD = method(
    Rule(
        config=DeloraConfig,
        presets={"delora": DeloraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
        kinds=("linear",),
    )
)
