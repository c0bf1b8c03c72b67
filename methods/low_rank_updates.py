"""Updates of a map by two factors, as operations: for one adapter, for the rows of a batch, part by part."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import UnsupportedError
from .linear_maps import convolution, gates, joined, product, reduced
from .rows import along, stack
from .targets import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .method import Apply


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


def gated(target: Target) -> UnsupportedError:
    """Return why an update with a gate cannot be merged."""
    return UnsupportedError(
        f"the update of {target.path} has a gate, which depends on the input: no weight computes the same"
    )
