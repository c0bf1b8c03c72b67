"""The database of a sharded index in a folder, and what has changed since it was made.

A shard is replaced by renaming another file to it, which changes the times of its folder: so only folders that look
otherwise than when the database was made are looked through, and of their files those are read that look otherwise.
Their entries go before those of the database (layered.py). Once they are many, it is made anew.

    folders    folder → how it looked
    shards     folder, file → how it looked

A folder or file so new that another change could leave it looking the same is taken for a changed one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .. import schemas
from . import atomic, digest, shards, stamps
from .database import IndexDatabase, connect
from .derived import Derived, suffix, warn
from .index import Entries, Index
from .layered import Layered
from .lookup import Lookup, Progress

JSON: TypeAlias = Any

MOST_CHANGED = (200, 50)
"""So many changed files, or one in so many, are read by every command; with more the database is made anew."""

FEW = 200
"""So many shards are read by every command; that is as fast."""

_SHOWN = 2_000
"""Files between two calls of progress."""

_TABLES = """
CREATE TABLE folders (folder TEXT PRIMARY KEY, look TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE shards (folder TEXT, file TEXT, look TEXT NOT NULL, PRIMARY KEY (folder, file)) WITHOUT ROWID;
"""
_DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Scan:
    """How the shards of a registry looked.

    Attributes:
        folders: folder → look; "" for one that is too new.
        files: (folder, file) → look, likewise.
    """

    folders: dict[str, str]
    files: dict[tuple[str, str], str]


class ShardDatabase(Derived):
    """The look-up over all shards in the folder of a registry."""

    def __init__(self, home: Path, folder: Path, progress: Progress | None = None) -> None:
        """Look up what lies below home; databases are kept in folder."""
        super().__init__(home, folder, progress)
        self._scan = Scan({}, {})
        self._name = ""

    def open(self) -> Lookup:
        """Return the entries of the shards as they are now: of a few in memory, of many by way of a database.

        Raises:
            OSError, sqlite3.Error: the database can be neither read nor made.
            FormatError, SchemaError: a shard is not valid.
        """
        stamped, _, name = stamps.known(self.stamp)
        connection = connect(self.folder / name) if stamped == str(self.index) and name.endswith(suffix()) else None
        if connection is not None:
            self._name = name
            try:
                changed = self._changed(connection)
            except _DAMAGED:
                changed = None
            if changed is not None:
                below = IndexDatabase(connection, self._anew)
                return Layered(below, changed) if changed.adapters else below
            connection.close()
        if len(found := scan(self.index).files) <= FEW:
            return self._read(found)
        return IndexDatabase(self._anew(), self._anew)

    def whole(self) -> Index:
        """Return all shards as one index in memory.

        Raises:
            FormatError, SchemaError: a shard is not valid.
            OSError: one cannot be read.
        """
        return self._read(scan(self.index).files)

    def _anew(self) -> sqlite3.Connection:
        """Return a connection to a database of the shards as they are now, in place of the one that there was."""
        if self._name:
            (self.folder / self._name).unlink(missing_ok=True)
        self._scan = scan(self.index)
        listed = [str(self.index), self._scan.folders, sorted([*key, look] for key, look in self._scan.files.items())]
        # What is too new looks always the same, and may be something else: nobody else is to take it for theirs.
        once = os.urandom(8).hex() if "" in self._scan.folders.values() else ""
        name = digest.hexadecimal(digest.of_bytes(schemas.canonical([once, listed]))) + suffix()
        _, _, old = stamps.known(self.stamp)
        connection = self._made(name, b"", old)
        stamps.write(self.stamp, self.index, [], name)
        self._name = name
        return connection

    def _fill(self, connection: sqlite3.Connection, data: bytes) -> None:
        """Fill an empty database with the entries of all shards."""
        self._fill_with(connection, lambda: self._read(self._scan.files))
        connection.executescript(_TABLES)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO folders VALUES (?, ?)", self._scan.folders.items())
        rows = ((*key, look) for key, look in self._scan.files.items())
        connection.executemany("INSERT INTO shards VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")

    def _changed(self, connection: sqlite3.Connection) -> Index | None:
        """Return the entries whose shards have changed; None where they are many, or some are gone."""
        known = dict(connection.execute("SELECT folder, look FROM folders").fetchall())
        now = dict(_folders(self.index))
        if known.keys() - now.keys():
            return None
        (total,) = connection.execute("SELECT count(*) FROM shards").fetchone()
        least, part = MOST_CHANGED
        found: list[tuple[str, str]] = []
        for folder, look in now.items():
            if look and known.get(folder) == look:
                continue
            rows = connection.execute("SELECT file, look FROM shards WHERE folder = ?", (folder,)).fetchall()
            files, before = dict(_files(self.index / folder)), dict(rows)
            if before.keys() - files.keys():
                return None
            found += [(folder, file) for file, one in files.items() if not one or before.get(file) != one]
            if len(found) > max(least, total // part):
                return None
        return self._read(found)

    def _read(self, files: Iterable[tuple[str, str]]) -> Index:
        """Return the entries in some shards."""
        found: dict[str, JSON] = {}
        for number, (folder, file) in enumerate(files):
            if self.progress and number % _SHOWN == _SHOWN - 1:
                self.progress(0, 0)
            path = self.index / folder / file
            found |= shards.parse(path.read_bytes(), str(path)).adapters.raw
        return Index(adapters=Entries(found))


def look_up(home: Path, cache: Path, progress: Progress | None = None) -> Lookup:
    """Return a look-up over all shards below home; where no database can be kept, all of it is read.

    Raises:
        FormatError, SchemaError: a shard is not valid.
        AdapterHubError: one cannot be read.
    """
    derived = ShardDatabase(home, cache / "lookup", progress)
    try:
        try:
            return derived.open()
        except (sqlite3.Error, OSError) as error:
            warn(f"no look-up of {home} can be kept in {cache}, so that every command reads all of it: {error}")
            return derived.whole()
    except OSError as error:
        raise atomic.unreadable(home, error) from error


def scan(home: Path) -> Scan:
    """Return how the shards below home look.

    Raises:
        OSError: they cannot be listed.
    """
    folders = dict(_folders(home))
    return Scan(folders, {(folder, file): look for folder in folders for file, look in _files(home / folder)})


def _folders(home: Path) -> Iterator[tuple[str, str]]:
    """Yield the folders of shards with their looks."""
    now = time.time_ns()
    if home.is_dir():
        with os.scandir(home) as entries:
            yield from ((one.name, _look(one.stat(), now)) for one in entries if len(one.name) == 2 and one.is_dir())


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the shards in a folder with their looks; what is being written is hidden."""
    now = time.time_ns()
    with os.scandir(folder) as entries:
        for one in entries:
            if one.name.endswith(".json") and not one.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    yield one.name, _look(one.stat(), now)


def _look(status: os.stat_result, now: int) -> str:
    """Return what changes when a file or folder does; "" where another change could leave it the same."""
    look = stamps.look_of(status)
    return json.dumps(look) if now - max(look[3:]) > stamps.SETTLED_NANOSECONDS else ""
