"""Norms of the base model that run with parameters of an adapter, as operations like any others.

In a composition every adapter reads through its own norm, if it has one, and else through the base model's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..methods.rows import along, stack

Apply = Callable[[Tensor], Tensor]


def shadow(module: nn.Module, own: Mapping[str, Tensor], inside: Mapping[str, nn.Module] | None = None) -> nn.Module:
    """Return a copy of a module that shares everything with it but the given parameters, and the modules inside."""
    found = copy.copy(module)
    found.__dict__["_parameters"] = {**module._parameters, **own}
    if inside is not None:
        found.__dict__["_modules"] = {**module._modules, **inside}
    return found


class Own:
    """The module with parameters of the adapter, in place of the map as it would be."""

    __slots__ = ("forward", "module", "own", "path")

    def __init__(self, path: str, module: nn.Module, own: Mapping[str, Tensor]) -> None:
        self.path = path
        self.module = module
        self.own = dict(own)
        self.forward: Apply = MethodType(type(module).forward, shadow(module, own))

    def __call__(self, forward: Any, x: Tensor) -> Tensor:
        """Return what the module makes of x (…, width) with the adapter's parameters."""
        return self.forward(x)

    @property
    def alike(self) -> Hashable:
        """What such modules must have in common to be computed at once, or None where that cannot be."""
        module = self.module
        plain = type(module) is nn.LayerNorm and len(module.normalized_shape) == 1 and module.bias is not None
        if plain:
            return ("norm", self.path)
        return None if self.own else ("base", self.path)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The adapter's parameters."""
        return tuple(self.own.values())

    def stacked(self, rows: Sequence[Own | None]) -> RowsNorm:
        """Return the layer norm with parameters of its own for each row of a batch; see rows.Stackable."""
        return RowsNorm(self.module, rows)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the adapter's parameters, or those given where it has none."""
        return self.own.get("weight", weight), self.own.get("bias", bias)


class RowsNorm:
    """A layer norm with weight and bias of its own for each row of a batch."""

    __slots__ = ("bias", "eps", "weight")

    def __init__(self, module: Any, rows: Sequence[Own | None]) -> None:
        self.eps: float = module.eps
        base = module._parameters
        self.weight, self.bias = (
            stack([base[name] if op is None else op.own.get(name, base[name]) for op in rows])
            for name in ("weight", "bias")
        )

    def __call__(self, forward: Any, x: Tensor) -> Tensor:
        """Return the normalised x (rows, …, width)."""
        plain = torch.nn.functional.layer_norm(x, x.shape[-1:], None, None, self.eps)
        return torch.addcmul(along(self.bias, x), plain, along(self.weight, x))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one norm cannot hold what differs from row to row."""
        raise UnsupportedError("adapters for the rows of a batch cannot be merged into one norm")


class Normed:
    """A bottleneck that reads through a norm of its own, whatever norm the model applies at the moment."""

    __slots__ = ("norm", "op", "reads_norm", "reads_residual", "replaces_norm")

    def __init__(self, op: Any, norm: Own | RowsNorm) -> None:
        self.op = op
        self.norm = norm
        self.reads_norm = True
        self.reads_residual: bool = op.reads_residual
        self.replaces_norm: bool = op.replaces_norm

    def __call__(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return the new d (batch, sequence, width)."""
        found: Tensor = self.op(d, x, self._apply)
        return found

    def within(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return what a further operation takes over."""
        found: Tensor = self.op.within(d, x, self._apply)
        return found

    def prepared(self, d: Tensor, x: Tensor | None, norm: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is read, what is added, and d + x; see SiteOp."""
        found: tuple[Tensor, Tensor, Tensor] = self.op.prepared(d, x, self._apply)
        return found

    def raw(self, t: Tensor) -> Tensor:
        """Return what the projections make of t; see SiteOp."""
        found: Tensor = self.op.raw(t)
        return found

    def joined(self, t: Tensor, r: Tensor) -> Tensor:
        """Return f(t) and r together; see Bottleneck."""
        found: Tensor = self.op.joined(t, r)
        return found

    @property
    def config(self) -> Any:
        """The configuration of the bottleneck."""
        return self.op.config

    def ended(self, u: Tensor, x: Tensor | None) -> Tensor:
        """Return what __call__ returns where `within` would return u; see SiteOp."""
        found: Tensor = self.op.ended(u, x)
        return found

    @property
    def alike(self) -> Hashable:
        """What such operations must have in common to be computed at once, or None where that cannot be."""
        norm = self.norm.alike if isinstance(self.norm, Own) else None
        return None if norm is None or self.op.alike is None else ("normed", norm, self.op.alike)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        own = self.norm.parameters if isinstance(self.norm, Own) else ()
        return (*self.op.parameters, *own)

    def stacked(self, rows: Sequence[Normed | None]) -> Normed:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        norms = [op.norm for op in rows if op is not None]
        op = self.op.stacked([None if row is None else row.op for row in rows])
        if not any(isinstance(norm, Own) and norm.own for norm in norms):
            return Normed(op, self.norm)
        own = [row.norm if row is not None and isinstance(row.norm, Own) else None for row in rows]
        return Normed(op, next(norm for norm in own if norm is not None).stacked(own))

    def _apply(self, x: Tensor) -> Tensor:
        return self.norm(None, x)
