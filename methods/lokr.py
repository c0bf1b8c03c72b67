"""LoKr: a Kronecker product of two matrices is added to a weight (Yeh et al. 2024).

    D = s · U ⊗ V,      U: outputs₁ × inputs₁, V: outputs₂ × inputs₂[, kernel], s = alpha / r

outputs₁ · outputs₂ are the outputs, inputs₁ · inputs₂ the inputs; both are split near their square root, or at a
factor. V is of rank r where that saves anything, U too if `both` is set; a convolution's V may have a core for its
kernel.

Source: Yeh et al. 2024 (arXiv 2309.14859) §3.2; PEFT 0.21.2, tuners/lokr/layer.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .loha import cored
from .method import Shapes
from .targets import at
from .updating import Added, Base, Kind, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class LokrConfig(UpdatingConfig):
    """Ranks, scale and how sizes are split.

    Attributes:
        r: the rank.
        alpha: the numerator of the scale.
        ranks: module path or projection → its own r.
        alphas: module path or projection → its own alpha.
        both: whether the first factor may be of low rank too.
        factor: the first part of every size that it divides, -1 for one near the square root.
        effective: whether convolutions with a kernel have a core for it.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "lokr"

    r: int = 8
    alpha: float = 8.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    both: bool = False
    factor: int = -1
    effective: bool = False
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r, ranks=self.ranks)
        return faults if self.factor == -1 or self.factor > 0 else [*faults, "factor must be positive, or -1"]


def split(size: int, factor: int) -> tuple[int, int]:
    """Return two numbers whose product is size: near its square root, or the first at most, and near, the factor.

    >>> split(128, -1), split(127, -1), split(128, 4)
    ((8, 16), (1, 127), (4, 32))
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = size if factor == -1 else factor
    pair = (1, size)
    for small in range(2, math.isqrt(size) + 1):
        if size % small == 0 and small <= most:
            pair = (small, size // small)
    return pair


def shapes(config: LokrConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = at(config.ranks, linear, config.r)
    (out_1, out_2), (in_1, in_2) = (split(n, config.factor) for n in (linear.outputs, linear.inputs // linear.groups))
    found: Shapes = {}
    if config.both and r < max(out_1, in_1) / 2:
        found |= {"lokr_w1_a": (out_1, r), "lokr_w1_b": (r, in_1)}
    else:
        found["lokr_w1"] = (out_1, in_1)
    if r >= max(out_2, in_2) / 2:
        return found | {"lokr_w2": (out_2, in_2, *linear.kernel)}
    if cored(config.effective, linear):
        return found | {"lokr_t2": (r, r, *(*linear.kernel, 1)[:2]), "lokr_w2_a": (r, out_2), "lokr_w2_b": (r, in_2)}
    return found | {"lokr_w2_a": (out_2, r), "lokr_w2_b": (r, in_2 * math.prod(linear.kernel))}


def start(config: LokrConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: the first factor is zero, the second after Kaiming."""
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    return tensor if name in ("lokr_w1", "lokr_w1_a") else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def delta(config: LokrConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D in the shape of the weight."""
    import torch

    scale = at(config.alphas, linear, config.alpha) / at(config.ranks, linear, config.r)
    u = own["lokr_w1"] if "lokr_w1" in own else own["lokr_w1_a"] @ own["lokr_w1_b"]
    if "lokr_w2" in own:
        v = own["lokr_w2"]
    elif "lokr_t2" in own:
        v = torch.einsum("ijkl,ip,jr->prkl", own["lokr_t2"], own["lokr_w2_a"], own["lokr_w2_b"])
    else:
        v = own["lokr_w2_a"] @ own["lokr_w2_b"]
    if v.ndim == 4:
        u = u[:, :, None, None]
    found: Tensor = torch.kron(u, v.contiguous()) * scale
    return found.reshape(weight.shape)


def seen(config: LokrConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    u = own.get("lokr_w1") or (own.get("lokr_w1_a", ())[:1] + own.get("lokr_w1_b", ())[1:])
    core, whole = own.get("lokr_t2", ()), own.get("lokr_w2", ())
    a, b = own.get("lokr_w2_a", ()), own.get("lokr_w2_b", ())
    if len(u) != 2 or not (len(whole) >= 2 or (len(a) == len(b) == 2)):
        return None
    if whole:
        v, kernel = whole[:2], whole[2:]
    elif core:
        v, kernel = (a[1], b[1]), core[2:]
    else:
        # A kernel that was flattened: one with which the sizes split like this.
        k = next((k for k in _divisors(b[1]) if split(u[1] * b[1] // k, config.factor) == (u[1], b[1] // k)), 1)
        v, kernel = (a[0], b[1] // k), () if k == 1 else (k,)
    kind: Kind = "convolution" if kernel else "linear"
    return Linear(path=path, inputs=u[1] * v[1], outputs=u[0] * v[0], kernel=kernel, kind=kind)


def _divisors(number: int) -> list[int]:
    return [k for k in range(1, number + 1) if number % k == 0]


METHOD = method(
    Rule(
        config=LokrConfig,
        presets={"lokr": LokrConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
        kinds=("linear", "convolution"),
    )
)
