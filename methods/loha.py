"""LoHa: the product, element by element, of two low-rank matrices is added to a weight (Hyeon-Woo et al. 2022).

    D = s · (A₁ B₁) ⊙ (A₂ B₂),      A: outputs × r, B: r × inputs, s = alpha / r

Of a convolution the inputs are the channels times the kernel; where `effective` is set, the kernel has a core T of its
own instead: (A B)[p, q, k] becomes Σ T[i, j, k] A[i, p] B[j, q], with A: r × outputs.

Source: Hyeon-Woo et al. 2022 (arXiv 2108.06098) §2.2 and propositions 1 and 3; PEFT 0.21.2, tuners/loha/layer.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Shapes
from .targets import at
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class LohaConfig(UpdatingConfig):
    """Ranks and scale.

    Attributes:
        r: the rank.
        alpha: the numerator of the scale.
        ranks: module path or projection → its own r.
        alphas: module path or projection → its own alpha.
        effective: whether convolutions with a kernel have a core for it.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "loha"

    r: int = 8
    alpha: float = 8.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    effective: bool = False
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r, ranks=self.ranks)


def shapes(config: LohaConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r, channels = at(config.ranks, linear, config.r), linear.inputs // linear.groups
    found: Shapes = {}
    for pair in ("hada_w1", "hada_w2"):
        if cored(config.effective, linear):
            found |= {f"{pair}_a": (r, linear.outputs), f"{pair}_b": (r, channels)}
            found[pair.replace("w", "t")] = (r, r, *(*linear.kernel, 1)[:2])
        else:
            found |= {f"{pair}_a": (linear.outputs, r), f"{pair}_b": (r, channels * math.prod(linear.kernel))}
    return found


def cored(effective: bool, linear: Linear) -> bool:
    """Return whether the kernel of a convolution has a core."""
    return effective and math.prod(linear.kernel) > 1


def start(config: LohaConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: all after Kaiming but one, which is zero."""
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    return tensor if name == "hada_w2_b" else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def delta(config: LohaConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D in the shape of the weight."""
    scale = at(config.alphas, linear, config.alpha) / at(config.ranks, linear, config.r)
    one, two = (_factor(own, pair) for pair in ("hada_w1", "hada_w2"))
    return (one * two * scale).reshape(weight.shape)


def _factor(own: Own, pair: str) -> Tensor:
    import torch

    a, b, core = own[f"{pair}_a"], own[f"{pair}_b"], own.get(pair.replace("w", "t"))
    if core is None:
        return a @ b
    found: Tensor = torch.einsum("ijkl,jr,ip->prkl", core, b, a)
    return found


def seen(config: LohaConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    a, b, core = own.get("hada_w1_a", ()), own.get("hada_w1_b", ()), own.get("hada_t1", ())
    if len(a) != 2 or len(b) != 2:
        return None
    if core:
        return Linear(path=path, inputs=b[1], outputs=a[1], kernel=core[2:], kind="convolution")
    return Linear(path=path, inputs=b[1], outputs=a[0])


METHOD = method(
    Rule(
        config=LohaConfig,
        presets={"loha": LohaConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
        kinds=("linear", "convolution"),
    )
)
