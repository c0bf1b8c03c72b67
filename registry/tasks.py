"""Bulk work as a list of tasks that do not depend on each other, done side by side, with one report.

A task that was done before says so in no time, so that whoever was stopped half-way starts the same list again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import AdapterHubError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    """One piece of work.

    Attributes:
        name: what it is about, for the report.
        run: does it, and returns what came of it.
    """

    name: str
    run: Callable[[], T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Generic[T]):
    """What came of all tasks, each in the order of its name.

    Attributes:
        done: name → what came of it.
        failed: name → why nothing did.
    """

    done: Mapping[str, T]
    failed: Mapping[str, AdapterHubError]


def run(tasks: Iterable[Task[T]], jobs: int, progress: Callable[[int], None] | None = None) -> Report[T]:
    """Return what came of tasks, so many of which are done at a time; one that fails does not stop the others.

    progress is told how many have ended. What is interrupted lets those that have begun end, and begins no other.
    """
    done: dict[str, T] = {}
    failed: dict[str, AdapterHubError] = {}
    rest, waiting = iter(tasks), dict[Future[T], str]()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                while len(waiting) < 2 * jobs and (task := next(rest, None)) is not None:
                    waiting[pool.submit(task.run)] = task.name
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    _note(future, waiting.pop(future), done, failed)
                if progress is not None:
                    progress(len(done) + len(failed))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Report(done=dict(sorted(done.items())), failed=dict(sorted(failed.items())))


def _note(future: Future[T], name: str, done: dict[str, T], failed: dict[str, AdapterHubError]) -> None:
    try:
        done[name] = future.result()
    except AdapterHubError as error:
        failed[name] = error
