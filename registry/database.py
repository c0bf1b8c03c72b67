"""A large index as a SQLite file: names, words and filters are looked up in it without reading the rest.

It is made from one index by database_making.py and never changes afterwards; derived.py says where it lies and when it
is made. Whatever is wrong with the file is found by SQLite or by the check sum of each entry, and it is made anew.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from . import matching
from .lookup import Lookup
from .records import Entry

LAYOUT = 1
"""Version of the tables; databases with another one are made anew."""

APPLICATION = 0x41484C55
"""What SQLite calls the application's id: "AHLU"."""

SQLITE = (3, 34)
"""The first version with the index of groups of three letters."""

_LATER = "\U0010ffff"
"""Comes after every character of a name."""

_STEP = 1_000
"""Names that are read at once."""

_MOST_ROWS = 20_000
"""Rows that are counted at most to find the nearest names."""

_DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What is raised where a file is no database any more; the second where not even its error message can be read."""

Row: TypeAlias = tuple[Any, ...]


class IndexDatabase(Lookup):
    """The entries of an index in a database."""

    def __init__(self, connection: sqlite3.Connection, restore: Callable[[], sqlite3.Connection]) -> None:
        """Look things up over a connection; restore gives another one to the same entries, if it turns out damaged."""
        self._connection = connection
        self._restore = restore

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM entries")[0][0])

    def has(self, name: str) -> bool:
        """Return whether an entry is called exactly so."""
        return bool(self._rows("SELECT 1 FROM entries WHERE name = ?", name))

    def owners(self, name: str) -> list[str]:
        """Return the entries that name stands for; see Lookup.owners."""
        if self.has(name):
            return [name]
        return self._called(matching.folded(name))

    def of_organisations(self, name: str) -> list[str]:
        """Return the entries with an alias that is name and an organisation; see Lookup.of_organisations."""
        beginning = f"{matching.folded(name)}@"
        found = (
            "SELECT DISTINCT name FROM spellings JOIN entries ON entries.id = entry "
            "WHERE spelling > ? AND spelling < ? ORDER BY name"
        )
        return [owner for (owner,) in self._rows(found, beginning, beginning + _LATER)]

    def near(self, name: str, without: Collection[str] = ()) -> list[str]:
        """Return the entries whose names come nearest, but for some of them; see Lookup.near."""
        from . import nearest

        wanted = matching.folded(name)
        containing = (
            "SELECT name FROM entries WHERE id IN (SELECT entry FROM spellings WHERE instr(spelling, ?)) "
            "AND name NOT IN (SELECT value FROM json_each(?)) ORDER BY length(name), name LIMIT ?"
        )
        if parts := self._rows(containing, wanted, json.dumps([*without]), nearest.NEAREST):
            return [part for (part,) in parts]
        if len(wanted) > nearest.LONGEST:
            return []
        candidates = self._candidates(nearest.groups(wanted), nearest.CANDIDATES)
        if without:
            candidates = [spelling for spelling in candidates if {*self._called(spelling)}.difference(without)]
        similar = nearest.most_similar(wanted, candidates)
        owners = nearest.once(owner for spelling in similar for owner in self._called(spelling))
        return [owner for owner in owners if owner not in without][: nearest.NEAREST]

    def entry(self, name: str) -> Entry:
        """Return the entry called exactly so; see Lookup.entry."""
        query = "SELECT json, checksum FROM entries JOIN documents USING (id) WHERE name = ?"
        for data, checksum in self._rows(query, name):
            if zlib.crc32(data) == checksum:
                return Entry.from_json(json.loads(data))
            self._replace()
            ((data, _),) = self._rows(query, name)
            return Entry.from_json(json.loads(data))
        raise KeyError(name)

    def names(self, beginning: str = "") -> Iterator[str]:
        """Yield the names of the entries that begin so, in their order."""
        if self.has(beginning):
            yield beginning
        query, last = "SELECT name FROM entries WHERE name > ? AND name < ? ORDER BY name LIMIT ?", beginning
        while rows := self._rows(query, last, beginning + _LATER, _STEP):
            yield from (name for (name,) in rows)
            last = rows[-1][0]

    def search(
        self,
        words: Sequence[str] = (),
        *,
        task: str | None = None,
        base: str | None = None,
        method: str | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
    ) -> Iterator[str]:
        """Yield the names of the entries that all words and filters fit, best first; see Lookup.search."""
        found = self.ranked(words, task=task, base=base, method=method, license=license)
        return iter([name for _, name in found])

    def ranked(
        self,
        words: Sequence[str],
        *,
        task: str | None,
        base: str | None,
        method: str | None,
        license: str | None,  # noqa: A002 - the field's name
    ) -> list[tuple[int, str]]:
        """Return (group, name) of the entries that all words and filters fit, in their order; see matching.ranked."""
        wanted = matching.phrases(words)
        if words and not wanted:
            return []
        hits, values = _hits(wanted, matching.folded(" ".join(words)))
        conditions = ["1"]
        if task is not None:
            conditions.append("substr(task, 1, ?) = ?")
            values += [len(matching.task_path(task)), matching.task_path(task)]
        if license is not None:
            conditions.append("license = ?")
            values.append(license.casefold())
        if base is not None or method is not None:
            conditions.append("id IN (SELECT entry FROM artifacts WHERE kind IN (SELECT value FROM json_each(?)))")
            values.append(json.dumps(self._kinds(base, method)))
        query = " ".join([hits, "WHERE", " AND ".join(conditions), "GROUP BY id ORDER BY min(place), id"])
        return [(group, name) for name, group in self._rows(query, *values)]

    def _kinds(self, base: str | None, method: str | None) -> list[int]:
        """Return the numbers of the kinds of artifacts that are for the base model and of the method."""
        rows = self._rows("SELECT id, base, architecture, method FROM kinds")
        return [
            number
            for number, known, architecture, configuration in rows
            if matching.fits((known, architecture, configuration), base, method)
        ]

    def _candidates(self, groups: Sequence[str], most: int) -> list[str]:
        """Return the spellings that share most with these groups of letters, the rare ones of which are looked up."""
        counts: Counter[int] = Counter()
        rows = 0
        for frequency, group in sorted(self._frequencies(groups)):
            rows += frequency
            if counts and rows > _MOST_ROWS:
                break
            found = "SELECT rowid FROM letters WHERE letters MATCH ? LIMIT ?"
            counts.update(number for (number,) in self._rows(found, _quoted(group), _MOST_ROWS))
        ranked = sorted(counts, key=lambda number: (-counts[number], number))[:most]
        spelled = "SELECT spelling FROM spellings WHERE id = ?"
        return [spelling for number in ranked for (spelling,) in self._rows(spelled, number)]

    def _frequencies(self, groups: Sequence[str]) -> list[tuple[int, str]]:
        """Return (number of spellings that have it, group) for the groups that there are."""
        found = "SELECT count, letters FROM frequencies WHERE letters = ?"
        return [(count, letters) for group in groups for count, letters in self._rows(found, group)]

    def _called(self, spelling: str) -> list[str]:
        """Return the entries that have a spelling, sorted."""
        found = "SELECT name FROM spellings JOIN entries ON entries.id = entry WHERE spelling = ? ORDER BY entry"
        return [name for (name,) in self._rows(found, spelling)]

    def _rows(self, query: str, *values: object) -> list[Row]:
        """Return the rows that answer a query; where the database turns out damaged, it is made anew first."""
        sent = [value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values]
        try:
            return self._connection.execute(query, sent).fetchall()
        except _DAMAGED:
            self._replace()
            return self._connection.execute(query, sent).fetchall()

    def _replace(self) -> None:
        """Go on with a database that is made anew."""
        self._connection.close()
        self._connection = self._restore()


class Connection(sqlite3.Connection):
    """A connection that ends with whoever looks something up over it."""

    def __del__(self) -> None:
        """Close the file."""
        self.close()


def in_memory() -> sqlite3.Connection:
    """Return a connection to a new database in memory, in which there is nothing yet."""
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Connection)


def connect(path: Path) -> sqlite3.Connection | None:
    """Return a connection to the database at path, or None where there is none of this layout or SQLite lacks a part.

    The file never changes, so it is read without locks, also where nothing can be written.
    """
    if sqlite3.sqlite_version_info < SQLITE or not path.is_file():
        return None
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, factory=Connection)
    try:
        questions = ("user_version", "application_id", "page_size")
        layout, application, page = (connection.execute(f"PRAGMA {one}").fetchone()[0] for one in questions)
        capable = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
        if capable and (layout, application, path.stat().st_size % page) == (LAYOUT, APPLICATION, 0):
            return connection
    except _DAMAGED:
        pass
    connection.close()
    return None


_ALL = "SELECT name, min(place) FROM (SELECT *, ? AS place FROM entries)"
_FITTING = """
SELECT name, min(place) FROM (
    SELECT entry AS id, ? AS place FROM spellings WHERE spelling = ?
    UNION ALL SELECT rowid, ? FROM words WHERE words MATCH ?
    UNION ALL SELECT rowid, ? FROM words WHERE words MATCH ?
    UNION ALL SELECT rowid, ? FROM words WHERE words MATCH ?
    UNION ALL SELECT rowid, ? FROM words WHERE words MATCH ?
) JOIN entries USING (id)
"""


def _hits(wanted: Sequence[str], exact: str) -> tuple[str, list[object]]:
    """Return the query for the entries that all words fit with their places, up to its conditions, and its values."""
    if not wanted:
        return _ALL, [matching.OTHER]
    every = " AND ".join(f"{_quoted(word)}*" for word in wanted)
    some = " OR ".join(f"{_quoted(word)}*" for word in wanted)
    return _FITTING, [
        *(matching.EXACT, exact),
        *(matching.NAMED, f"{{names}} : ({every})"),
        *(matching.PARTLY_NAMED, f"({{names}} : ({some})) AND ({every})"),
        *(matching.DESCRIBED, f"{{names about}} : ({every})"),
        *(matching.OTHER, every),
    ]


def _quoted(text: str) -> str:
    """Return a text as a string of the language of MATCH, in which nothing has a meaning.

    >>> _quoted('say "x" OR')
    '"say ""x"" OR"'
    """
    return '"' + text.replace('"', '""') + '"'
