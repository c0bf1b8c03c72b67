"""Operations of which each has its rows of a batch, at one place of the model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ..errors import UnsupportedError, UsageError
from ..methods.rows import Stackable, state
from .combined import Args, Combined, Index, Kind, Op


class Rows(Combined):
    """Each its rows of the batch; None leaves a row alone.

    Few long runs of rows are cut out of the batch. Many short ones are computed at once: operations that are alike
    get their weights stacked, one matrix for each row, so that the number of kernels does not depend on the number of
    adapters.
    """

    __slots__ = ("groups",)

    def __init__(self, kind: Kind, ops: Sequence[Op | None]) -> None:
        """Make it; ops[i] is for row i."""
        super().__init__(kind, ops)
        runs = sum(1 for _ in groupby(ops, key=id))
        self.groups = _runs(ops) if runs <= max(2, len(ops) // 8) else _alike(ops)

    def __call__(self, *args: Any) -> Tensor:
        """Return every row as its own operation makes it."""
        return self._rows("__call__", args)

    def within(self, *args: Any) -> Tensor:
        """Return what a further operation takes over."""
        return self._rows("within", args)

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return every row as its own operation maps it back; see EmbeddingOp."""
        return self._rows("inverse", (hidden,))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from row to row."""
        raise UnsupportedError("adapters for the rows of a batch cannot be merged into one weight")

    def _rows(self, way: str, args: Args) -> Tensor:
        rows = self.kind.rows(args)
        if rows != len(self.ops):
            raise UsageError(
                f"{len(self.ops)} rows have an adapter, and the batch has {rows}",
                hint="let batch_sizes, or the list of adapters, add up to the size of the batch",
            )
        if len(self.groups) == 1:
            return self.groups[0].run(self.kind, way, args)
        parts = [group.run(self.kind, way, self.kind.cut(args, group.index(args))) for group in self.groups]
        if all(group.contiguous for group in self.groups):
            return torch.cat(parts)
        return torch.cat(parts).index_select(0, self._order(parts[0].device))

    def _order(self, device: torch.device) -> Tensor:
        """Return where each row of the batch stands among the groups."""
        places = [place for group in self.groups for place in group.places]
        return torch.tensor(sorted(range(len(places)), key=places.__getitem__), device=device)


class _Group:
    """Rows that are computed at once, and how."""

    __slots__ = ("contiguous", "made", "one", "ops", "parameters", "places", "rows")

    def __init__(self, places: Sequence[int], ops: Sequence[Op | None], *, contiguous: bool) -> None:
        self.places = list(places)
        self.ops = list(ops)
        self.contiguous = contiguous
        present = {id(op): op for op in ops if op is not None}
        self.one = len(present) <= 1 and all(op is ops[0] for op in ops)
        self.parameters = [] if self.one else [p for op in present.values() for p in op.parameters]
        self.made: tuple[tuple[int, ...], Op, list[torch.UntypedStorage]] | None = None
        self.rows: Tensor | None = None

    def index(self, args: Args) -> Index:
        """Return the rows as a slice, or as a tensor on the device of the arguments."""
        if self.contiguous:
            return slice(self.places[0], self.places[-1] + 1)
        device = next(value.device for value in args if isinstance(value, Tensor))
        if self.rows is None or self.rows.device != device:
            self.rows = torch.tensor(self.places, device=device)
        return self.rows

    def run(self, kind: Kind, way: str, args: Args) -> Tensor:
        """Return what the rows become."""
        op = self.op()
        if op is None:
            return kind.nothing(*args)
        if way == "inverse":
            back: Tensor = op.inverse(*args)
            return back
        found: Tensor = op(*args) if way == "__call__" else op.within(*args)
        return found

    def op(self) -> Op | None:
        """Return one operation for all the rows."""
        if self.one:
            return self.ops[0]
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters):
            return self._stacked()
        now = () if is_compiling() else state(self.parameters)
        if self.made is None or (now and self.made[0] != now):
            with torch.no_grad():
                # The storages are held, so that no other tensor gets their address.
                self.made = (now, self._stacked(), [p.untyped_storage() for p in self.parameters])
        return self.made[1]

    def __getstate__(self) -> Any:
        """Return what a copy takes over: all but what is gathered."""
        pair: Any = super().__getstate__()  # with slots it is a pair
        return pair[0], {**pair[1], "made": None}

    def _stacked(self) -> Op:
        return next(op for op in self.ops if op is not None).stacked(self.ops)


def _runs(ops: Sequence[Op | None]) -> list[_Group]:
    """Return a group for each run of rows with the same operation."""
    groups, start = [], 0
    for _, run in groupby(ops, key=id):
        row = list(run)
        groups.append(_Group(range(start, start + len(row)), row, contiguous=True))
        start += len(row)
    return groups


_STACKABLE: dict[type, bool] = {}
"""Kind of operation → whether several can be computed at once: asking a protocol is slow, and each row is asked."""


def _is_stackable(kind: type, op: Op) -> bool:
    found = _STACKABLE.get(kind)
    if found is None:
        found = _STACKABLE[kind] = isinstance(op, Stackable)
    return found


def _alike(ops: Sequence[Op | None]) -> list[_Group]:
    """Return a group for all rows whose operations can be computed at once; rows without one join the largest."""
    found: dict[Hashable, list[int]] = {}
    for row, op in enumerate(ops):
        if op is not None:
            key = op.alike if _is_stackable(type(op), op) else None
            found.setdefault(("op", id(op)) if key is None else ("alike", key), []).append(row)
    bare = [row for row, op in enumerate(ops) if op is None]
    stackable = [rows for key, rows in found.items() if isinstance(key, tuple) and key[0] != "op"]
    if bare and stackable:
        max(stackable, key=len).extend(bare)
    elif bare:
        found["nothing"] = bare
    groups = [sorted(rows) for rows in found.values()]
    return [
        _Group(rows, [ops[row] for row in rows], contiguous=rows == list(range(rows[0], rows[-1] + 1)))
        for rows in groups
    ]
