"""GraLoRA: a weight gets a low-rank update in each block of a grid of k × k, and one over all if wanted (Jung et al.).

    D[block j, block n] = s · B[j, n] A[n, j],      s = alpha / (r + hybrid_r)

A: k × inputs / k × r and B: k × r × outputs / k, whose r ranks are r / k for each block.

Source: Jung et al. 2025 (arXiv 2505.20355) §3; PEFT 0.21.2, tuners/gralora/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Shapes
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class GraloraConfig(UpdatingConfig):
    """Ranks, blocks and scale.

    Attributes:
        r: ranks of a row of blocks together.
        alpha: numerator of the scale.
        blocks: k, which divides r, inputs and outputs.
        hybrid_r: rank of the update over all blocks, 0 for none.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "gralora"

    r: int = 32
    alpha: float = 64.0
    blocks: int = 2
    hybrid_r: int = 0
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r, blocks=self.blocks, **({"hybrid_r": self.hybrid_r} if self.hybrid_r else {}))
        return faults or ([f"blocks is {self.blocks}, which does not divide r"] if self.r % self.blocks else [])


def shapes(config: GraloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the sizes of the map do not go into blocks.
    """
    r, k, hybrid = config.r, config.blocks, config.hybrid_r
    if linear.inputs % k or linear.outputs % k:
        raise UsageError(f"blocks is {k}, which does not divide the sizes of {linear.path}")
    found: Shapes = {"gralora_A": (k, linear.inputs // k, r), "gralora_B": (k, r, linear.outputs // k)}
    if hybrid:
        found |= {"gralora_A_general": (hybrid, linear.inputs), "gralora_B_general": (linear.outputs, hybrid)}
    return found


def start(config: GraloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: A after Kaiming, B zero."""
    import torch
    from torch.nn import init

    if name.startswith("gralora_B"):
        return torch.zeros(shape)
    if len(shape) == 2:
        return init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound)


def delta(config: GraloraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    import torch

    k = config.blocks
    a, b = own["gralora_A"].unflatten(2, (k, -1)), own["gralora_B"].unflatten(1, (k, -1))
    found: Tensor = torch.einsum("nijs,jnso->joni", a, b).reshape(linear.outputs, linear.inputs)
    if config.hybrid_r:
        found = found + own["gralora_B_general"] @ own["gralora_A_general"]
    return found * (config.alpha / (config.r + config.hybrid_r))


def seen(config: GraloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    a, b = own.get("gralora_A", ()), own.get("gralora_B", ())
    return Linear(path=path, inputs=a[0] * a[1], outputs=b[0] * b[2]) if len(a) == len(b) == 3 else None


METHOD = method(
    Rule(
        config=GraloraConfig,
        presets={"gralora": GraloraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
    )
)
