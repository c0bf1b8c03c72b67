"""Where the database of a large index lies, how it is known to belong to the index, and when it is made.

    <cache>/lookup/<digest of the index>-<layout>-<mark of the schema>.sqlite    made once, then never changed
    <cache>/lookup/<mark of the path>.stamp     how the index file looked when it was hashed, and its database
    <cache>/lookup/lock                         who is making a database; readers need no lock

A database appears in its place in one step, so that a process that dies leaves a temporary file at most. What it holds
was checked against the schema before. Where none can be kept, an index is read and checked as a whole: right, and slow.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import schemas
from ..errors import DigestError, NotFoundError, StateError
from . import atomic, digest, stamps
from .lookup import Lookup, Progress

if TYPE_CHECKING:
    import sqlite3

    from .index import Index

LARGE = 1 << 18
"""An index of fewer bytes is read as a whole by every command; that is as fast."""

NOTICED = 4
"""An index of fewer bytes than so many times LARGE is prepared, or read as a whole, before people notice."""

_LOCK_SECONDS = 300.0
_LEFTOVER_SECONDS = 24 * 3600.0


def open_index(path: Path, cache: Path, progress: Progress | None = None, expected: str = "") -> Lookup:
    """Return what an index file says, by way of a database if it is large; progress is told while one is made.

    expected: the digest that its bytes have to have, whatever was there when it was last looked at; "" is any.

    Raises:
        NotFoundError: there is no such file.
        DigestError: it has another digest.
        AdapterHubError: it cannot be read.
        FormatError: it is not JSON, or has a key twice.
        SchemaError: it breaks the schema; lists every fault.
    """
    found = _large(path, cache, progress, expected)
    if found is None:
        from .index import Index

        if not expected:
            return Index.load(path, verdicts=cache / "checked")
        data = atomic.read(path, missing=NotFoundError(f"there is no index at {path}"))
        _refuse_other(data, expected, path)
        return Index.loads(data, str(path), verdicts=cache / "checked")
    return found


def _refuse_other(data: bytes, expected: str, path: Path) -> None:
    if expected and (actual := digest.of_bytes(data)) != expected:
        raise DigestError(f"the index {path}", expected=expected, actual=actual)


def _large(path: Path, cache: Path, progress: Progress | None, expected: str) -> Lookup | None:
    """Return the database of an index, or None where it is small, or none can be kept on this machine."""
    try:
        size = path.stat().st_size
        if size < LARGE:
            return None
        import sqlite3
    except (OSError, ImportError):
        return None
    noticed = size >= NOTICED * LARGE
    try:
        return Derived(path, cache / "lookup", progress if noticed else None, expected).open()
    except (OSError, sqlite3.Error) as error:
        if noticed:
            warn(f"no look-up of {path} can be kept in {cache}, so that every command reads it as a whole: {error}")
        return None


class Derived:
    """The database that is made from one index file."""

    def __init__(self, index: Path, folder: Path, progress: Progress | None = None, expected: str = "") -> None:
        self.index = index
        self.expected = expected
        self.folder = folder
        self.progress = progress
        self.stamp = folder / f"{zlib.crc32(os.fsencode(index)):08x}.stamp"

    def open(self) -> Lookup:
        """Return the entries of the index as it is now.

        Raises:
            OSError, sqlite3.Error: the database can be neither read nor made.
            FormatError, SchemaError: the index is not valid.
        """
        from . import database

        name = _called(self.expected) if self.expected else stamps.trusted(self.stamp, self.index)
        connection = database.connect(self.folder / name) if name.endswith(suffix()) else None
        if connection is None:
            name, connection = self._hashed()
        return database.IndexDatabase(connection, lambda: self._restored(name))

    def _hashed(self) -> tuple[str, sqlite3.Connection]:
        """Return name and connection of the database that belongs to the index's bytes; it is made if need be."""
        from . import database

        data, look = stamps.read(self.index)
        _refuse_other(data, self.expected, self.index)
        name = _name(data)
        _, _, old = stamps.known(self.stamp)
        connection = database.connect(self.folder / name) or self._made(name, data, old)
        if look is not None:
            stamps.write(self.stamp, self.index, look, name)
        return name, connection

    def _made(self, name: str, data: bytes, old: str = "") -> sqlite3.Connection:
        """Return a connection to the database of that name, made from the index's bytes unless another process did."""
        import sqlite3

        from . import database

        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            connection = database.connect(self.folder / name)
            if connection is None:
                self._make(self.folder / name, data)
                self._sweep(name, old)
                connection = database.connect(self.folder / name)
        if connection is None:
            raise sqlite3.NotSupportedError("this SQLite cannot search texts")
        return connection

    def _make(self, path: Path, data: bytes) -> None:
        """Make a database under another name, and move it into its place."""
        import sqlite3
        import tempfile

        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=self.folder)
        os.close(handle)
        try:
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                self._fill(connection, data)
            with Path(temporary).open("rb+") as file:
                atomic.flush_to_disk(file.fileno())
            Path(temporary).chmod(0o444)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _fill(self, connection: sqlite3.Connection, data: bytes) -> None:
        """Fill an empty database with the index that data write, which is checked before."""
        from .index import Index

        self._fill_with(connection, lambda: Index.loads(data, what=str(self.index)))

    def _fill_with(self, connection: sqlite3.Connection, read: Callable[[], Index]) -> None:
        """Fill an empty database with the entries of the index that read gives."""
        from . import database_making
        from .index import collector_off

        database_making.prepare(connection)
        if self.progress:
            self.progress(0, 0)
        with collector_off():
            database_making.fill(connection, read().adapters.raw, self.progress)

    def _restored(self, name: str) -> sqlite3.Connection:
        """Return a connection to the database made anew: in its place, or in memory where nothing can be written.

        Raises:
            StateError: the index has changed meanwhile.
        """
        import sqlite3

        from . import database

        data, _ = stamps.read(self.index)
        if _name(data) != name:
            raise StateError(f"{self.index} was changed while it was read", hint="try again")
        try:
            with self._lock():
                (self.folder / name).unlink(missing_ok=True)
            return self._made(name, data)
        except (OSError, sqlite3.Error):
            connection = database.in_memory()
            self._fill(connection, data)
            return connection

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock of the folder; where the system has none, two processes may make the same thing.

        Raises:
            OSError: the folder cannot be written, or another process holds the lock for minutes.
        """
        from filelock import FileLock

        lock = FileLock(self.folder / "lock", timeout=_LOCK_SECONDS)
        with contextlib.suppress(NotImplementedError):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _sweep(self, current: str, old: str) -> None:
        """Remove the old database of this index, those of indexes that are gone, and what dead processes left."""
        needed = {current}
        for stamp in self.folder.glob("*.stamp"):
            index, _, name = stamps.known(stamp)
            if index == str(self.index) or not Path(index).exists():
                stamp.unlink(missing_ok=True)
            else:
                needed.add(name)
        limit = time.time() - _LEFTOVER_SECONDS
        for path in self.folder.iterdir():
            if path.suffix in {".sqlite", ".tmp"} and path.name not in needed:
                with contextlib.suppress(OSError):
                    if path.name == old or path.stat().st_mtime < limit:
                        path.unlink()


def _name(data: bytes) -> str:
    """Return the name of the database of an index."""
    return _called(digest.of_bytes(data))


def _called(known: str) -> str:
    """Return the name of the database of the index with a digest."""
    return digest.hexadecimal(known) + suffix()


def suffix() -> str:
    """Return the end of the names of databases: another one where they would be made in another way."""
    from .database import LAYOUT

    return f"-{LAYOUT}-{schemas.mark('index')}.sqlite"


def warn(message: str) -> None:
    """Tell people that something is slower than it could be."""
    import logging

    logging.getLogger("adapterhub").warning(message)
