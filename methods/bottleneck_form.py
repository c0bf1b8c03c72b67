"""What a bottleneck computes at one site; the equations stand in bottleneck.py.

The order of operations is that of `adapters` 1.3.0, methods/modeling.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..sites import Site
from .activations import function
from .rows import affine, along, normalise, selected, stack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .bottleneck import BottleneckConfig

    Tensor = torch.Tensor
    Pair = tuple[Tensor, Tensor]
    Projection = tuple[Tensor, Tensor | None]


class BottleneckForm:
    """The operation at one site, whatever its projections are made of.

    A plain object with slots: cheap to call, safe to copy, visible to torch.compile.
    """

    __slots__ = (
        "act",
        "applies",
        "config",
        "gate",
        "mode",
        "norm_after",
        "norm_before",
        "post_norm",
        "reads_norm",
        "reads_residual",
        "replaces_norm",
        "residual",
        "scale",
        "scales",
        "shown_residual",
        "subtracts",
        "sums",
    )

    def __init__(self, config: BottleneckConfig, tensors: Mapping[str, Tensor], mode: nn.Module, site: Site) -> None:
        self.config = config
        self.mode = mode
        self.act = function(config.non_linearity)
        self.take(tensors)
        self.gate = _pair(tensors, "bottleneck_gate") if config.use_gating else None
        self.norm_before = _pair(tensors, "bottleneck_norm_before") if config.ln_before else None
        self.norm_after = _pair(tensors, "bottleneck_norm_after") if config.ln_after else None
        self.scales = tensors.get("bottleneck_scaling")
        self.scale = 1.0 if isinstance(config.scaling, str) else float(config.scaling)
        self.applies: Tensor | None = None
        post_norm = site.norm is not None
        self.post_norm = post_norm
        self.sums = config.original_ln_before and site.summed and not config.is_parallel
        self.residual = self.shown_residual = _residual(config) if self.sums else "d"
        self.replaces_norm = post_norm and not config.original_ln_after
        # A pre-norm model adds x to whatever we return; where the configuration wants it left out, we take it off,
        # exactly where the adapter's own residual holds it, by subtraction elsewhere.
        self.subtracts = not post_norm and not config.original_ln_after
        if self.subtracts and not config.is_parallel and self.residual != "d" and not self._norms_residual():
            self.shown_residual = "d"
        has_norm = site.norm is not None or site.inner is not None
        self.reads_norm = has_norm and config.original_ln_before and not config.is_parallel
        self.reads_residual = self.sums or config.is_parallel or self.subtracts

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what the projections are made of from the tensors of the site."""
        raise AssertionError("each kind takes its own")

    @property
    def down(self) -> Projection:
        """Weight (m, width) and bias of the down projection."""
        raise AssertionError("each kind has its own")

    @property
    def up(self) -> Projection:
        """Weight (width, m) and bias of the up projection."""
        raise AssertionError("each kind has its own")

    def __call__(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return what takes the place of d (batch, sequence, width)."""
        if self.shown_residual != self.residual:
            return self._moved(d, x, norm, self.shown_residual)
        return self.ended(self._moved(d, x, norm, self.residual), x)

    def ended(self, u: Tensor, x: Any) -> Tensor:
        """Return u (batch, sequence, width), or u without what the model adds to it although it is not wanted."""
        return u - x if self.subtracts else u

    def within(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return the d (batch, sequence, width) that another adapter takes over from this one."""
        return self._moved(d, x, norm, self.residual)

    def prepared(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the down projection reads, what the own residual connection adds, and d + x where it is needed.

        Each is (batch, sequence, width).
        """
        if self.config.is_parallel:
            return x, d, d
        total = d + x if self.sums else d
        t = norm(total) if self.config.original_ln_before and norm is not None else total
        return t, {"d": d, "t": t, "sum": total}[self.residual], total

    def raw(self, t: Tensor) -> Tensor:
        """Return scale · up(act(down(t))) (batch, sequence, width), which AdapterFusion mixes."""
        u = self._projected(t)
        return u if self.scale == 1.0 else u * self.scale

    def joined(self, t: Tensor, r: Tensor) -> Tensor:
        """Return f(t) and the residual r (batch, sequence, width) together, the norm behind where it belongs."""
        return self._join(self._branch(t), r)

    @property
    def alike(self) -> Hashable:
        """What bottlenecks must have in common to be computed at once: everything but sizes and scales."""
        fields = {**self.config.to_json(), "non_linearity": self.config.non_linearity.lower()}
        for name in ("mh_adapter", "output_adapter", "cross_adapter", "reduction_factor", "leave_out", "scaling"):
            del fields[name]
        return (
            "bottleneck",
            self.post_norm,
            self.sums,
            *(f"{name}={value}" for name, value in fields.items() if "init" not in name),
        )

    @property
    def around(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads besides its projections."""
        pairs = (self.gate, self.norm_before, self.norm_after)
        found = [tensor for pair in pairs if pair is not None for tensor in pair]
        return tuple(found if self.scales is None else [*found, self.scales])

    def _moved(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None, residual: str) -> Tensor:
        """Return f and the own residual connection together."""
        config = self.config
        if config.is_parallel:
            u = self._join(self._branch(x), d)
        else:
            t = d + x if self.sums else d
            r = d if residual == "d" else t
            if config.original_ln_before and norm is not None:
                t = norm(t)
            u = self._join(self._branch(t), t if residual == "t" else r)
        return u if self.applies is None else selected(self.applies, u, d)

    def _branch(self, t: Tensor) -> Tensor:
        """Return f(t) without a scale that is a plain number."""
        gate = None if self.gate is None else affine(t, *self.gate).sigmoid().mean(dim=1, keepdim=True)
        u = self._projected(t, drops=self.mode.training)
        return u if gate is None else u * gate

    def _projected(self, t: Tensor, *, drops: bool = False) -> Tensor:
        """Return up(act(down(t))), times scales that are a tensor."""
        if self.norm_before is not None:
            t = normalise(t, self.norm_before)
        u = affine(self.act(affine(t, *self.down)), *self.up)
        if drops:
            u = self._drop(u)
        return u if self.scales is None else u * along(self.scales, u)

    def _join(self, f: Tensor, r: Tensor) -> Tensor:
        """Return f and the residual r together, with the plain scale and the norm behind where they belong."""
        if self.norm_after is None:
            return f.add(r) if self.scale == 1.0 else r.add(f, alpha=self.scale)
        if self._norms_residual():
            return normalise(r.add(f, alpha=self.scale), self.norm_after)
        return normalise(f * self.scale, self.norm_after) + r

    def _norms_residual(self) -> bool:
        config = self.config
        return config.ln_after and config.adapter_residual_before_ln and not config.is_parallel

    def _drop(self, u: Tensor) -> Tensor:
        """Return u with what training leaves out: whole examples, then single values."""
        from torch.nn.functional import dropout

        p = self.config.stochastic_depth
        if p and not self.config.is_parallel:
            kept = u.new_empty((u.shape[0],) + (1,) * (u.ndim - 1)).bernoulli_(1 - p)
            u = u * kept / (1 - p)
        return dropout(u, self.config.dropout) if self.config.dropout else u


class Bottleneck(BottleneckForm):
    """The operation with plain projections."""

    __slots__ = ("down", "up")
    down: Pair
    up: Pair

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights and biases from the tensors of the site."""
        self.down = _pair(tensors, "bottleneck_down")
        self.up = _pair(tensors, "bottleneck_up")

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        return (*self.down, *self.up, *self.around)

    def stacked(self, rows: Sequence[Bottleneck | None]) -> Bottleneck:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        import torch

        found = copy.copy(self)
        for name in ("down", "up", "gate", "norm_before", "norm_after"):
            if getattr(self, name) is not None:
                pairs = [None if op is None else getattr(op, name) for op in rows]
                setattr(found, name, tuple(stack([None if p is None else p[i] for p in pairs]) for i in (0, 1)))
        if any(op is not None and (op.scales is not None or op.scale != self.scale) for op in rows):
            found.scales, found.scale = stack([None if op is None else op.scaled for op in rows]), 1.0
        exact = self.residual == "d" and self.norm_after is None and not self.subtracts and not self.replaces_norm
        if not exact and any(op is None for op in rows):
            found.applies = torch.tensor([op is not None for op in rows], device=self.up[0].device)
        return found

    @property
    def scaled(self) -> Tensor:
        """Return the scale as a vector (width,)."""
        scales = self.up[1].new_full(self.up[1].shape, self.scale)
        return scales if self.scales is None else scales * self.scales


def _residual(config: BottleneckConfig) -> Literal["d", "t", "sum"]:
    """Return which tensor the adapter's own residual connection adds."""
    if config.residual_before_ln is True or not config.original_ln_before:
        return "d"
    return "sum" if config.residual_before_ln == "post_add" else "t"


def _pair(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]
