"""Sharded: an index of one file per name, of which only those are read that are asked for.

What needs all entries (lists, searches, the nearest names) is asked of another look-up over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import UnsupportedError
from . import matching, shards
from .index import Index
from .lookup import Lookup
from .records import Entry


class Sharded(Lookup):
    """The entries of a sharded index."""

    def __init__(self, read: shards.Read, whole: Callable[[], Lookup], where: str) -> None:
        """Look names up in shards.

        Args:
            read: gives a shard.
            whole: gives a look-up over all entries; raises UnsupportedError where there is none.
            where: names the registry in errors.
        """
        self._read = read
        self._make = whole
        self._where = where
        self._known: dict[str, Index] = {}
        self._whole: Lookup | None = None

    def __len__(self) -> int:
        return len(self.whole())

    @property
    def sharded(self) -> bool:
        """Whether the entries lie in one file per name."""
        return True

    @property
    def empty(self) -> bool:
        """Whether it is known that there are no entries."""
        try:
            return not len(self)
        except UnsupportedError:
            return False

    def owners(self, name: str) -> list[str]:
        """Return the entries that name stands for; see Lookup.owners."""
        found = self._shard(name)
        if name in found.adapters:
            return [name]
        wanted = matching.folded(name)
        return sorted({*found.owners(wanted), *(one for one in found.alias_of if self._has_alias(one, wanted))})

    def of_organisations(self, name: str) -> list[str]:
        """Return such entries, or none where they cannot be listed; see Lookup.of_organisations."""
        try:
            return self.whole().of_organisations(name)
        except UnsupportedError:
            return []

    def near(self, name: str) -> list[str]:
        """Return the entries whose names come nearest, or none where they cannot be listed; see Lookup.near."""
        try:
            return self.whole().near(name)
        except UnsupportedError:
            return []

    def entry(self, name: str) -> Entry:
        """Return the entry called exactly so; see Lookup.entry."""
        return self._shard(name).entry(name)

    def names(self, beginning: str = "") -> Iterator[str]:
        """Yield the names of the entries that begin so, in their order."""
        return self.whole().names(beginning)

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
        return self.whole().search(words, task=task, base=base, method=method, license=license)

    def _has_alias(self, name: str, alias: str) -> bool:
        """Return whether an entry has an alias: a file of the alias alone may be what a process left that died."""
        found = self._shard(name).adapters
        return name in found and alias in map(matching.folded, found[name].aliases)

    def _shard(self, name: str) -> Index:
        """Return the shard of a name, read once."""
        key = matching.folded(name)
        if key not in self._known:
            self._known[key] = shards.load(key, self._read, self._where)
        return self._known[key]

    def whole(self) -> Lookup:
        """Return a look-up over all entries; see Lookup.whole."""
        if self._whole is None:
            self._whole = self._make()
        return self._whole
