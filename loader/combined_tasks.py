"""Operations of which each has the rows of its task, as the caller of the model names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ..errors import UnsupportedError, UsageError
from .combined import Args, Combined, Kind, Op


class TaskIds:
    """The task of each row of the batch that is being computed, as the caller gave it with the model's other inputs.

    Each thread has its own, as in site_forwards.Residual.
    """

    __slots__ = ("kept", "names")

    def __init__(self, names: Sequence[str]) -> None:
        """Make it; names are those of the tasks, in the order of their numbers."""
        self.names = list(names)
        self.kept: dict[int, Tensor] = {}

    def remember(self, given: Any, device: torch.device) -> None:
        """Remember a number or name for each row (rows,).

        Raises:
            UsageError: there are none, or one is no task.
        """
        hint = f"pass task_ids=, a number or name of {', '.join(self.names)} for each row"
        if given is None:
            raise UsageError("a multi_task composition is active, and the model was called without task_ids", hint=hint)
        if not isinstance(given, Tensor):
            strange = [task for task in given if isinstance(task, str) and task not in self.names]
            if strange:
                raise UsageError(f"no task is called {strange[0]!r}", hint=hint)
            numbers = [self.names.index(task) if isinstance(task, str) else task for task in given]
            given = torch.tensor(numbers, device=device)
        self.kept[0 if is_compiling() else get_ident()] = given

    def get(self) -> Tensor:
        """Return the number of each row's task (rows,)."""
        return self.kept[0 if is_compiling() else get_ident()]


class Tasks(Combined):
    """Each the rows of its task."""

    __slots__ = ("ids",)

    def __init__(self, kind: Kind, ops: Sequence[Op | None], ids: TaskIds) -> None:
        super().__init__(kind, ops)
        self.ids = ids

    def __call__(self, *args: Any) -> Tensor:
        """Return every row as the operation of its task makes it."""
        return self._rows([self.kind.nothing if op is None else op for op in self.ops], args)

    def within(self, *args: Any) -> Tensor:
        """Return what a further operation takes over."""
        return self._rows([self.kind.nothing if op is None else op.within for op in self.ops], args)

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return every row as the operation of its task maps it back; see EmbeddingOp."""
        return self._rows([self.kind.nothing if op is None else op.inverse for op in self.ops], (hidden,))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from row to row."""
        raise UnsupportedError("adapters for the rows of a batch cannot be merged into one weight")

    def _rows(self, ops: Sequence[Callable[..., Tensor]], args: Args) -> Tensor:
        ids = self.ids.get()
        if len(ids) != self.kind.rows(args):
            raise UsageError(f"task_ids has {len(ids)} entries, and the batch {self.kind.rows(args)} rows")
        found, places = [], []
        for number, op in enumerate(ops):
            rows = (ids == number).nonzero().squeeze(1)
            if len(rows):
                found.append(op(*self.kind.cut(args, rows)))
                places.append(rows)
        order = torch.cat(places)
        if len(order) != len(ids):
            raise UsageError(f"task_ids must lie in 0 … {len(ops) - 1}")
        return torch.cat(found).index_select(0, order.argsort())
