"""From the entries of an index to the database in which they are looked up; database.py reads it.

entries       number in the order of the names → name; task and license as they are compared
documents     number → entry as JSON, check sum of that
spellings     every name and alias, folded → number of the entry, in order
kinds         every base model, architecture and method that goes together
artifacts     kind → numbers of the entries that have an artifact of it
words         index of the plain words in three fields of an entry
letters       index of the groups of three letters in spellings
frequencies   group of three letters → number of spellings that have it
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from . import matching, nearest
from .database import APPLICATION, LAYOUT
from .lookup import Progress

JSON: TypeAlias = Any

STEP = 2_000
"""Entries between two calls of progress."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_TABLES = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
PRAGMA user_version = {LAYOUT};
PRAGMA application_id = {APPLICATION};
CREATE TABLE entries (id INTEGER PRIMARY KEY, name TEXT NOT NULL, task TEXT NOT NULL, license TEXT NOT NULL);
CREATE TABLE documents (id INTEGER PRIMARY KEY, json BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE spellings (id INTEGER PRIMARY KEY, spelling TEXT NOT NULL, entry INTEGER NOT NULL);
CREATE TABLE kinds (id INTEGER PRIMARY KEY, base TEXT NOT NULL, architecture TEXT NOT NULL, method TEXT NOT NULL);
CREATE TABLE artifacts (kind INTEGER NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (kind, entry)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (names, about, rest, tokenize = 'ascii', content = '', columnsize = 0);
CREATE VIRTUAL TABLE letters USING fts5 (spelling, tokenize = 'trigram', content = '', detail = none, columnsize = 0);
CREATE TABLE frequencies (letters TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE temp.counted USING fts5vocab (main, letters, row);
"""
_INDEXES = (
    "CREATE UNIQUE INDEX entries_by_name ON entries (name)",
    "CREATE UNIQUE INDEX spellings_in_order ON spellings (spelling, entry)",
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database.

    Raises:
        sqlite3.Error: it cannot be written, or SQLite lacks a part.
    """
    connection.executescript(_TABLES)


def fill(connection: sqlite3.Connection, entries: Mapping[str, JSON], progress: Progress | None = None) -> None:
    """Fill prepared tables with the checked JSON of entries; the same entries always get the same numbers.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    connection.execute("BEGIN")
    names = sorted(entries)
    numbers = {name: number for number, name in enumerate(names)}
    shown = enumerate(names) if progress is None else _showing(names, progress)
    _fill(connection, "documents", 3, ((number, *_document(entries[name])) for number, name in shown))
    _fill(connection, "entries", 4, ((number, name, *_facets(entries[name])) for number, name in enumerate(names)))
    _fill_spellings(connection, entries, numbers)
    _fill_kinds(connection, entries, names)
    fields = ((number, *_indexed(name, entries[name])) for number, name in enumerate(names))
    connection.executemany("INSERT INTO words (rowid, names, about, rest) VALUES (?, ?, ?, ?)", fields)
    for statement in _INDEXES:
        connection.execute(statement)
    connection.execute("COMMIT")


def _fill(connection: sqlite3.Connection, table: str, columns: int, rows: Iterable[tuple[object, ...]]) -> None:
    """Insert rows into one of the tables."""
    places = ", ".join("?" * columns)
    connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 - one of our own tables


def _showing(names: list[str], progress: Progress) -> Iterator[tuple[int, str]]:
    """Yield the numbered names, and tell progress how far they are."""
    for number, name in enumerate(names):
        if number % STEP == 0:
            progress(number, len(names))
        yield number, name


def _document(entry: JSON) -> tuple[bytes, int]:
    """Return an entry as JSON, and its check sum."""
    data = _ENCODE(entry).encode()
    return data, zlib.crc32(data)


def _facets(entry: JSON) -> tuple[str, str]:
    return matching.task_path(entry.get("task", "")), entry.get("license", "").casefold()


def _indexed(name: str, entry: JSON) -> tuple[str, ...]:
    """Return the fields of an entry as they are indexed: in ASCII the tokenizer itself makes texts plain."""
    return tuple(
        matching.BETWEEN.join(text if text.isascii() else matching.plain(text) for text in texts)
        for texts in matching.fields(name, entry)
    )


def _fill_spellings(connection: sqlite3.Connection, entries: Mapping[str, JSON], numbers: Mapping[str, int]) -> None:
    pairs = sorted((spelling, numbers[name]) for spelling, name in matching.spellings(entries))
    _fill(connection, "spellings", 3, ((number, *pair) for number, pair in enumerate(pairs)))
    bounded = ((number, nearest.bounded(spelling)) for number, (spelling, _) in enumerate(pairs))
    connection.executemany("INSERT INTO letters (rowid, spelling) VALUES (?, ?)", bounded)
    connection.execute("INSERT INTO frequencies SELECT term, doc FROM counted")


def _fill_kinds(connection: sqlite3.Connection, entries: Mapping[str, JSON], names: list[str]) -> None:
    kinds: dict[matching.Kind, int] = {}
    pairs = [
        (kinds.setdefault(kind, len(kinds)), number)
        for number, name in enumerate(names)
        for kind in matching.kinds(entries[name])
    ]
    _fill(connection, "kinds", 4, ((number, *kind) for kind, number in kinds.items()))
    _fill(connection, "artifacts", 2, sorted(pairs))
