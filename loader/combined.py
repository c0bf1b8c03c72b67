"""Operations made of several adapters' operations at one place of the model.

There is one class for each way to put them together, whatever the place: a Kind knows what the calls of its place get,
so that rows and tokens can be cut out of them. An adapter that has nothing at a place is None there: it leaves the
hidden states alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedError, UsageError
from ..methods import FusionOp, SiteOp

Op = Any
"""A SiteOp, LinearOp, BlockOp or EmbeddingOp: a callable with the arguments of its kind."""

Args = tuple[Any, ...]

Index = slice | Tensor


@dataclass(frozen=True, slots=True)
class Kind:
    """What operations at one kind of place are called with.

    Attributes:
        name: of the kind, for errors.
        batched: positions of the arguments that have a row for each example, and are tensors or None.
        nothing: arguments → what no adapter computes.
        behind: operation and arguments → the arguments for the adapter behind it.
    """

    name: str
    batched: tuple[int, ...]
    nothing: Callable[..., Tensor]
    behind: Callable[[Op, Args], Args]

    def cut(self, args: Args, index: Index, dim: int = 0) -> Args:
        """Return arguments with some rows (dim 0) or tokens (dim 1) of every tensor that has them."""
        return tuple(
            _cut(value, index, dim) if place in self.batched and value is not None else value
            for place, value in enumerate(args)
        )

    def rows(self, args: Args) -> int:
        """Return the number of rows that a call gets."""
        count: int = args[self.batched[0]].shape[0]
        return count


def _cut(value: Tensor, index: Index, dim: int) -> Tensor:
    if isinstance(index, slice):
        return value[index] if dim == 0 else value[:, index]
    return value.index_select(dim, index)


def _first(*args: Any) -> Tensor:
    found: Tensor = args[0]
    return found


def _plain(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return forward(x)


def _within(op: Op, args: Args) -> Args:
    return (op.within(*args), *args[1:])


def _around(op: Op, args: Args) -> Args:
    return (partial(op, args[0]), args[1])


def _after(op: Op, args: Args) -> Args:
    return (op(*args), *args[1:])


SITE = Kind("residual site", (0, 1), _first, _within)

LINEAR = Kind("linear map", (1,), _plain, _around)

BLOCK = Kind("layer", (0, 1, 2), _first, _after)

EMBEDDING = Kind("embedding", (0,), _first, _after)


class Combined:
    """What all of them have.

    Attributes:
        kind: what its calls get.
        ops: the operations.
        reads_residual, replaces_norm: at residual sites, as in SiteOp.
        before_output: at embeddings, as in EmbeddingOp.
    """

    __slots__ = ("before_output", "kind", "ops", "reads_residual", "replaces_norm")

    def __init__(self, kind: Kind, ops: Sequence[Op | None]) -> None:
        self.kind = kind
        self.ops: list[Any] = list(ops)
        self.reads_residual = self.replaces_norm = self.before_output = False
        present = [op for op in ops if op is not None]
        if kind is SITE:
            self.reads_residual = any(op.reads_residual for op in present)
            self.replaces_norm = self._replaces_norm(present)
        if kind is EMBEDDING:
            self.before_output = _before_output(present)

    def _replaces_norm(self, present: Sequence[Op]) -> bool:
        """Return whether the sublayer ends with what the operations return."""
        ways = {op.replaces_norm for op in present} | ({False} if len(present) < len(self.ops) else set())
        if len(ways) > 1:
            raise UnsupportedError(
                "adapters side by side must end their sublayer alike: all with the base model's norm or all without"
            )
        return True in ways


def _before_output(present: Sequence[Op]) -> bool:
    """Return whether the inverse of operations at embeddings acts in front of the model's own output embeddings."""
    ways = {op.before_output for op in present}
    if len(ways) > 1:
        raise UnsupportedError(
            "of invertible adapters put together, all or none must act in front of the model's own output embeddings"
        )
    return True in ways


class Stacked(Combined):
    """One behind the other."""

    __slots__ = ()

    def __init__(self, kind: Kind, ops: Sequence[Op | None]) -> None:
        super().__init__(kind, [op for op in ops if op is not None])

    def _replaces_norm(self, present: Sequence[Op]) -> bool:
        found: bool = present[-1].replaces_norm
        return found

    def __call__(self, *args: Any) -> Tensor:
        """Return what the last operation makes of what the others leave to it."""
        for op in self.ops[:-1]:
            args = self.kind.behind(op, args)
        found: Tensor = self.ops[-1](*args)
        return found

    def within(self, *args: Any) -> Tensor:
        """Return what a further operation takes over."""
        for op in self.ops:
            args = self.kind.behind(op, args)
        found: Tensor = args[0]
        return found

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return what all together map to hidden; see EmbeddingOp."""
        for op in reversed(self.ops):
            hidden = op.inverse(hidden)
        return hidden

    def stacked_raw(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return the last one's output without its residual connection, for a fusion."""
        for op in self.ops[:-1]:
            d = op.within(d, x, norm)
        found: Tensor = self.ops[-1].raw(self.ops[-1].prepared(d, x, norm)[0])
        return found

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias with which the plain map does the same; see LinearOp."""
        for op in self.ops:
            weight, bias = op.merged(weight, bias)
        return weight, bias


class Averaged(Combined):
    """The weighted sum of what each makes of the same."""

    __slots__ = ("weights",)

    def __init__(self, kind: Kind, ops: Sequence[Op | None], weights: Sequence[float]) -> None:
        super().__init__(kind, ops)
        self.weights = list(weights)

    def __call__(self, *args: Any) -> Tensor:
        """Return Σ w_i op_i(…)."""
        return self._sum([self.kind.nothing if op is None else op for op in self.ops], args)

    def within(self, *args: Any) -> Tensor:
        """Return what a further operation takes over."""
        return self._sum([self.kind.nothing if op is None else op.within for op in self.ops], args)

    def inverse(self, hidden: Tensor) -> Tensor:
        """Refuse: the sum of invertible maps is not invertible."""
        raise UnsupportedError("an average of invertible adapters has no inverse")

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weighted sum of the merged weights; see LinearOp."""
        pairs = [(weight, bias) if op is None else op.merged(weight, bias) for op in self.ops]
        total = sum(w * pair[0] for w, pair in zip(self.weights, pairs, strict=True))
        if all(pair[1] is None for pair in pairs):
            return torch.as_tensor(total), None
        biases = [torch.zeros(weight.shape[0]) if pair[1] is None else pair[1] for pair in pairs]
        return torch.as_tensor(total), torch.as_tensor(sum(w * b for w, b in zip(self.weights, biases, strict=True)))

    def _sum(self, ops: Sequence[Callable[..., Tensor]], args: Args) -> Tensor:
        total = ops[0](*args) * self.weights[0]
        for op, weight in zip(ops[1:], self.weights[1:], strict=True):
            total = torch.add(total, op(*args), alpha=weight)
        return total


class Parts(Combined):
    """Each its part of the sequence (dim 1), or an equal part of the batch (dim 0, sizes None)."""

    __slots__ = ("dim", "sizes")

    def __init__(self, kind: Kind, ops: Sequence[Op | None], *, dim: int, sizes: Sequence[int] | None = None) -> None:
        super().__init__(kind, ops)
        self.dim = dim
        self.sizes = None if sizes is None else list(sizes)

    def __call__(self, *args: Any) -> Tensor:
        """Return the parts, one behind the other."""
        return self._parts([self.kind.nothing if op is None else op for op in self.ops], args)

    def within(self, *args: Any) -> Tensor:
        """Return what a further operation takes over."""
        return self._parts([self.kind.nothing if op is None else op.within for op in self.ops], args)

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return every part as its own operation maps it back; see EmbeddingOp."""
        return self._parts([self.kind.nothing if op is None else op.inverse for op in self.ops], (hidden,))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from part to part."""
        raise UnsupportedError("adapters for parts of the input cannot be merged into one weight")

    def _parts(self, ops: Sequence[Callable[..., Tensor]], args: Args) -> Tensor:
        found, start = [], 0
        for op, size in zip(ops, self._sizes(args[self.kind.batched[0]].shape[self.dim]), strict=True):
            found.append(op(*self.kind.cut(args, slice(start, start + size), self.dim)))
            start += size
        return torch.cat(found, dim=self.dim)

    def _sizes(self, length: int) -> list[int]:
        """Return the size of each part of so many tokens or rows."""
        if self.sizes is None:
            return [length // len(self.ops)] * len(self.ops)
        if length != sum(self.sizes):
            raise UsageError(
                f"the splits {self.sizes} add up to {sum(self.sizes)}, and the sequence has {length} tokens",
                hint="pad or cut the input to the sum of the splits",
            )
        return self.sizes


class Fused(Combined):
    """AdapterFusion: the outputs of all mixed by their fusion layer, token by token."""

    __slots__ = ("last", "mixing")

    def __init__(self, ops: Sequence[Op], mixing: FusionOp, last: SiteOp) -> None:
        """Make it; last is the last adapter of the last child, whose configuration says what is read and added."""
        super().__init__(SITE, ops)
        self.mixing = mixing
        self.last = last

    def __call__(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return the new d (batch, sequence, width)."""
        return self.last.ended(self.within(d, x, norm), x)

    def within(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return what a further operation takes over."""
        t, r, _ = self.last.prepared(d, x, norm)
        ups = [op.stacked_raw(d, x, norm) if isinstance(op, Stacked) else op.raw(t) for op in self.ops]
        return self.mixing(d if self.mixing.reads_d else t, ups, r)
