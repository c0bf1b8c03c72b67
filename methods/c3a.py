"""C³A: a weight gets an update of circulant blocks, each given by its first row (Chen et al. 2025).

    D[m b + j, n b + i] = k[m, n, (i - j) mod b] / inputs,      k: outputs / b × inputs / b × b

Source: Chen et al. 2025 (arXiv 2407.19342) §3.2; PEFT 0.21.2, tuners/c3a/layer.py and utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Shapes
from .targets import at
from .updating import Added, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class C3aConfig(UpdatingConfig):
    """Size of the blocks.

    Attributes:
        block_size: b, which divides inputs and outputs.
        block_sizes: module path or projection → its own b.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "c3a"

    block_size: int = 256
    block_sizes: Mapping[str, int] = field(default_factory=dict)
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(block_size=self.block_size, block_sizes=self.block_sizes)


def shapes(config: C3aConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the sizes of the map do not go into blocks.
    """
    size = at(config.block_sizes, linear, config.block_size)
    if linear.inputs % size or linear.outputs % size:
        raise UsageError(f"block_size is {size}, which does not divide the sizes of {linear.path}")
    return {"c3a_kernel": (linear.outputs // size, linear.inputs // size, size)}


def delta(config: C3aConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    import torch

    kernel = own["c3a_kernel"]
    size = kernel.shape[-1]
    steps = torch.arange(size, device=kernel.device)
    blocks = kernel[:, :, (steps[None, :] - steps[:, None]) % size]
    return blocks.permute(0, 2, 1, 3).reshape(linear.outputs, linear.inputs) / linear.inputs


def seen(config: C3aConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    kernel = own.get("c3a_kernel", ())
    return Linear(path=path, inputs=kernel[1] * kernel[2], outputs=kernel[0] * kernel[2]) if len(kernel) == 3 else None


METHOD = method(
    Rule(
        config=C3aConfig,
        presets={"c3a": C3aConfig()},
        shapes=shapes,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
        kinds=("linear",),
    )
)
