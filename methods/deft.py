"""DEFT: of a weight, what lies in a subspace of its outputs is taken away, and other rows are put there.

    W' = W - Q Rᵀ W + s · Q C,      Q, R: outputs × r made of P,      C: r × inputs

With `relu`, Q is P and R what is positive in it; with `qr`, both are an orthonormal basis of P's columns, and Q Rᵀ is a
projection. Without C (PaRa) nothing is put there.

Source: PEFT 0.21.2, tuners/deft (config.py, layer.py), after Kumar et al. 2025; Chen et al. 2025 (PaRa).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from ..sites import Linear
from .method import Shapes
from .updating import Base, Changed, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class DeftConfig(UpdatingConfig):
    """Ranks, scale and projection.

    Attributes:
        r: columns of P; at most as many as there are outputs.
        alpha: numerator of the scale s = alpha / r; None is a scale of 1.
        projection: how Q and R are made of P.
        removes_only: whether there is no C.
    """

    method: ClassVar[str] = "deft"

    r: int = 8
    alpha: float | None = None
    projection: Literal["relu", "qr"] = "relu"
    removes_only: bool = False

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r)


def shapes(config: DeftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = min(config.r, linear.outputs)
    found: Shapes = {"deft_P": (linear.outputs, r)}
    return found if config.removes_only else found | {"deft_R": (r, linear.inputs)}


def start(config: DeftConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: both N(0, 0.02²); so a part of W is replaced from the start."""
    import torch

    return torch.zeros(shape).normal_(std=0.02)


def change(config: DeftConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return W' (outputs, inputs)."""
    import torch

    p, w = own["deft_P"].float(), weight.float()
    if config.projection == "qr":
        left = right = torch.linalg.qr(p)[0]
    else:
        left, right = p, torch.relu(p)
    rows = -(right.t() @ w)
    if not config.removes_only:
        scale = config.alpha / p.shape[1] if config.alpha else 1.0
        rows = rows + own["deft_R"].float() * scale
    turned: Tensor = w + left @ rows
    return turned


def seen(config: DeftConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe; without C they say nothing of its inputs."""
    p, c = own.get("deft_P", ()), own.get("deft_R", (0, 1))
    return Linear(path=path, inputs=c[1], outputs=p[0]) if len(p) == len(c) == 2 else None


METHOD = method(
    Rule(
        config=DeftConfig,
        presets={"deft": DeftConfig()},
        shapes=shapes,
        start=start,
        op=partial(Changed, change),
        seen=seen,
        sized=False,
    )
)
