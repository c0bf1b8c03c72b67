"""DoRA as an operation: the update of a weight split into magnitude and direction, row by row; see low_rank.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .linear_maps import gates, is_transposed, joined, readable, reduced
from .low_rank_updates import Factors, Update, gated
from .method import Live
from .targets import Target

if TYPE_CHECKING:
    from torch import Tensor

    from .method import Apply

Magnitude = Literal["none", "dora", "dora_adapters"]
"""Whether an update is split, and which of the two equations of low_rank.py holds."""


class Dora(Update):
    """The update split into magnitude and direction."""

    __slots__ = ("bias", "gate", "m", "norm_scale", "weight")

    def __init__(
        self,
        factors: Factors,
        target: Target,
        live: Live,
        *,
        scale: float,
        dropout: float,
        m: Tensor,
        magnitude: Magnitude,
        gate: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(factors, target, live.mode, scale=scale, dropout=dropout)
        self.m = m
        self.gate = gate
        self.norm_scale = scale if magnitude == "dora" else 1.0
        self.weight = readable(live.base(f"{target.path}.weight"), target.path)
        # What the magnitude leaves alone.
        keeps_bias = magnitude == "dora" and target.linear.bias
        self.bias = live.base(f"{target.path}.bias") if keeps_bias else None

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        a, b = self.factors()
        return self._directed(self.added(forward(x), x, a, b), a, b)

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y with the last change, split into magnitude and direction; see method.Chainable."""
        return self._directed(y + change, *self.factors())

    def _directed(self, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y, which is W x + b + s B A x, with its magnitudes exchanged."""
        # Both factors may have changed since the last call, by ways that leave no trace: the norm is taken anew.
        factor = self.factor(self.weight, a, b, transposed=is_transposed(self.target.linear))
        ones = (1,) * len(self.target.linear.kernel)
        scaled = y * factor.to(y.dtype).view(-1, *ones)
        if self.bias is None:
            return scaled
        return scaled + (self.bias * (1 - factor)).to(y.dtype).view(-1, *ones)

    def factor(self, weight: Tensor, a: Tensor, b: Tensor, *, transposed: bool) -> Tensor:
        """Return m / ‖W + …‖ (outputs,), float32; no gradient flows through the norm, as §4.3 of the paper advises.

        transposed: whether weight is (inputs, outputs).
        """
        import torch

        weight, a, b = (t.detach().float() for t in (weight, a.flatten(1), b.flatten(1)))
        if transposed:
            norms = torch.addmm(weight, a.t(), b.t(), alpha=self.norm_scale).norm(dim=0)
        else:
            norms = torch.addmm(weight.flatten(1), b, a, alpha=self.norm_scale).norm(dim=1)
        # A row of zeros with magnitude 0 stays one.
        found: Tensor = self.m.float() / norms.clamp_min(torch.finfo(norms.dtype).tiny)
        return found

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the scaled weight; as in `adapters` the bias is scaled too with magnitude `dora_adapters`."""
        factor = self.factor(weight, *self.factors(), transposed=False)
        updated, bias = super().merged(weight, bias)
        updated = updated * factor.view(-1, *(1,) * (weight.ndim - 1))
        if bias is None or self.bias is not None:
            return updated, bias
        return updated, bias * factor


class GatedDora(Dora):
    """The same with a gate on the update; a class of its own, so that an update without one costs no question."""

    __slots__ = ()
    gate: tuple[Tensor, Tensor]

    def added(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y with the update of x, times its gate."""
        h = reduced(x, a, self.target.linear, self.dropout if self.mode.training else 0.0)
        return joined(y, h.view(*x.shape[:-1], -1) * gates(x, self.gate), b, self.scale)

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return s g(x) B A h (…, outputs); see method.Chainable."""
        return super().change(h, x) * gates(x, self.gate)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Raise: its gate depends on the input."""
        raise gated(self.target)
