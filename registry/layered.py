"""Layered: the entries of a database, some of which have changed since; these are in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from . import matching, nearest
from .database import IndexDatabase
from .index import Index
from .lookup import Lookup
from .records import Entry


class Layered(Lookup):
    """What a database and an index of the entries that have changed since say together."""

    def __init__(self, below: IndexDatabase, above: Index) -> None:
        """Look entries up in above first, then below."""
        self._below = below
        self._above = above
        self._new = sum(not below.has(name) for name in above.adapters)

    def __len__(self) -> int:
        return len(self._below) + self._new

    def owners(self, name: str) -> list[str]:
        """Return the entries that name stands for; see Lookup.owners."""
        above, below = self._above.owners(name), self._below.owners(name)
        if name in (*above, *below):
            return [name]
        return sorted({*above, *self._unchanged(below)})

    def of_organisations(self, name: str) -> list[str]:
        """Return the entries with an alias that is name and an organisation; see Lookup.of_organisations."""
        below = self._unchanged(self._below.of_organisations(name))
        return sorted({*self._above.of_organisations(name), *below})

    def near(self, name: str) -> list[str]:
        """Return the entries whose names come nearest: the nearest of those of both; see Lookup.near."""
        names = {*self._above.near(name), *self._below.near(name, without=self._above.adapters)}
        entries = {near: self.entry(near).to_json() for near in names}
        return nearest.among(matching.folded(name), sorted(matching.spellings(entries)))

    def entry(self, name: str) -> Entry:
        """Return the entry called exactly so; see Lookup.entry."""
        return self._above.entry(name) if name in self._above.adapters else self._below.entry(name)

    def names(self, beginning: str = "") -> Iterator[str]:
        """Yield the names of the entries that begin so, in their order."""
        return heapq.merge(self._above.names(beginning), self._unchanged(self._below.names(beginning)))

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
        below = self._below.ranked(words, task=task, base=base, method=method, license=license)
        kept = [(group, name) for group, name in below if name not in self._above.adapters]
        entries = self._above.adapters.raw
        above = matching.ranked(entries, words, task=task, base=base, method=method, license=license)
        return (name for _, name in heapq.merge(above, kept))

    def _unchanged(self, names: Iterator[str] | list[str]) -> Iterator[str]:
        return (name for name in names if name not in self._above.adapters)
