"""GLoRA: a weight and its bias are scaled and shifted, entry by entry (Chavan et al. 2023).

    W' = W + W ∘ A + B,      b' = b + b ∘ D + E + W C

Each of A to E is a product of two matrices, a vector for the outputs, a number, or zeros that stay so. C, D and E are
for maps that have a bias; at others they are zeros.

Source: Chavan et al. 2023 (arXiv 2306.07967) §3; PEFT 0.21.2, tuners/glora/layer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..sites import Linear
from .linear_maps import readable
from .method import Live, Shapes
from .updating import Base, Rule, UpdatingConfig, apply, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .method import Apply
    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class GloraConfig(UpdatingConfig):
    """Ranks and forms.

    Attributes:
        r: rank of the products.
        weight: form of A and B.
        inputs: form of C.
        outputs: form of D and E.
    """

    method: ClassVar[str] = "glora"

    r: int = 8
    weight: Literal["product", "vector", "number", "none"] = "product"
    inputs: Literal["product", "vector", "none"] = "product"
    outputs: Literal["vector", "number", "none"] = "number"

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r)


def shapes(config: GloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    size = (linear.outputs, linear.inputs)
    found: Shapes = {}
    for letter in "AB":
        found |= _shapes(f"glora_{letter}", config.weight, size, (linear.outputs, 1), config.r)
    inputs, outputs = (config.inputs, config.outputs) if linear.bias else ("none", "none")
    found |= _shapes("glora_C", inputs, (linear.inputs, 1), (linear.inputs, 1), config.r)
    for letter in "DE":
        found |= _shapes(f"glora_{letter}", outputs, (linear.outputs,), (linear.outputs,), config.r)
    return found


def _shapes(name: str, form: str, full: tuple[int, ...], vector: tuple[int, ...], r: int) -> Shapes:
    if form == "product":
        return {f"{name}_Xd": (full[0], r), f"{name}_Xu": (r, full[1])}
    return {f"{name}_zeros": full} if form == "none" else {f"{name}_X": vector if form == "vector" else (1,)}


def start(config: GloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: zero, but for one factor of each product."""
    import torch
    from torch.nn import init

    if not name.endswith("_Xu"):
        return torch.zeros(shape)
    return init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))


class Scaled:
    """W' x + b'."""

    __slots__ = ("base", "bias", "linear", "own")

    def __init__(self, own: Own, linear: Linear, live: Live) -> None:
        self.own = own
        self.linear = linear
        self.base = readable(live.base(f"{linear.path}.weight"), linear.path)
        self.bias = live.base(f"{linear.path}.bias") if linear.bias else None

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs); the map's own computation is not used."""
        weight, bias = self.changed(self.base, self.bias)
        y = apply(x, weight.to(x.dtype), self.linear)
        return y if bias is None else y + bias.to(x.dtype)

    def changed(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W' and b'."""
        a, b, c, d, e = (self._value(letter) for letter in "ABCDE")
        if bias is not None:
            bias = bias + bias * d + e + (weight @ c.to(weight.dtype)).squeeze(-1)
        return weight + weight * a + b, bias

    merged = changed

    def _value(self, letter: str) -> Tensor:
        name = f"glora_{letter}"
        if f"{name}_Xd" in self.own:
            return self.own[f"{name}_Xd"] @ self.own[f"{name}_Xu"]
        return self.own[f"{name}_X"] if f"{name}_X" in self.own else self.own[f"{name}_zeros"]


def op(config: GloraConfig, own: Own, linear: Linear, live: Live) -> Scaled:
    """Return what acts at a map."""
    return Scaled(own, linear, live)


def seen(config: GloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes of a module's tensors describe; C tells its inputs."""
    b = own.get("glora_B_Xd", own.get("glora_B_X", own.get("glora_B_zeros", ())))
    c = own.get("glora_C_Xd", own.get("glora_C_X", own.get("glora_C_zeros", ())))
    d = own.get("glora_D_X", own.get("glora_D_zeros", ()))
    if not b or not c or not d:
        return None
    outputs = max(b[0], d[0])
    bias = config.inputs == config.outputs == "none" or "glora_C_zeros" not in own or "glora_D_zeros" not in own
    return Linear(path=path, inputs=c[0], outputs=outputs, bias=bias)


METHOD = method(
    Rule(
        config=GloraConfig,
        presets={"glora": GloraConfig()},
        shapes=shapes,
        start=start,
        op=op,
        seen=seen,
        sized=False,
        kinds=("linear",),
    )
)
