"""AdaLoRA: a low-rank update with singular values of its own, some of which training takes away (Zhang et al. 2023).

    D = s · B diag(e) A,      A: k × inputs, B: outputs × k, e: k × 1,      s = alpha / (r + 1e-5)

r is the rank that every map had at first, k the one that is left.

Source: Zhang et al. 2023 (arXiv 2303.10512) equation 3; PEFT 0.21.2, tuners/adalora/layer.py, for s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Shapes
from .targets import at
from .updating import MOST, Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class AdaloraConfig(UpdatingConfig):
    """Ranks and scale.

    Attributes:
        r: the rank at first.
        alpha: the numerator of the scale; the rank itself where it is not positive.
        ranks: module path or projection → the rank that is left there, which may be 0.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "adalora"

    r: int = 12
    alpha: float = 8.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r)
        return faults + [f"a rank is {r}, expected 0 to {MOST}" for r in self.ranks.values() if not 0 <= r <= MOST]


def shapes(config: AdaloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = at(config.ranks, linear, config.r)
    return {"lora_A": (r, linear.inputs), "lora_B": (linear.outputs, r), "lora_E": (r, 1)}


def start(config: AdaloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: N(0, 0.02²) matrices and singular values of zero."""
    import torch

    return torch.zeros(shape) if name == "lora_E" else torch.zeros(shape).normal_(std=0.02)


def delta(config: AdaloraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    alpha = config.alpha if config.alpha > 0 else at(config.ranks, linear, config.r)
    scale = alpha / (config.r + 1e-5)
    found: Tensor = own["lora_B"] @ (own["lora_A"] * own["lora_E"]) * scale
    return found


def seen(config: AdaloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    a, b = own.get("lora_A", ()), own.get("lora_B", ())
    return Linear(path=path, inputs=a[1], outputs=b[0]) if len(a) == len(b) == 2 else None


METHOD = method(
    Rule(
        config=AdaloraConfig,
        presets={"adalora": AdaloraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
    )
)
