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

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import UnsupportedError
from ..sites import Linear
from .method import LinearOp, Live
from .rows import along, stack
from .targets import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .method import Apply

Magnitude = Literal["none", "dora", "dora_adapters"]


class Factors(Protocol):
    """Gives A and B as they are now."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors of the adapter that they are made of."""
        ...

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return A (r, inputs[, kernel]) and B (outputs, r[, 1 …])."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """A and B that are tensors of the adapter themselves."""

    a: Tensor
    b: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Both."""
        return self.a, self.b

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return them."""
        return self.a, self.b


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


class Update:
    """y + s · (B A x + c) at one map, of any kind."""

    __slots__ = ("c", "dropout", "factors", "mode", "scale", "target")

    def __init__(
        self,
        factors: Factors,
        target: Target,
        mode: nn.Module,
        *,
        scale: float,
        dropout: float,
        c: Tensor | None = None,
    ) -> None:
        self.factors = factors
        self.target = target
        self.mode = mode
        self.scale = scale
        self.dropout = dropout
        self.c = c

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        return self.added(forward(x), x, *self.factors())

    def added(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y with the update of x."""
        import torch

        linear = self.target.linear
        h = reduced(x, a, linear, self.dropout if self.mode.training else 0.0)
        if linear.kind == "convolution":
            delta = convolution(linear)(h, b, self.c, groups=linear.groups)
            return torch.add(y, delta, alpha=self.scale)
        if self.c is not None:
            y = torch.add(y, self.c, alpha=self.scale)
        return joined(y, h, b, self.scale * linear.scale)

    @property
    def alike(self) -> Hashable:
        """What updates must have in common to be computed at once, or None where that cannot be; see rows.py."""
        plain = type(self) is Update and self.target.linear.kind in ("linear", "conv1d")
        return ("update", self.target.path, self.dropout) if plain else None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        return self.factors.parameters if self.c is None else (*self.factors.parameters, self.c)

    def stacked(self, rows: Sequence[Update | PartsUpdate | None]) -> RowsUpdate:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        return RowsUpdate(rows, self.dropout, self.mode)

    def whole(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return A, B and c, without the scale."""
        return *self.factors(), self.c

    @property
    def chains(self) -> bool:
        """Whether `adapters` puts it into compositions; see method.Chainable."""
        return self.c is None and self.target.linear.kind in ("linear", "conv1d")

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return s B A h (…, outputs); see method.Chainable."""
        from torch.nn.functional import linear

        a, b = self.factors()
        inner = reduced(x if h is None else h, a, self.target.linear, self.dropout if self.mode.training else 0.0)
        return (linear(inner, b) * self.scale).view(*x.shape[:-1], -1)

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y with the last change added; see method.Chainable."""
        return y + change

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + s B A, and b + s c."""
        if self.target.linear.groups > 1:
            raise UnsupportedError(
                f"the update of {self.target.path} mixes its groups, which no weight of that convolution can do"
            )
        weight = weight + self.scale * product(*self.factors())
        if self.c is None:
            return weight, bias
        c = self.scale * self.c.float()
        return weight, c if bias is None else bias + c


class RowsUpdate:
    """y + s · (B A x + c) with other matrices for each row of a batch; scales that differ are in B and c."""

    __slots__ = ("a", "b", "c", "dropout", "mode", "scale")

    def __init__(self, rows: Sequence[Update | PartsUpdate | None], dropout: float, mode: nn.Module) -> None:
        self.mode, self.dropout = mode, dropout
        factors = [None if op is None else op.whole() for op in rows]
        # Transposed here, so that no pass has to: (rows, inputs, r) and (rows, r, outputs).
        self.a, self.b = (
            stack([None if one is None else one[place] for one in factors]).transpose(1, 2) for place in (0, 1)
        )
        biased = any(one is not None and one[2] is not None for one in factors)
        self.c = stack([None if one is None else one[2] for one in factors]) if biased else None
        scales = [op.scale for op in rows if op is not None]
        is_same = all(scale == scales[0] for scale in scales)
        self.scale = scales[0] if is_same else self._scaled([0.0 if op is None else op.scale for op in rows])

    def _scaled(self, scales: Sequence[float]) -> float:
        """Put a scale of each row into B and c, and return the one that is left for all."""
        each = self.b.new_tensor(scales)
        self.b = self.b * each.view(-1, 1, 1)
        self.c = None if self.c is None else self.c * each.view(-1, 1)
        return 1.0

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (rows, …, outputs)."""
        import torch
        from torch.nn.functional import dropout

        y = forward(x)
        if self.dropout and self.mode.training:
            x = dropout(x, self.dropout)
        if x.ndim == 3:
            moved = torch.baddbmm(y, torch.bmm(x, self.a), self.b, alpha=self.scale)
        else:
            flat, inputs = (each.reshape(each.shape[0], -1, each.shape[-1]) for each in (y, x))
            moved = torch.baddbmm(flat, torch.bmm(inputs, self.a), self.b, alpha=self.scale).view(y.shape)
        return moved if self.c is None else torch.add(moved, along(self.c, moved), alpha=self.scale)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from row to row."""
        raise UnsupportedError("several adapters for the rows of one batch cannot be merged into one weight")


class PartsUpdate:
    """y + s · g(x) · B A x, part by part, each with a gate of its own where there are gates."""

    __slots__ = ("dropout", "factors", "gate", "mode", "scale", "target")

    def __init__(
        self,
        factors: Factors,
        target: Target,
        mode: nn.Module,
        *,
        scale: float,
        dropout: float,
        gate: tuple[Tensor, Tensor] | None,
    ) -> None:
        self.factors = factors
        self.target = target
        self.mode = mode
        self.scale = scale
        self.dropout = dropout
        self.gate = gate

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        import torch

        y = forward(x)
        a, b = self.factors()
        places = self.target.parts or (0,)
        h = reduced(x, a, self.target.linear, self.dropout if self.mode.training else 0.0)
        inner = list(h.view(*x.shape[:-1], a.shape[0]).chunk(len(places), -1))
        if self.gate is not None:
            inner = [h * g for h, g in zip(inner, gates(x, self.gate).split(1, -1), strict=True)]
        if not self.target.parts:
            return joined(y, inner[0], b, self.scale)
        pieces = list(y.split(self.target.part_size, dim=-1))
        for place, h, part in zip(places, inner, b.chunk(len(places)), strict=True):
            pieces[place] = joined(pieces[place], h, part, self.scale)
        return torch.cat(pieces, dim=-1)

    @property
    def alike(self) -> Hashable:
        """What updates must have in common to be computed at once, or None where that cannot be; see rows.py."""
        return ("update", self.target.path, self.dropout) if self.gate is None else None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        return (*self.factors.parameters, *(self.gate or ()))

    def stacked(self, rows: Sequence[Update | PartsUpdate | None]) -> RowsUpdate:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        return RowsUpdate(rows, self.dropout, self.mode)

    def whole(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return A and B of the whole map, without the scale; B has each part's block in its own rows and columns."""
        import torch

        a, b = self.factors()
        blocks = b.chunk(max(1, len(self.target.parts)))
        if not self.target.parts:
            return a, blocks[0], None
        found = a.new_zeros(self.target.linear.outputs, a.shape[0])
        size, r = self.target.part_size, blocks[0].shape[1]
        rows = [torch.zeros_like(found[:size]) for _ in range(len(found) // size)]
        for number, (place, block) in enumerate(zip(self.target.parts, blocks, strict=True)):
            left, right = number * r, a.shape[0] - (number + 1) * r
            rows[place] = torch.nn.functional.pad(block, (left, right))
        return a, torch.cat(rows), None

    @property
    def chains(self) -> bool:
        """Whether `adapters` puts it into compositions; see method.Chainable."""
        return not self.target.parts

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return s · g(x) · B A h (…, outputs); see method.Chainable."""
        from torch.nn.functional import linear

        a, b = self.factors()
        inner = reduced(x if h is None else h, a, self.target.linear, self.dropout if self.mode.training else 0.0)
        change = (linear(inner, b) * self.scale).view(*x.shape[:-1], -1)
        return change if self.gate is None else change * gates(x, self.gate)

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y with the last change added; see method.Chainable."""
        return y + change

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W with s B A added to the rows of each part."""
        import torch

        if self.gate is not None:
            raise gated(self.target)
        a, b = self.factors()
        count = len(self.target.parts)
        pieces = list(weight.split(self.target.part_size))
        for place, one, other in zip(self.target.parts, a.chunk(count), b.chunk(count), strict=True):
            pieces[place] = pieces[place] + self.scale * product(one, other)
        return torch.cat(pieces), bias


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


def gated(target: Target) -> UnsupportedError:
    """Return why an update with a gate cannot be merged."""
    return UnsupportedError(
        f"the update of {target.path} has a gate, which depends on the input: no weight computes the same"
    )


def reduced(x: Tensor, a: Tensor, linear: Linear, dropout: float) -> Tensor:
    """Return A x (tokens, r), of a convolution (batch, r, …), with dropout on x unless x are ids."""
    from torch.nn import functional

    if linear.kind == "embedding":
        return functional.embedding(x.reshape(-1), a.t())
    if dropout:
        x = functional.dropout(x, dropout)
    if linear.kind == "convolution":
        found: Tensor = convolution(linear)(x, a, None, linear.stride, linear.padding, linear.dilation)
        return found
    return functional.linear(x.reshape(-1, x.shape[-1]), a)


def joined(y: Tensor, h: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return y + scale · B h (…, outputs): one kernel for the product, the scale and the sum."""
    import torch

    flat = torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), b.t(), alpha=scale)
    return flat.view(y.shape)


def gates(x: Tensor, gate: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean over the tokens of sigmoid(w·x + b) (…, 1, gates)."""
    from torch.nn import functional

    return functional.linear(x, *gate).sigmoid().mean(dim=-2, keepdim=True)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return B A in float32, in the shape (outputs, inputs[, kernel])."""
    flat = b.float().flatten(1) @ a.float().flatten(1)
    found: Tensor = flat.view(flat.shape[0], *a.shape[1:])
    return found


def is_transposed(linear: Linear) -> bool:
    """Return whether the module of a map keeps its weight as (inputs, outputs)."""
    return linear.kind in ("conv1d", "embedding")


def magnitudes(weight: Tensor, linear: Linear) -> Tensor:
    """Return the norms of a weight's rows (outputs,), float32, on the CPU: what a magnitude starts from."""
    weight = readable(weight, linear.path).detach().float()
    norms: Tensor = (weight.t() if is_transposed(linear) else weight).flatten(1).norm(dim=1).cpu()
    return norms


def holds_numbers(weight: Tensor) -> bool:
    """Return whether the numbers of a weight are what they mean.

    Quantised weights are whole numbers (bitsandbytes), or a class of tensors of their own (torchao, quanto).
    """
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return weight.is_floating_point() and not is_traceable_wrapper_subclass(weight)


def readable(weight: Tensor, path: str) -> Tensor:
    """Return a weight whose numbers are what they mean.

    Raises:
        UnsupportedError: it is quantised.
    """
    if not holds_numbers(weight):
        kind = f"{type(weight).__name__}, {weight.dtype}"
        raise UnsupportedError(
            f"what the adapter computes at {path} needs the numbers of its weight, which is quantised ({kind})",
            hint="load the base model without quantisation, or take one that adds to what the map computes (lora)",
        )
    return weight


def convolution(linear: Linear) -> Callable[..., Tensor]:
    """Return torch's convolution over as many dimensions as a map's kernel has."""
    import torch

    return {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(linear.kernel)]
