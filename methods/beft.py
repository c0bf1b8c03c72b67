"""BEFT: a map's output gets a vector: y = W x + b + v (Huang et al. 2025).

Source: Huang et al. 2025 (arXiv 2509.15974) §3; PEFT 0.21.2, tuners/beft/layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Live, Shapes
from .updating import Rule, UpdatingConfig, method

if TYPE_CHECKING:
    from torch import Tensor

    from .method import Apply
    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class BeftConfig(UpdatingConfig):
    """Where the vectors are."""

    method: ClassVar[str] = "beft"

    targets: tuple[str, ...] = ("value",)

    def faults(self) -> list[str]:
        """Return what is wrong with the values: nothing can be."""
        return []


def shapes(config: BeftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    return {"beft_bias": (1, linear.outputs)}


class Shifted:
    """y + v."""

    __slots__ = ("vector",)

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        y = forward(x)
        return (y + self.vector[0]).to(y.dtype)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W and b + v."""
        vector = self.vector[0].to(weight.dtype)
        return weight, vector if bias is None else bias + vector


def op(config: BeftConfig, own: Own, linear: Linear, live: Live) -> Shifted:
    """Return what acts at a map."""
    return Shifted(own["beft_bias"])


def seen(config: BeftConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with the outputs that the shape tells."""
    vector = own.get("beft_bias", ())
    return Linear(path=path, inputs=1, outputs=vector[1]) if len(vector) == 2 else None


METHOD = method(Rule(config=BeftConfig, presets={"beft": BeftConfig()}, shapes=shapes, op=op, seen=seen, sized=False))
