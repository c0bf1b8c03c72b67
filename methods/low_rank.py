"""Low-rank updates of linear maps: what LoRA, VeRA and MTL-LoRA do once it is known what A and B are.

    y = W x + b + s · g(x) · (B A x + c),      A: r × inputs, B: outputs × r

with a scale s, an optional gate g and an optional bias c. DoRA splits the updated weight into a magnitude m and a
direction, row by row:

    y = (m / ‖W + s B A‖) · (W x + s B A x) + b                        magnitude="dora" (the paper; PEFT)
    y = (m / ‖W + B A‖) · (W x + b + s g(x) B A x)                     magnitude="dora_adapters" (`adapters` 1.3.0)

Of a map that computes query, key and value side by side, a part for each chosen projection: A has their r rows one
after the other, B their outputs. An embedding is a map of one-hot vectors; of a convolution, A is a convolution to r
channels and B one with a kernel of 1, in as many groups as the convolution has.

Sources: Hu et al. 2022 (arXiv 2106.09685) §4.1; Liu et al. 2024 (arXiv 2402.09353) equation 5; Mao et al. 2022
(arXiv 2110.07577) §3.2 for the gate; `adapters` 1.3.0, methods/lora.py, and PEFT 0.21.2, tuners/lora.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from ..sites import Linear
from .dora import Dora, GatedDora, Magnitude
from .low_rank_updates import Factors, PartsUpdate, Update
from .method import LinearOp, Live
from .targets import Target

if TYPE_CHECKING:
    from torch import Tensor


def operation(
    factors: Factors,
    target: Target,
    live: Live,
    extras: Mapping[str, Tensor],
    *,
    scale: float,
    dropout: float,
    magnitude: Magnitude = "none",
) -> LinearOp:
    """Return what acts at one map.

    extras: `gate.weight` and `gate.bias`, `magnitude`, `bias`, those that the adapter has.
    """
    gate = (extras["gate.weight"], extras["gate.bias"]) if "gate.weight" in extras else None
    if magnitude != "none":
        kind, m = Dora if gate is None else GatedDora, extras["magnitude"]
        return kind(factors, target, live, scale=scale, dropout=dropout, m=m, magnitude=magnitude, gate=gate)
    if gate is not None or target.parts:
        return PartsUpdate(factors, target, live.mode, scale=scale, dropout=dropout, gate=gate)
    return Update(factors, target, live.mode, scale=scale, dropout=dropout, c=extras.get("bias"))


def check(target: Target, *, r: int, gating: bool, magnitude: Magnitude, update_bias: bool = False) -> None:
    """Refuse what has no meaning at a map.

    Raises:
        UnsupportedError: names the map and the reason.
    """
    linear = target.linear
    if gating and linear.kind not in ("linear", "conv1d"):
        raise UnsupportedError(f"a gate has no meaning at {target.path}, which is a {linear.kind}")
    if target.parts and (magnitude != "none" or update_bias):
        raise UnsupportedError(
            f"DoRA and a bias of the update are defined for whole maps, and {target.path} is targeted in parts",
            hint=f"name the module {target.path} in targets",
        )
    if update_bias and linear.kind == "embedding":
        raise UnsupportedError(f"an update of the embedding {target.path} has no bias", hint="leave it out of targets")
    if r % linear.groups:
        raise UnsupportedError(f"{target.path} is a convolution in {linear.groups} groups, which do not divide r={r}")
    if magnitude != "none" and linear.groups > 1:
        raise UnsupportedError(f"DoRA is not defined for {target.path}, a convolution in {linear.groups} groups")


def factor_shapes(linear: Linear, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B for a whole map."""
    ones = (1,) * len(linear.kernel)
    return (r, linear.inputs, *linear.kernel), (linear.outputs, r // linear.groups, *ones)
