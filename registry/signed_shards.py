"""Signed shards: those of a sharded index that must be signed, each held against the tree that the snapshot names.

What is asked for by name costs the few nodes above it, once. Lists and searches come from a database that is made for
one root of the tree; of the next root only the shards are read in which the trees differ. In a folder all shards are
read at first, over the network the packed index, whose entries have to be those of the tree.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..errors import DigestError, IntegrityError, NotFoundError, OfflineError
from . import derived, digest, digest_tree, shard_database, shards, snapshots, stamps
from .database import IndexDatabase, connect
from .derived import Derived, suffix
from .index import Entries, Index
from .layered import Layered
from .lookup import Lookup, Progress

JSON: TypeAlias = Any
T = TypeVar("T")

HINT = "it was changed after it was signed; who keeps it signs it with `adapterhub index sign`"
FEW = 200
"""So many entries are kept in memory."""


class SignedShards:
    """The shards that a root stands for."""

    def __init__(
        self,
        root: str,
        renew: Callable[[], str],
        read: shards.Read,
        where: str,
        *,
        known: Callable[[str], bytes | None] | None = None,
        offline: bool = False,
    ) -> None:
        """Read shards.

        Args:
            root: digest of the root of their tree.
            renew: gives the root that is signed now; raises as trust.check.
            read: gives files beside the index as they are now.
            where: names the registry in errors.
            known: of a registry on the network gives what was fetched before.
            offline: whether nothing but that can be had.
        """
        self.root = root
        self.where = where
        self._renew = renew
        self._now = read
        self._known = known
        self._offline = offline
        self._nodes: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        """Return a shard as it is signed, or None where there is none.

        Raises:
            DigestError: there is only another one, and no later signature.
            OfflineError: it was never fetched as it is signed, and the network is switched off.
            AuthenticationError, AdapterHubError: it cannot be had.
        """
        return self.of_one_root(lambda: self.held(path, digest_tree.find(self.root, path, self.node)))

    def of_one_root(self, ask: Callable[[], T]) -> T:
        """Return what is asked, all of it below one root; it is asked again where somebody has signed meanwhile."""
        while True:
            try:
                return ask()
            except IntegrityError:
                root = self._renew()
                if root == self.root:
                    raise
                self.root = root

    def held(self, path: str, expected: str | None) -> bytes | None:
        """Return a shard that has to have a digest, or not to be there; see read."""
        if expected is None:
            self._refuse_present(path)
            return None
        for place in (path, snapshots.place_of(expected)):
            data = self._fetched(place, expected)
            if data is not None:
                return data
        # Who signs and pushes at once removes the second just after the first has come to its place.
        data = self._now(path)
        if data is not None and digest.of_bytes(data) == expected:
            return data
        actual = "none, as it is not there" if data is None else digest.of_bytes(data)
        raise DigestError(f"{path} of {self.where}", expected=expected, actual=actual, hint=HINT)

    def node(self, known: str) -> bytes:
        """Return a node of the tree.

        Raises:
            IntegrityError: there is none, or another one.
        """
        if known not in self._nodes:
            data = self._fetched(snapshots.place_of(known), known)
            if data is None:
                raise IntegrityError(f"a part of what was signed is missing or damaged in {self.where}", hint=HINT)
            self._nodes[known] = data
        return self._nodes[known]

    def _fetched(self, path: str, expected: str) -> bytes | None:
        """Return what lies at a path if it has a digest; it is not asked for where it was fetched before."""
        if self._known is not None:
            data = self._known(path)
            if data is not None and digest.of_bytes(data) == expected:
                return data
            if self._offline:
                raise OfflineError(
                    f"{path} of {self.where} was never fetched as it is signed, and the network is switched off",
                    hint="read it once with the network; unset ADAPTERHUB_OFFLINE and HF_HUB_OFFLINE",
                )
        data = self._now(path)
        return data if data is not None and digest.of_bytes(data) == expected else None

    def _refuse_present(self, path: str) -> None:
        """Raise where a shard is there that is not signed."""
        if self._offline and self._known is not None:
            return
        data = self._now(path)
        if data is not None:
            raise DigestError(f"{path} of {self.where}", expected="none", actual=digest.of_bytes(data), hint=HINT)


def verify_all(folder: Path, root: str) -> None:
    """Raise unless the shards in a folder are those that a root stands for, all of them and no others.

    Raises:
        DigestError, IntegrityError: they are not.
        AdapterHubError: they cannot be read.
    """
    from . import editing

    found = SignedShards(root, lambda: root, editing.reader(folder), str(folder))
    everything(found, folder)


def everything(found: SignedShards, folder: Path) -> Index:
    """Return the entries of all shards in a folder as they are signed; see verify_all."""
    wanted = dict(digest_tree.files_of(found.root, found.node))
    there = shard_database.scan(folder / shards.FOLDER).files
    for path in sorted({f"{shards.FOLDER}/{group}/{file}" for group, file in there} - wanted.keys()):
        found.held(path, None)
    return _entries((path, found.held(path, known)) for path, known in wanted.items())


def of_packed(found: SignedShards, packed: Index) -> Index:
    """Return all entries as they are signed, taken from a packed index where that has them."""
    tree = digest_tree.build({path: digest.of_bytes(data) for path, data in shards.all_of(packed)})
    entries = dict(packed.adapters.raw)
    own = {shards.path_of(name): name for name in entries}
    for path, packed_digest, signed in digest_tree.differences(
        tree.root, found.root, lambda known: tree.nodes[known], found.node
    ):
        if packed_digest is not None and path in own:
            del entries[own[path]]
        if signed is not None:
            entries |= _entries([(path, found.held(path, signed))]).adapters.raw
    return Index(adapters=Entries(entries))


def _entries(files: Iterable[tuple[str, bytes | None]]) -> Index:
    entries: dict[str, JSON] = {}
    for path, data in files:
        entries |= shards.parse(data or b"", path).adapters.raw
    return Index(adapters=Entries(entries))


class SignedDatabase(Derived):
    """The look-up over all shards that a root stands for; the database is called by the root."""

    def __init__(
        self,
        found: SignedShards,
        everything: Callable[[], Index],
        mark: Path,
        folder: Path,
        progress: Progress | None = None,
    ) -> None:
        """Look up what shards hold; databases are kept in folder.

        Args:
            found: the shards.
            everything: gives all of their entries.
            mark: stands for the registry: a file that is there as long as it is.
            folder: where databases are kept.
            progress: is told how far it is.
        """
        super().__init__(mark, folder, progress)
        self._found = found
        self._everything = everything
        self._whole = Index()

    def open(self) -> Lookup:
        """Return all entries as they are signed: few in memory, many by way of a database.

        Raises:
            OSError, sqlite3.Error: the database can be neither read nor made.
            DigestError, IntegrityError, FormatError, SchemaError: a shard is not what was signed.
        """
        stamped, _, before = stamps.known(self.stamp)
        if stamped == str(self.index) and before.endswith(suffix()):
            connection = connect(self.folder / before)
            changed = None if connection is None else self._changed(f"sha256:{before.removesuffix(suffix())}")
            if connection is not None and changed is not None:
                below = IndexDatabase(connection, self._anew)
                return Layered(below, changed) if changed.adapters else below
        whole = self._everything()
        return whole if len(whole) <= FEW else IndexDatabase(self._made_of(whole), self._anew)

    def _anew(self) -> sqlite3.Connection:
        """Return a connection to a database of this root, in place of the one that there was."""
        return self._found.of_one_root(lambda: self._made_of(self._everything()))

    def _made_of(self, whole: Index) -> sqlite3.Connection:
        """Return a connection to the database of all entries, which are those of this root."""
        self._whole = whole
        name = digest.hexadecimal(self._found.root) + suffix()
        _, _, old = stamps.known(self.stamp)
        (self.folder / name).unlink(missing_ok=True)
        connection = self._made(name, b"", old)
        stamps.write(self.stamp, self.index, [], name)
        return connection

    def _fill(self, connection: sqlite3.Connection, data: bytes) -> None:
        """Fill an empty database with all entries."""
        self._fill_with(connection, lambda: self._whole)

    def _changed(self, before: str) -> Index | None:
        """Return the entries whose shards are others than below a former root; None where they are many or gone."""
        least, _ = shard_database.MOST_CHANGED
        try:
            pairs = digest_tree.differences(before, self._found.root, self._found.node, self._found.node)
            changed = list(islice(pairs, least + 1))
        except (IntegrityError, NotFoundError, OfflineError):
            return None
        if len(changed) > least or any(now is None for _, _, now in changed):
            return None
        return _entries((path, self._found.held(path, now)) for path, _, now in changed)


def look_up(
    found: SignedShards,
    everything: Callable[[], Index],
    mark: Path,
    cache: Path,
    progress: Progress | None = None,
) -> Lookup:
    """Return a look-up over all shards as they are signed; where no database can be kept, all of it is read.

    Raises:
        DigestError, IntegrityError, FormatError, SchemaError: a shard is not what was signed.
        UnsupportedError: they cannot be listed.
        OfflineError, AuthenticationError, AdapterHubError: one cannot be had.
    """
    made = SignedDatabase(found, everything, mark, cache / "lookup", progress)
    try:
        return found.of_one_root(made.open)
    except (sqlite3.Error, OSError) as error:
        derived.warn(f"no look-up of {found.where} can be kept in {cache}: {error}")
        return found.of_one_root(everything)
