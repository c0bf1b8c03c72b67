"""MiSS: one block of rows is shared by all shards of a weight's inputs (Kang & Yin 2024).

    D[o, i] = M[i mod r, o],                  M: r × outputs              variant "plain"
    D[o, i] = M[i mod r, o mod m],            M: r × m                    variant "mini"
    W' = W + W M + M, block by block,         M: outputs / r × r × r      variant "bat"

Source: Kang & Yin 2024 (arXiv 2409.15371) §3; PEFT 0.21.2, tuners/miss/layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..sites import Linear
from .method import LinearOp, Live, Shapes
from .updating import Added, Changed, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class MissConfig(UpdatingConfig):
    """Size of the blocks.

    Attributes:
        r: rows of a block.
        variant: how blocks act.
        width: m of the variant `mini`.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "miss"

    r: int = 64
    variant: Literal["plain", "mini", "bat"] = "plain"
    width: int = 1
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r, width=self.width)


def shapes(config: MissConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the sizes of the map do not go into blocks.
    """
    r = config.r
    if config.variant == "bat":
        if linear.inputs % r or linear.outputs % r:
            raise UsageError(f"r is {r}, which does not divide the sizes of {linear.path}")
        return {"miss_block": (linear.outputs // r, r, r)}
    if config.variant == "mini" and linear.outputs % config.width:
        raise UsageError(f"width is {config.width}, which does not divide the outputs of {linear.path}")
    return {"miss_block": (r, config.width if config.variant == "mini" else linear.outputs)}


def delta(config: MissConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    block = own["miss_block"]
    if config.variant == "mini":
        block = block.repeat(1, linear.outputs // config.width)
    return block.t().repeat(1, -(-linear.inputs // config.r))[:, : linear.inputs]


def change(config: MissConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return W + W M + M, with W in blocks of r × r."""
    m, r = own["miss_block"], config.r
    blocks = weight.reshape(linear.outputs // r, r, linear.inputs // r, r).permute(2, 0, 1, 3).to(m.dtype)
    moved = blocks + blocks @ m + m
    return moved.permute(1, 2, 0, 3).reshape(weight.shape)


def op(config: MissConfig, own: Own, linear: Linear, live: Live) -> LinearOp:
    """Return what acts at a map."""
    if config.variant == "bat":
        return Changed(change, config, own, linear, live)
    return Added(delta, config, own, linear, live)


def seen(config: MissConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with as many outputs; the shapes say nothing of its inputs."""
    block = own.get("miss_block", ())
    if len(block) < 2:
        return None
    return Linear(path=path, inputs=config.r, outputs=block[0] * config.r if block[2:] else block[1])


METHOD = method(
    Rule(
        config=MissConfig,
        presets={"miss": MissConfig()},
        shapes=shapes,
        op=op,
        seen=seen,
        sized=False,
        kinds=("linear",),
    )
)
