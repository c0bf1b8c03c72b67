"""Bulk work as a list of tasks that do not depend on each other, done side by side, with one report.

A task is a name and a plain value; one pure function does them all. Both can be sent to another process or machine:
who does that is a runner's matter (local_runner.py, ray_runner.py). What was done before is known by a memory, so that
whoever was stopped half-way starts the same list again and goes on.

    tasks → memory.recall → runner: function(value) → memory.keep → report
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from ..errors import AdapterHubError

V = TypeVar("V")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task(Generic[V]):
    """One piece of work.

    Attributes:
        name: what it is about, for the report; no two tasks of a list have the same.
        value: what the function is called with; it can be pickled.
    """

    name: str
    value: V


Outcome: TypeAlias = T | AdapterHubError
"""What came of a task, or why nothing did."""

Ended: TypeAlias = Generator[tuple[Task[V], Outcome[T]], None, None]
"""Tasks with what came of them, in the order in which they end."""


class Runner(Protocol):
    """Does tasks, several at a time."""

    @property
    def alone(self) -> bool:
        """Whether no task is done twice at the same time, and none when this process has died."""
        ...

    def run(self, function: Callable[[V], T], tasks: Iterable[Task[V]]) -> Ended[V, T]:
        """Yield each task when it has ended, with what came of it.

        Tasks are taken from the iterable when there is room for them. Closed before its end, no other task begins.
        """
        ...


class Memory(Protocol[V, T]):
    """Knows what was done before. Both methods are called in the process of the list, one at a time."""

    def recall(self, task: Task[V]) -> T | None:
        """Return what came of a task that was done before, or None."""
        ...

    def keep(self, task: Task[V], result: T) -> None:
        """Note what came of a task; when this returns, the task is not done again, whoever is killed."""
        ...


class Nothing:
    """The memory of work that is not resumed."""

    def recall(self, task: Task[V]) -> None:
        """Return None."""

    def keep(self, task: Task[V], result: object) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Generic[T]):
    """What came of all tasks, each in the order of its name.

    Attributes:
        done: name → what came of it.
        skipped: name → what came of it when it was done before.
        failed: name → why nothing did.
    """

    done: Mapping[str, T]
    skipped: Mapping[str, T]
    failed: Mapping[str, AdapterHubError]

    def but(self, failed: Mapping[str, AdapterHubError]) -> Report[T]:
        """Return a report in which these failed after all."""
        done = {name: result for name, result in self.done.items() if name not in failed}
        skipped = {name: result for name, result in self.skipped.items() if name not in failed}
        return Report(done=done, skipped=skipped, failed=_sorted({**self.failed, **failed}))


def run(
    function: Callable[[V], T],
    tasks: Iterable[Task[V]],
    runner: Runner,
    *,
    memory: Memory[V, T] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report[T]:
    """Return what came of tasks; one that fails does not stop the others.

    Args:
        function: does a task; it can be pickled, and what it does may be done twice.
        tasks: the tasks; an endless list of them needs no more memory than their report.
        runner: who does them.
        memory: knows which were done before.
        progress: is told how many have ended.
    """
    memory = Nothing() if memory is None else memory
    done: dict[str, T] = {}
    skipped: dict[str, T] = {}
    failed: dict[str, AdapterHubError] = {}

    def tell() -> None:
        if progress is not None:
            progress(len(done) + len(skipped) + len(failed))

    def todo() -> Iterator[Task[V]]:
        for task in tasks:
            if (known := memory.recall(task)) is None:
                yield task
                continue
            skipped[task.name] = known
            tell()

    with contextlib.closing(runner.run(function, todo())) as ended:
        for task, outcome in ended:
            if isinstance(outcome, AdapterHubError):
                failed[task.name] = outcome
            else:
                memory.keep(task, outcome)
                done[task.name] = outcome
            tell()
    return Report(done=_sorted(done), skipped=_sorted(skipped), failed=_sorted(failed))


def attempted(function: Callable[[V], T], value: V) -> Outcome[T]:
    """Return what a function makes of a value, or the error that it raises on purpose."""
    try:
        return function(value)
    except AdapterHubError as error:
        return error


def unforeseen(error: BaseException) -> AdapterHubError:
    """Return the error that says that a task failed as nobody foresaw: one artifact does not stop the others."""
    text = " ".join(str(error).split())
    return AdapterHubError(
        f"internal error: {type(error).__name__}{f': {text}' if text else ''}",
        hint="do it for this one alone with ADAPTERHUB_DEBUG=1 to see where",
    )


def _sorted(found: Mapping[str, T]) -> dict[str, T]:
    return dict(sorted(found.items()))
