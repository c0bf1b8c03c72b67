"""PEANuT: a weight gets an update that a small network computes of that weight (Zhong et al. 2025).

    D = s · (B f(A W))ᵀ… written for rows h of Wᵀ:   h ← act(A h)
                                                     h ← act(E_i h)                     i = 1 … k
                                                     h ← act(F_i h) + (h before E_{k+1-i})
                                                     a row of Dᵀ = s · B h

A: r × outputs, E_i and F_i: r × r, B: outputs × r.

Source: Zhong et al. 2025 (arXiv 2410.01870) §3; PEFT 0.21.2, tuners/peanut/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .activations import function, known
from .method import Shapes
from .updating import AddedOf, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own

MOST_DEPTH = 32


@dataclass(frozen=True, kw_only=True)
class PeanutConfig(UpdatingConfig):
    """Sizes of the network.

    Attributes:
        r: its width.
        depth: k.
        scale: s.
        activation: act.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "peanut"

    r: int = 32
    depth: int = 0
    scale: float = 1.0
    activation: str = "relu"
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r) + ([] if known(self.activation) else [f"activation {self.activation!r} is unknown"])
        return faults + (
            [] if 0 <= self.depth <= MOST_DEPTH else [f"depth is {self.depth}, expected 0 to {MOST_DEPTH}"]
        )


def shapes(config: PeanutConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = config.r
    found: Shapes = {"peanut_A": (r, linear.outputs), "peanut_B": (linear.outputs, r)}
    for i in range(config.depth):
        found[f"peanut_encoders_{i}"] = found[f"peanut_decoders_{i}"] = (r, r)
    return found


def start(config: PeanutConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: B zero, the others after Kaiming."""
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    return tensor if name == "peanut_B" else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def delta(config: PeanutConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    from torch.nn.functional import linear as times

    act = function(config.activation)
    h = act(times(weight.t().to(own["peanut_A"]), own["peanut_A"]))
    before = []
    for i in range(config.depth):
        before.append(h)
        h = act(times(h, own[f"peanut_encoders_{i}"]))
    for i in range(config.depth):
        h = act(times(h, own[f"peanut_decoders_{i}"])) + before.pop()
    found: Tensor = times(h, own["peanut_B"]).t() * config.scale
    return found


def seen(config: PeanutConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with the outputs that the shapes tell."""
    b = own.get("peanut_B", ())
    return Linear(path=path, inputs=1, outputs=b[0]) if len(b) == 2 else None


METHOD = method(
    Rule(
        config=PeanutConfig,
        presets={"peanut": PeanutConfig()},
        shapes=shapes,
        start=start,
        op=partial(AddedOf, delta),
        seen=seen,
        sized=False,
        kinds=("linear",),
    )
)
