"""BOFT: OFT whose rotation is a product of sparse ones, as in a fast Fourier transform (Liu et al. 2024).

    y = s ⊙ (W (Rᵀ x)) + b,      R = P_m D_m P_mᵀ … P_1 D_1 P_1ᵀ

D are block-diagonal with orthogonal blocks (Cayley transforms of the skew parts of what is trained), P permute the
inputs so that every factor mixes others, s scales the outputs.

Source: Liu et al. 2024 (arXiv 2311.06243) §4 and 5; PEFT 0.21.2, tuners/boft/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Shapes
from .oft import cayley
from .updating import MOST, Base, Changed, Rule, UpdatingConfig, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class BoftConfig(UpdatingConfig):
    """Blocks and factors.

    Attributes:
        block_size: size of a block, 0 where blocks says it.
        blocks: number of blocks, 0 where block_size says it.
        factors: m.
    """

    method: ClassVar[str] = "boft"

    block_size: int = 4
    blocks: int = 0
    factors: int = 1

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [] if 1 <= self.factors <= 16 else ["factors must be 1 to 16"]
        if (self.block_size == 0) == (self.blocks == 0) or not 0 <= max(self.block_size, self.blocks) <= MOST:
            faults.append(f"one of block_size and blocks must be 0, the other 1 to {MOST}")
        return faults


def shapes(config: BoftConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the inputs do not go into blocks and factors.
    """
    width = linear.inputs * math.prod(linear.kernel)
    size = config.block_size or width // config.blocks
    count, mixes = width // max(1, size), config.factors - 1
    if size < 1 or size * count != width or (mixes and (size % 2 or count % 2**mixes)):
        raise UsageError(f"the {width} inputs of {linear.path} do not go into these blocks and factors")
    scale = (1, linear.outputs) if linear.kernel else (linear.outputs, 1)
    return {"boft_R": (config.factors, count, size, size), "boft_s": scale}


def start(config: BoftConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: no rotation and a scale of 1."""
    import torch

    return torch.ones(shape) if name == "boft_s" else torch.zeros(shape)


def change(config: BoftConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return s ⊙ (W Rᵀ) in the shape of W."""
    r, s = own["boft_R"], own["boft_s"]
    flat = weight.reshape(weight.shape[0], -1).to(r.dtype)
    turned = (flat @ rotation(r).t()) * s.reshape(-1, 1)
    return turned.reshape(weight.shape)


def rotation(r: Tensor) -> Tensor:
    """Return R (inputs, inputs) of what is trained (m, blocks, b, b)."""
    import torch

    factors, count, size, _ = r.shape
    blocks = cayley(0.5 * (r - r.transpose(-1, -2)))
    found: Tensor | None = None
    for i in range(factors):
        one = torch.block_diag(*blocks[i])
        order = butterfly(count * size, count // 2**i, size // 2, mixes=factors - 1).to(r.device)
        # P D Pᵀ, where row i of P has its 1 in column order[i].
        one = one[order][:, order] if factors > 1 else one
        found = one if found is None else one @ found
    return r.new_zeros(()) if found is None else found


def butterfly(width: int, blocks: int, half: int, *, mixes: int) -> Tensor:
    """Return the order (width,) in which a factor takes the inputs: in each block even halves first, then odd ones."""
    import torch

    order = torch.arange(width)
    if not mixes:
        return order
    grouped = order.view(blocks, -1, half)
    found: Tensor = torch.cat([grouped[:, 0::2], grouped[:, 1::2]], dim=1).reshape(-1)
    return found


def seen(config: BoftConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    r, s = own.get("boft_R", ()), own.get("boft_s", ())
    if len(r) != 4 or len(s) != 2:
        return None
    kernel = (1,) if s[0] == 1 and s[1] > 1 else ()
    kind = "convolution" if kernel else "linear"
    return Linear(path=path, inputs=r[1] * r[2], outputs=max(s), kernel=kernel, kind=kind)  # type: ignore[arg-type]


METHOD = method(
    Rule(
        config=BoftConfig,
        presets={"boft": BoftConfig()},
        shapes=shapes,
        start=start,
        op=partial(Changed, change),
        seen=seen,
        kinds=("linear", "conv1d", "convolution"),
    )
)
