"""RoAd: the outputs of a map are rotated and scaled in pairs (Liao & Monz 2024).

    y' = c₁ ⊙ y + c₂ ⊙ half(y),      c₁ = α cos θ, c₂ = α sin θ

In each group of g outputs the i-th of the first half makes a pair with the i-th of the second; half(y) is (-y₂, y₁).
Variant 1 has one α and θ for each pair, variant 2 for each output, variant 4 for each entry of the two columns c.

Source: Liao & Monz 2024 (arXiv 2409.00119) §3.2; PEFT 0.21.2, tuners/road/layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..sites import Linear
from .method import Live, Shapes
from .updating import Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .method import Apply
    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class RoadConfig(UpdatingConfig):
    """Groups and parameters.

    Attributes:
        variant: how much is shared.
        group_size: g, which divides the outputs.
    """

    method: ClassVar[str] = "road"

    variant: Literal[1, 2, 4] = 1
    group_size: int = 64

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(group_size=self.group_size) + (["group_size must be even"] if self.group_size % 2 else [])


def shapes(config: RoadConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the outputs do not go into groups.
    """
    if linear.outputs % config.group_size:
        raise UsageError(f"group_size is {config.group_size}, which does not divide the outputs of {linear.path}")
    size = linear.outputs * config.variant // 2
    return {"road_theta": (size,), "road_alpha": (size,)}


def start(config: RoadConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: no rotation and a scale of 1."""
    import torch

    return torch.ones(shape) if name == "road_alpha" else torch.zeros(shape)


class Paired:
    """c₁ ⊙ y + c₂ ⊙ half(y)."""

    __slots__ = ("alpha", "config", "theta")

    def __init__(self, config: RoadConfig, own: Own) -> None:
        self.config = config
        self.theta, self.alpha = own["road_theta"], own["road_alpha"]

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        return self._turned(forward(x))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the rows of W, and b, rotated and scaled."""
        return self._turned(weight.t()).t(), None if bias is None else self._turned(bias)

    def _turned(self, y: Tensor) -> Tensor:
        import torch

        first, second = self._columns()
        pairs = y.reshape(*y.shape[:-1], -1, 2, self.config.group_size // 2)
        half = torch.stack((-pairs[..., 1, :], pairs[..., 0, :]), dim=-2).reshape(y.shape)
        return (y * first + half * second).to(y.dtype)

    def _columns(self) -> tuple[Tensor, Tensor]:
        """Return c₁ and c₂ (outputs,)."""
        theta, alpha, group = self.theta, self.alpha, self.config.group_size
        if self.config.variant == 4:
            theta, alpha = (t.reshape(-1, 2, group) for t in (theta, alpha))
            one, two = theta[:, 0].cos() * alpha[:, 0], theta[:, 1].sin() * alpha[:, 1]
            return one.flatten(), two.flatten()
        if self.config.variant == 1:
            theta, alpha = (t.reshape(-1, group // 2).repeat_interleave(2, dim=0).flatten() for t in (theta, alpha))
        return alpha * theta.cos(), alpha * theta.sin()


def op(config: RoadConfig, own: Own, linear: Linear, live: Live) -> Paired:
    """Return what acts at a map."""
    return Paired(config, own)


def seen(config: RoadConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with as many outputs; the shapes say nothing of its inputs."""
    theta = own.get("road_theta", ())
    outputs = theta[0] * 2 // config.variant if len(theta) == 1 else 0
    return Linear(path=path, inputs=outputs, outputs=outputs) if outputs else None


METHOD = method(
    Rule(
        config=RoadConfig,
        presets={"road": RoadConfig()},
        shapes=shapes,
        start=start,
        op=op,
        seen=seen,
        sized=False,
        kinds=("linear",),
    )
)
