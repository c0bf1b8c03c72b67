"""Prefixes of several adapters at one attention: one in front of the other, or each in front of its own rows.

A row without a prefix, or with a shorter one, does not see what stands in front of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UnsupportedError, UsageError
from ..methods import Binding, Prefixed, PrefixOp
from ..methods.prefix_tuning import Bias, NoBias
from ..sites import Attention
from .combined_tasks import TaskIds

Join = Callable[[Sequence[PrefixOp | None]], PrefixOp]
"""What each child of a composition has at an attention → the prefix there."""


class Which(Protocol):
    """Tells which child of a composition each row of a batch belongs to."""

    def __call__(self, rows: int, device: torch.device) -> Tensor:
        """Return the child's number for each of so many rows (rows,)."""
        ...


class EachRow:
    """Row i belongs to child i."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, rows: int, device: torch.device) -> Tensor:
        """Return the numbers of the rows (rows,)."""
        if rows != self.count:
            raise UsageError(
                f"{self.count} rows have an adapter, and the batch has {rows}",
                hint="let batch_sizes, or the list of adapters, add up to the size of the batch",
            )
        return torch.arange(rows, device=device)


class EachPart:
    """Equal parts of the batch belong to the children in turn."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, rows: int, device: torch.device) -> Tensor:
        """Return the number of each row's part (rows,)."""
        return torch.arange(rows, device=device) // (rows // self.count)


class EachTask:
    """Rows belong to the children of their tasks."""

    __slots__ = ("ids",)

    def __init__(self, ids: TaskIds) -> None:
        self.ids = ids

    def __call__(self, rows: int, device: torch.device) -> Tensor:
        """Return the number of each row's task (rows,)."""
        found = self.ids.get().to(device)
        if len(found) != rows:
            raise UsageError(f"task_ids has {len(found)} entries, and the batch {rows} rows")
        return found


class _Joined:
    """What prefixes of several adapters have in common."""

    __slots__ = ("bias", "length", "ops", "padded_bonus", "shift")

    def __init__(self, ops: Sequence[PrefixOp | None], length: int) -> None:
        self.ops = list(ops)
        self.length = length
        ways = {(op.shift, op.bias == "text", op.padded_bonus) for op in ops if op is not None}
        if len(ways) > 1:
            raise UnsupportedError("prefixes that treat positions or padding in different ways do not go together")
        self.shift, _, self.padded_bonus = ways.pop()
        biases = {op.bias for op in ops if op is not None}
        self.bias: Bias = biases.pop() if len(biases) == 1 else "all"


class StackedPrefixes(_Joined):
    """One in front of the other."""

    __slots__ = ()

    def __init__(self, ops: Sequence[PrefixOp | None]) -> None:
        present = [op for op in ops if op is not None]
        super().__init__(present, sum(op.length for op in present))

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return keys and values of all, the last one's in front."""
        found = [op(hidden) for op in reversed(self.ops) if op is not None]
        rows = (hidden.shape[0], -1, -1, -1)
        keys = torch.cat([one.keys.expand(rows) for one in found], dim=2)
        values = torch.cat([one.values.expand(rows) for one in found], dim=2)
        if all(one.seen is None for one in found):
            return Prefixed(keys, values)
        return Prefixed(keys, values, torch.cat([_seen(one, hidden) for one in found], dim=1))


class RowPrefixes(_Joined):
    """Each in front of its own rows; None is no prefix."""

    __slots__ = ("distinct", "lengths", "places", "which")

    def __init__(self, ops: Sequence[PrefixOp | None], which: Which) -> None:
        ops, which = _row_by_row(ops, which)
        self.lengths = [0 if op is None else op.length for op in ops]
        super().__init__(ops, max(self.lengths))
        self.which = which
        self.distinct: list[PrefixOp | None] = []
        self.places: list[int] = []
        for op in ops:
            if all(op is not other for other in self.distinct):
                self.distinct.append(op)
            self.places.append(next(i for i, other in enumerate(self.distinct) if other is op))

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return every row's keys and values, filled up to the longest, and which of them it sees."""
        which = torch.tensor(self.places, device=hidden.device)[self.which(hidden.shape[0], hidden.device)]
        made = [None if op is None else op(hidden) for op in self.distinct]
        keys = self._of_rows([None if one is None else one.keys for one in made], which)
        values = self._of_rows([None if one is None else one.values for one in made], which)
        if len(set(self.lengths)) == 1 and all(one is not None and one.seen is None for one in made):
            return Prefixed(keys, values)
        nothing = torch.zeros(hidden.shape[0], self.length, dtype=torch.bool, device=hidden.device)
        seen = [nothing if one is None else self._filled(_seen(one, hidden), 1) for one in made]
        return Prefixed(keys, values, _chosen(seen, which))

    def _of_rows(self, tensors: Sequence[Tensor | None], which: Tensor) -> Tensor:
        """Return each row's tensor (rows, heads, length, head size)."""
        one = next(tensor for tensor in tensors if tensor is not None)
        nothing = one.new_zeros(1, one.shape[1], self.length, one.shape[3])
        return _chosen([nothing if t is None else self._filled(t, 2) for t in tensors], which)

    def _filled(self, tensor: Tensor, dim: int) -> Tensor:
        """Return a tensor filled up in front to the longest prefix."""
        behind = (0, 0) * (tensor.ndim - 1 - dim)
        return pad(tensor, (*behind, self.length - tensor.shape[dim], 0))


def _row_by_row(ops: Sequence[PrefixOp | None], which: Which) -> tuple[Sequence[PrefixOp | None], Which]:
    """Return what each row has where children are put together row by row themselves, else the arguments.

    Raises:
        UsageError: children that get equal parts of the batch are made for different numbers of rows.
    """
    counts = {count for op in ops if (count := _count(op))}
    if isinstance(which, EachRow):
        starts = [next(i for i, other in enumerate(ops) if other is op) for op in ops]
        return [_of_row(op, row - start) for row, (op, start) in enumerate(zip(ops, starts, strict=True))], which
    if not (isinstance(which, EachPart) and counts):
        return ops, which
    if len(counts) > 1:
        raise UsageError(f"each part of the batch has as many rows, and adapters are named for {sorted(counts)}")
    every = [_of_row(op, row) for op in ops for row in range(next(iter(counts)))]
    return every, EachRow(len(every))


def _count(op: PrefixOp | None) -> int:
    """Return for how many rows a prefix is put together row by row, 0 where it is one for all."""
    if isinstance(op, RowPrefixes) and isinstance(op.which, EachRow):
        return op.which.count
    return max(map(_count, op.ops), default=0) if isinstance(op, StackedPrefixes) else 0


def _of_row(op: PrefixOp | None, row: int) -> PrefixOp | None:
    """Return what one row has of a prefix."""
    if not _count(op):
        return op
    if isinstance(op, StackedPrefixes):
        return StackedPrefixes([_of_row(one, row) for one in op.ops])
    assert isinstance(op, RowPrefixes)  # noqa: S101
    return op.ops[row]


class Filled:
    """Prefixes of different lengths side by side whose filling is as in `adapters`; see prefix_filling.py.

    marks: the prefix, of this or another layer, whose filling the mask tells: one mask may serve several layers.
    """

    __slots__ = ("bias", "length", "marks", "op", "padded_bonus", "shift")

    def __init__(self, op: PrefixOp, bias: Bias, marks: PrefixOp | None) -> None:
        self.op = op
        self.marks = marks
        self.length = op.length
        self.shift = op.shift
        self.bias = bias
        self.padded_bonus = op.padded_bonus

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return keys and values of all, and which of them are no filling."""
        return self.op(hidden)

    def unraised(self, hidden: Tensor) -> Tensor | None:
        """Return which keys are no filling to the mask (rows, length), None for all."""
        return None if self.marks is None else self.marks(hidden).seen


def as_in_adapters(attentions: Mapping[str, PrefixOp], places: Sequence[Attention]) -> dict[str, PrefixOp]:
    """Return prefixes of which those of different lengths side by side are filled up as in `adapters`.

    places: all attentions of the model, in order. Where there is a relative position bias, bias and mask are made
    together, and anew at each layer that has more or fewer keys than the one before, without the bias then.
    """
    if any(place.bias for place in places):
        return _with_bias(attentions, places)
    return {path: Filled(op, op.bias, op) if is_uneven(op) else op for path, op in attentions.items()}


def _with_bias(attentions: Mapping[str, PrefixOp], places: Sequence[Attention]) -> dict[str, PrefixOp]:
    found, uneven = dict(attentions), any(map(is_uneven, attentions.values()))
    counting = {place.stack for place in places if place.path in found and found[place.path].bias != "text"}
    made: dict[str, PrefixOp | None] = {}
    lost: set[str] = set()
    for place in places:
        op = found.get(place.path)
        if place.stack not in made:
            made[place.stack] = op
        elif _length(made[place.stack]) != _length(op):
            made[place.stack] = op
            lost.add(place.stack)
        counts = place.bias is not None and place.stack in counting
        if op is None and counts and place.stack in lost:
            found[place.path] = NoBias()
        elif op is not None and (counts or uneven):
            bias: Bias = op.bias if not counts else "none" if place.stack in lost else "all"
            found[place.path] = Filled(op, bias, made[place.stack])
    return found


def _length(op: PrefixOp | None) -> int:
    return 0 if op is None else op.length


def without_empty(attentions: Mapping[str, PrefixOp]) -> dict[str, PrefixOp]:
    """Return the prefixes that have keys; as_in_adapters tells anew where a bias is lost."""
    return {path: op for path, op in attentions.items() if op.length}


def check_bias(attentions: Mapping[str, PrefixOp]) -> None:
    """Refuse prefixes of different lengths side by side in front of a relative position bias that counts them.

    Raises:
        UnsupportedError: there are such, or one of several alone has lost the bias; the place is named.
    """
    for path, op in attentions.items():
        if len(_biases(op)) > 1:
            raise UnsupportedError(f"prefixes that treat positions in different ways do not go together at {path}")
        if op.bias != "text" and is_uneven(op):
            raise UnsupportedError(
                f"the relative position bias at {path} counts the prefix, which must be as long in every row"
            )


def _biases(op: PrefixOp | None) -> set[str]:
    """Return what prefixes at one attention do with its relative position bias."""
    if isinstance(op, _Joined):
        return set().union(*map(_biases, op.ops))
    return set() if op is None else {op.bias}


def is_uneven(op: PrefixOp | None) -> bool:
    """Return whether prefixes of different lengths, or one and none, stand side by side."""
    if isinstance(op, RowPrefixes) and len(set(op.lengths)) > 1:
        return True
    return isinstance(op, _Joined) and any(map(is_uneven, op.ops))


def _chosen(tensors: Sequence[Tensor], which: Tensor) -> Tensor:
    """Return row i of tensor which[i] (rows, …), of tensors (rows or 1, …)."""
    rows = len(which)
    every = torch.stack([tensor.expand(rows, *tensor.shape[1:]) for tensor in tensors])
    return every[which, torch.arange(rows, device=which.device)]


def _seen(prefix: Prefixed, hidden: Tensor) -> Tensor:
    """Return which keys of a prefix each row sees (rows, length)."""
    if prefix.seen is not None:
        return prefix.seen
    return torch.ones(hidden.shape[0], prefix.keys.shape[2], dtype=torch.bool, device=hidden.device)


def together(children: Sequence[Binding], join: Join | None) -> dict[str, Any]:
    """Return the fields of a binding that say what prefixes and prompts of several adapters do.

    join: how prefixes are put together, None where they cannot be.

    Raises:
        UnsupportedError: they do not go together in this way; the place is named.
    """
    places = dict.fromkeys(path for child in children for path in child.attentions)
    if places and join is None:
        raise UnsupportedError(
            f"prefixes do not go into an average, a split or a fusion; there is one at {next(iter(places))}"
        )
    found: dict[str, Any] = {"attentions": {}}
    if join is not None:
        found["attentions"] = {path: join([child.attentions.get(path) for child in children]) for path in places}
    for field, what in (("positions", "shifted positions"), ("prompts", "prompts")):
        found[field] = _of_one(children, field, what, alone=join is StackedPrefixes)
    return found


def _of_one(children: Sequence[Binding], field: str, what: str, *, alone: bool) -> dict[str, Any]:
    """Return a field of the only child that has it.

    alone: whether one child may have it.
    """
    having = {id(getattr(child, field)): getattr(child, field) for child in children if getattr(child, field)}
    if not having:
        return {}
    if len(having) > 1 or not alone:
        path = next(iter(next(iter(having.values()))))
        raise UnsupportedError(f"{what} concern the whole batch: one adapter of a stack may have them; see {path}")
    (found,) = having.values()
    return dict(found)
