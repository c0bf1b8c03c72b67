"""Prefixes of several adapters at one attention.

Behind each other they are one longer prefix. Side by side they may differ in length: a shorter one is filled up, and
the rows that have it do not see the filling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UnsupportedError
from .combined import TaskIds, assigned


class StackedPrefix:
    """Prefixes in front of each other, the last one outermost."""

    __slots__ = ("bias", "length", "ops", "padded_bonus", "shift")

    def __init__(self, ops: Sequence[Any]) -> None:
        self.ops = [op for op in ops if op is not None]
        self.length: int = sum(op.length for op in self.ops)
        self.shift: int = sum(op.shift for op in self.ops)
        self.padded_bonus: float = _common(self.ops, "padded_bonus")
        self.bias: Literal["text", "all", "none"] = _common(self.ops, "bias")

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch or 1, heads, length, head size)."""
        pairs = [op(hidden) for op in reversed(self.ops)]
        rows = max(keys.shape[0] for keys, _ in pairs)
        keys, values = (torch.cat([pair[i].expand(rows, -1, -1, -1) for pair in pairs], dim=2) for i in (0, 1))
        return keys, values

    def absent(self, rows: int) -> Tensor | None:
        """Return which keys each row lacks (rows, length), None if none."""
        found = [op.absent(rows) for op in reversed(self.ops)]
        if all(one is None for one in found):
            return None
        present = [op.length for op in reversed(self.ops)]
        return torch.cat(
            [torch.zeros(rows, n, dtype=torch.bool) if a is None else a for a, n in zip(found, present, strict=True)], 1
        )


class RowsPrefix:
    """Prefixes for the rows of a batch; None is none."""

    __slots__ = ("assign", "bias", "length", "ops", "padded_bonus", "shift")

    def __init__(self, ops: Sequence[Any | None], assign: Callable[[int], Sequence[int]]) -> None:
        """Make it; assign gives the number of the operation for each of so many rows."""
        self.ops = list(ops)
        self.assign = assign
        present = [op for op in ops if op is not None]
        self.length: int = max(op.length for op in present)
        self.shift: int = _common(ops, "shift", missing=0)
        self.padded_bonus: float = _common(present, "padded_bonus")
        self.bias: Literal["text", "all", "none"] = _common(present, "bias")
        if self.bias != "text" and len({0 if op is None else op.length for op in ops}) > 1:
            raise UnsupportedError("prefixes of different lengths side by side cannot have a relative position bias")

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, heads, length, head size), zeros where a row's prefix is shorter."""
        numbers = torch.tensor(list(self.assign(hidden.shape[0])), device=hidden.device)
        found: list[tuple[Tensor, Tensor]] = []
        places: list[Tensor] = []
        for number, op in enumerate(self.ops):
            rows = (numbers == number).nonzero().squeeze(1)
            if op is not None and len(rows):
                pair = op(hidden.index_select(0, rows))
                found.append(self._filled(pair, len(rows), op.length))
                places.append(rows)
        keys, values = (torch.cat([pair[i] for pair in found]) if found else None for i in (0, 1))
        if keys is None or values is None:
            shape = next(op for op in self.ops if op is not None)(hidden)[0]
            empty = shape.new_zeros(hidden.shape[0], shape.shape[1], self.length, shape.shape[3])
            return empty, empty
        order = torch.cat(places)
        return tuple(t.new_zeros(hidden.shape[0], *t.shape[1:]).index_copy(0, order, t) for t in (keys, values))  # type: ignore[return-value]

    def _filled(self, pair: tuple[Tensor, Tensor], rows: int, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (pad(t.expand(rows, -1, -1, -1), (0, 0, self.length - length, 0)) for t in pair)
        return keys, values

    @property
    def absent_somewhere(self) -> bool:
        """Whether a row may have fewer keys than others."""
        return any(op is None or op.length < self.length for op in self.ops)

    def absent(self, rows: int) -> Tensor | None:
        """Return which keys each row lacks (rows, length), None if none."""
        lacks = [self.length if op is None else self.length - op.length for op in self.ops]
        inner = [None if op is None else op.absent(rows) for op in self.ops]
        if any(one is not None for one in inner):
            raise UnsupportedError("prefixes side by side within prefixes side by side")
        if not any(lacks):
            return None
        counts = torch.tensor([lacks[number] for number in self.assign(rows)])
        return torch.arange(self.length) < counts[:, None]


def fixed(numbers: Sequence[int]) -> Callable[[int], Sequence[int]]:
    """Return an assignment that is the same for every batch."""
    return _Fixed(list(numbers))


class _Fixed:
    __slots__ = ("numbers",)

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __call__(self, rows: int) -> Sequence[int]:
        return assigned(self.numbers, rows)


class Equal:
    """Assigns equal parts of a batch."""

    __slots__ = ("parts",)

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def __call__(self, rows: int) -> Sequence[int]:
        """Return the number of the part of each row."""
        size = rows // self.parts
        return [row // size for row in range(rows)]


class ByTask:
    """Assigns rows by their tasks."""

    __slots__ = ("ids",)

    def __init__(self, ids: TaskIds) -> None:
        self.ids = ids

    def __call__(self, rows: int) -> Sequence[int]:
        """Return the number of the task of each row."""
        found: list[int] = self.ids.get().tolist()
        return assigned(found, rows)


def _common(ops: Sequence[Any | None], name: str, missing: Any = None) -> Any:
    """Return what all prefixes have alike.

    Raises:
        UnsupportedError: they differ.
    """
    values = {missing if op is None else _value(op, name) for op in ops}
    if len(values) > 1:
        raise UnsupportedError(
            "prefixes whose positions mean different things cannot be put together",
            hint="those of `adapters` and those of PEFT stand apart",
        )
    return values.pop()


def _value(op: Any, name: str) -> Any:
    return {"bias": op.bias, "padded_bonus": op.padded_bonus, "shift": op.shift}[name]
