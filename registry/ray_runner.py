"""The runner on a Ray cluster: the same tasks, on all machines of the cluster, done again where one of them dies.

Ray sends the function and the values, both pickled, and gives a task to another machine if the one that did it is gone.
All machines have this package, in the same version, and see the same folders where tasks read or write some.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import AdapterHubError, OfflineError, StateError, UnsupportedError, UsageError
from .tasks import Ended, Outcome, Task, attempted, unforeseen

if TYPE_CHECKING:
    from types import ModuleType

V = TypeVar("V")
T = TypeVar("T")

RETRIES = 5
"""So many machines or processes may die of a task before it counts as failed."""

REACH_SECONDS = 10.0
SHARE_OF_WAITING = 0.25
"""Of a processor, for tasks that mostly wait for others."""


@dataclass(frozen=True, slots=True)
class Ray:
    """Does tasks on a Ray cluster that this machine belongs to.

    Attributes:
        address: `host:port` of its head.
        jobs: so many tasks at a time; None is as many as the cluster has processors.
        waiting: whether tasks mostly wait for others, so that a processor does several.
    """

    address: str
    jobs: int | None = None
    waiting: bool = False

    @property
    def alone(self) -> bool:
        """False: a machine that is taken for dead may go on with a task that another one does."""
        return False

    def run(self, function: Callable[[V], T], tasks: Iterable[Task[V]]) -> Ended[V, T]:
        """Yield the tasks that have ended; see tasks.Runner.

        Raises:
            UnsupportedError: ray is not installed.
            UsageError, OfflineError: there is no cluster at the address.
        """
        with _connected(self.address) as ray:
            share = SHARE_OF_WAITING if self.waiting else 1.0
            do = ray.remote(num_cpus=share, max_retries=RETRIES)(_do).remote
            function_there, version = ray.put(function), _version()
            rest, waiting = iter(tasks), dict[Any, Task[V]]()
            while True:
                while len(waiting) < (self.jobs or self._room(ray, share)) and (task := next(rest, None)) is not None:
                    waiting[do(function_there, task.value, version)] = task
                if not waiting:
                    return
                for reference in ray.wait(list(waiting))[0]:
                    yield waiting.pop(reference), _outcome(ray, reference)

    def _room(self, ray: ModuleType, share: float) -> int:
        """Return how many tasks the cluster, as it is now, gets: some more than it can do, so that none of it rests."""
        return max(2, int(2 * ray.cluster_resources().get("CPU", 1) / share))


def _do(function: Callable[[V], T], value: V, version: str) -> Outcome[T]:
    """Return what came of a task, on the machine that does it."""
    if version != (own := _version()):
        return StateError(
            f"{socket.gethostname()} has adapterhub {own}, and not {version}",
            hint="install the same version on all machines of the cluster",
        )
    return attempted(function, value)


def _version() -> str:
    from importlib.metadata import version

    return version("adapterhub")


def _outcome(ray: ModuleType, reference: object) -> Outcome[Any]:
    """Return what came of a task that has ended."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return unforeseen(error.cause)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return AdapterHubError(
            f"Ray could not do it: {first or type(error).__name__}", hint="memory may be short: use fewer --jobs"
        )


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Yield ray, connected to a cluster; closed, what is still under way there is given up."""
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError("a Ray cluster needs ray", hint="pip install 'adapterhub[ray]'") from error
    _reach(address)
    try:
        # Without its own lines on stderr, and those of other machines.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise OfflineError(f"there is no Ray cluster at {address}: {first}", hint=START) from error
    # Ray prints what happens to its machines on stdout, which is for data.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield ray
        finally:
            ray.shutdown()


START = "start one: `ray start --head` here, `ray start --address HOST:PORT` on other machines; then --ray HOST:PORT"


def _reach(address: str) -> None:
    """Return if something listens at an address, which Ray itself would wait for minutes for.

    Raises:
        UsageError: it is no address.
        OfflineError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(f"{address!r} is not the address of a Ray cluster", hint="write HOST:PORT of its head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise OfflineError(f"there is no Ray cluster at {address}: {error}", hint=START) from error
