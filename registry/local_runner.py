"""Runners on this machine: threads for tasks that wait for others, processes for tasks that compute.

A process that dies (out of memory, killed) takes no task with it but the one that it died of: those that were under way
are done again one by one, each in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from ..errors import AdapterHubError
from .tasks import Ended, Outcome, Task, attempted, unforeseen

V = TypeVar("V")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Threads:
    """Does so many tasks at a time in threads of this process."""

    jobs: int

    @property
    def alone(self) -> bool:
        """True."""
        return True

    def run(self, function: Callable[[V], T], tasks: Iterable[Task[V]]) -> Ended[V, T]:
        """Yield the tasks that have ended; see tasks.Runner."""
        yield from _pooled(ThreadPoolExecutor(self.jobs), self.jobs, function, iter(tasks))


@dataclass(frozen=True, slots=True)
class Processes:
    """Does so many tasks at a time in processes of their own; a single one in this process."""

    jobs: int

    @property
    def alone(self) -> bool:
        """False: a process may live a moment longer than this one."""
        return False

    def run(self, function: Callable[[V], T], tasks: Iterable[Task[V]]) -> Ended[V, T]:
        """Yield the tasks that have ended, with a new pool whenever a process has died; see tasks.Runner."""
        if self.jobs == 1:
            yield from Threads(1).run(function, tasks)
            return
        rest = iter(tasks)
        while True:
            lost = yield from _pooled(self._pool(self.jobs), self.jobs, function, rest)
            for task in lost:
                if (yield from _pooled(self._pool(1), 1, function, iter([task]))):
                    yield task, AdapterHubError("its process died", hint="memory may be short: use fewer --jobs")
            if not lost:
                return

    def _pool(self, jobs: int) -> ProcessPoolExecutor:
        """Return a pool that can start processes.

        Raises:
            AdapterHubError: none starts, as where the main module does things when it is imported.
        """
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(threads,))
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:
            raise AdapterHubError("no other process can be started here", hint="use --jobs 1") from error
        return pool


def _pooled(
    pool: Executor, jobs: int, function: Callable[[V], T], rest: Iterator[Task[V]]
) -> Generator[tuple[Task[V], Outcome[T]], None, list[Task[V]]]:
    """Yield the tasks that have ended, and return those that were under way when a process of the pool died.

    Interrupted, it begins no other, and lets those that have begun end, which are yielded too.
    """
    waiting: dict[Future[Outcome[T]], Task[V]] = {}
    lost: list[Task[V]] = []
    try:
        while True:
            while not lost and len(waiting) < 2 * jobs and (task := next(rest, None)) is not None:
                waiting[_submitted(pool, function, task.value)] = task
            if not waiting:
                return lost
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                task = waiting.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(task)
                else:
                    yield task, _outcome(future)
    except KeyboardInterrupt:
        pool.shutdown(wait=True, cancel_futures=True)
        whole = [future for future in waiting if not future.cancelled() and future.exception() is None]
        yield from ((waiting[future], future.result()) for future in whole)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: Executor, function: Callable[[V], T], value: V) -> Future[Outcome[T]]:
    """Return a task that was handed to a pool; one that has just broken says so when the task is asked for."""
    try:
        return pool.submit(attempted, function, value)
    except BrokenProcessPool as error:
        broken: Future[Outcome[T]] = Future()
        broken.set_exception(error)
        return broken


def _outcome(future: Future[Outcome[T]]) -> Outcome[T]:
    error = future.exception()
    if isinstance(error, Exception):
        return unforeseen(error)
    return future.result()


def _begin(threads: int) -> None:
    """Make this process one that does tasks: Ctrl-C is its parent's matter, with which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if not os.environ.get("ADAPTERHUB_DEBUG"):
        warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
