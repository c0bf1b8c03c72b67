"""HRA: the input of a map passes a chain of Householder reflections (Yuan et al. 2024).

    W' = W H₁ … H_r,      Hᵢ = I - 2 uᵢ uᵢᵀ / ‖uᵢ‖²,      u: inputs × r

With `orthogonal` the u are made orthogonal first, by Gram and Schmidt.

Source: Yuan et al. 2024 (arXiv 2405.17484) §3; PEFT 0.21.2, tuners/hra/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Shapes
from .updating import Base, Changed, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class HraConfig(UpdatingConfig):
    """The reflections.

    Attributes:
        r: how many.
        orthogonal: whether they are made orthogonal to each other.
    """

    method: ClassVar[str] = "hra"

    r: int = 8
    orthogonal: bool = False

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r)


def shapes(config: HraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    return {"hra_u": (linear.inputs * math.prod(linear.kernel), config.r)}


def start(config: HraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: pairs of equal reflections, which cancel."""
    import torch
    from torch.nn import init

    half = init.kaiming_uniform_(torch.zeros(shape[0], -(-shape[1] // 2)), a=math.sqrt(5))
    return half.repeat_interleave(2, dim=1)[:, : shape[1]].contiguous()


def change(config: HraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return W' in the shape of W."""
    import torch

    u = own["hra_u"]
    flat = weight.reshape(weight.shape[0], -1).to(u.dtype)
    if config.orthogonal:
        basis = _orthogonal(u)
        return (flat - 2 * (flat @ basis) @ basis.t()).reshape(weight.shape)
    for column in torch.unbind(u / u.norm(dim=0), dim=1):
        flat = flat - 2 * torch.outer(flat @ column, column)
    return flat.reshape(weight.shape)


def _orthogonal(u: Tensor) -> Tensor:
    import torch

    found: list[Tensor] = []
    for column in torch.unbind(u, dim=1):
        for other in found:
            column = column - (other @ column) * other
        found.append(column / column.norm())
    return torch.stack(found, dim=1)


def seen(config: HraConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with as many inputs; the shapes say nothing of its outputs."""
    u = own.get("hra_u", ())
    return Linear(path=path, inputs=u[0], outputs=u[0]) if len(u) == 2 else None


METHOD = method(
    Rule(
        config=HraConfig,
        presets={"hra": HraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Changed, change),
        seen=seen,
        sized=False,
        kinds=("linear", "convolution"),
    )
)
