"""Growing: a folder that becomes a registry while tasks bring adapters into it, whoever is stopped half-way.

    <work>/lock     held by the one process that makes a list of tasks of it
    <work>/token    tells a task on another machine that it sees the same folder

Only that process writes the index: one in a single file now and then and at the end, a sharded one with each task, a
few shards at a time. What it had no time to write is known by the files that lie there, or by a journal. What cannot be
entered, because it contradicts what is there, does not keep the others out.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from ..errors import AdapterHubError, NotFoundError, SchemaError, StateError
from . import atomic, editing, sharding, shards
from .index import Entries, Index
from .records import Entry
from .registry import INDEX

WRITE_SECONDS = 30.0
"""So often an index in one file is written."""

AT_ONCE = 8
"""So many shards are written at a time: the disk takes its time for each."""

Change: TypeAlias = Callable[[Entry | None], Entry]
"""Takes the entry of a name as it is there, or None, and returns what it is to be."""


@dataclass(frozen=True, slots=True)
class Spot:
    """The folder, for tasks: a plain value.

    Attributes:
        folder: its absolute path.
        work: the folder in it for what is not finished.
        token: what lies there while the list of tasks is done.
        alone: whether one process brings things there; see tasks.Runner.
    """

    folder: Path
    work: str
    token: str
    alone: bool

    def check(self) -> None:
        """Return if this is the folder that was meant.

        Raises:
            StateError: this machine has another one of the same path, or another list of tasks has begun.
        """
        place = self.folder / self.work / "token"
        missing = NotFoundError(f"there is no {place}")
        with contextlib.suppress(NotFoundError):
            if atomic.read(place, missing=missing) == self.token.encode():
                return
        raise StateError(
            f"{self.folder} is not the same folder on all machines of the cluster",
            hint="name one that they share, such as a network file system",
        )

    def temporary(self, mark: str, ending: str) -> Path:
        """Return a path for what is not finished: the same again for the same mark where only one process writes it."""
        own = "" if self.alone else f"-{os.urandom(8).hex()}"
        return self.folder / self.work / f"{mark}{own}{ending}"


@dataclass(frozen=True, slots=True)
class Entering:
    """One change of the index.

    Attributes:
        task: name of the task that it comes of.
        name: name of the entry.
        aliases: all other names that the entry has then.
        change: what it is to be.
    """

    task: str
    name: str
    aliases: tuple[str, ...]
    change: Change


@dataclass(slots=True)
class Growing:
    """The folder, for the process that has the list of tasks.

    Attributes:
        spot: the same for tasks.
        index: what its index said at the beginning.
        refused: name of a task → why what came of it could not be entered.
    """

    spot: Spot
    index: Index
    refused: dict[str, AdapterHubError] = field(default_factory=dict)
    _pending: list[Entering] = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))
    _under_way: deque[Future[None]] = field(default_factory=deque)

    def entry(self, name: str) -> Entry | None:
        """Return what the folder had of an entry at the beginning; of a sharded index, what it has now."""
        return entry_of(self.spot.folder, self.index, name)

    def enter(self, entering: Entering) -> None:
        """Change an entry of the index, at once or later."""
        if self.index.sharded:
            self._under_way.append(self._pool.submit(self._edit, [entering]))
            if len(self._under_way) > 2 * AT_ONCE:
                self._under_way.popleft().result()
            return
        self._pending.append(entering)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was not yet written."""
        while self._under_way:
            self._under_way.popleft().result()
        self._edit(self._pending)
        self._pending.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write what was not yet written, and end."""
        with self._pool:
            self.write()

    def _edit(self, changes: list[Entering]) -> None:
        """Write changes; where they contradict what is there, all of them but those that do."""
        if not changes:
            return
        names = [name for one in changes for name in (one.name, *one.aliases)]
        try:
            editing.edit(self.spot.folder / INDEX, names, lambda index: _changed(index, changes), create=True)
        except (SchemaError, StateError) as error:
            if len(changes) == 1:
                self.refused[changes[0].task] = error
                return
            half = len(changes) // 2
            self._edit(changes[:half])
            self._edit(changes[half:])


@contextlib.contextmanager
def growing(folder: Path, work: str, *, sharded: bool, alone: bool) -> Iterator[Growing]:
    """Yield a folder that nobody else fills meanwhile; its index is made where there is none.

    Args:
        folder: the folder.
        work: the folder in it for what is not finished.
        sharded: whether an index that is made is one of one file per name.
        alone: as in Spot.

    Raises:
        StateError: another process fills it.
        AdapterHubError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    home = folder.absolute() / work
    spot = Spot(folder.absolute(), work, os.urandom(16).hex(), alone)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        what = work.strip(".")
        raise StateError(f"another process {what}s to {folder}", hint="wait for it to end") from error
    except OSError as error:
        raise atomic.unwritable(home, error) from error
    try:
        for left in (path for path in home.iterdir() if "-" in path.name):
            _remove(left)
        atomic.write(home / "token", spot.token.encode())
        found = Growing(spot, _prepared(folder, sharded=sharded))
        try:
            yield found
        finally:
            (home / "token").unlink(missing_ok=True)
            found.close()
    finally:
        lock.release()


def entry_of(folder: Path, index: Index, name: str) -> Entry | None:
    """Return the entry that the registry in a folder has of a name; index: what its index file says."""
    if index.sharded:
        index = shards.partial([name], editing.reader(folder), str(folder))
    return index.adapters.get(name)


def _prepared(folder: Path, *, sharded: bool) -> Index:
    place = folder / INDEX
    if not place.is_file() and sharded:
        sharding.shard(folder)
    elif not place.is_file():
        Index().write(place)
    return editing.load(place)


def _changed(index: Index, changes: list[Entering]) -> Index:
    """Return an index with some entries changed, each as it is there now."""
    found: dict[str, Entry | None] = {}
    for one in changes:
        found[one.name] = one.change(found[one.name] if one.name in found else index.adapters.get(one.name))
    raw = {name: entry.to_json() for name, entry in found.items() if entry is not None}
    return replace(index, adapters=Entries({**index.adapters.raw, **raw}))


def _remove(left: Path) -> None:
    """Remove what a dead process left."""
    import shutil

    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
