"""Signing an index: its state becomes the next snapshot, which says by digest what it follows.

An index in one file is signed by its digest, a sharded one by that of the tree of its shards. `Seal` signs a change
together with it: bytes that are signed before they are in their place lie under their digest meanwhile, where readers
find them. So every reader who wants a signature sees the former state or the new one, whoever dies in between.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .. import schemas
from ..errors import IntegrityError, NotFoundError, StateError, UnsupportedError
from . import digest, digest_tree, shards, signatures, snapshots
from .contention import Stale, between_others
from .copies import INDEX
from .desks import Desk
from .index import Index
from .snapshots import SIGNED, Signed, Snapshot

PARTS = frozenset({"$schema", "format", "adapters"})
"""What an index says that holds all of its entries itself."""

Read: TypeAlias = Callable[[str], bytes | None]
"""Takes the path of a small file beside an index and returns it, or None where there is none."""


def sign(desk: Desk, key: Path) -> tuple[Snapshot, bool]:
    """Sign the index at a desk, and return its snapshot, and whether that is a new one.

    The same index, signed by the same key already, is no change.

    Raises:
        NotFoundError: there is no index or key, or an earlier snapshot is missing.
        SchemaError, FormatError, IntegrityError: the index is not valid, or what was signed before is not what it was.
        StateError: it was signed by another key before.
        UnsupportedError: the index is kept in a way that is not known; or model-signing is not installed.
        UsageError: the key cannot sign.
        AuthenticationError, OfflineError, AdapterHubError: the desk cannot be read or written.
    """
    return between_others(lambda: _attempt(desk, key), desk.place)


def is_sharded(data: bytes, what: str) -> bool:
    """Return whether an index keeps its entries in shards, and none itself.

    Raises:
        UnsupportedError: it keeps them in another way, and neither digest nor tree would say what they are.
    """
    document = schemas.loads(data, what)
    others = sorted(set(document) - PARTS)
    if others and (others, document.get("layout")) != (["layout"], shards.MARKER.layout):
        raise UnsupportedError(
            f"{what} does not hold its entries itself ({', '.join(others)}), and a signature would not cover them",
            hint="sign an index in one file, or in shards",
        )
    return bool(others)


def _attempt(desk: Desk, key: Path) -> tuple[Snapshot, bool]:
    """Sign the index as it is now.

    Raises:
        Stale: somebody else has changed or signed it meanwhile.
    """
    desk.look()
    data = _read(desk.read, INDEX, desk.place)
    Index.loads(data, f"{INDEX} of {desk.place}").check(desk.place)
    sharded = is_sharded(data, f"{INDEX} of {desk.place}")
    last = _verified(desk.read(SIGNED), key, desk.place)
    tree = digest_tree.build(desk.shards(_valid)) if sharded else None
    root = tree.root if tree else ""
    if last is not None and (last.index, last.shards) == (digest.of_bytes(data), root):
        return last, False
    nodes = {} if tree is None else {snapshots.place_of(known): node for known, node in tree.nodes.items()}
    found = _next(last, data, root, desk.read, desk.place)
    desk.write({**nodes, **_signed(found, last, key)}, "Sign the index")
    return found, True


def _valid(data: bytes, what: str) -> str:
    """Return the digest of a shard, which is valid."""
    shards.parse(data, what)
    return digest.of_bytes(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What signs changes of an index together with them.

    Attributes:
        key: the private key.
    """

    key: Path

    @classmethod
    def of(cls, key: Path) -> Seal:
        """Return the seal of a key.

        Raises:
            NotFoundError: there is no such file.
            UsageError: it cannot sign.
            UnsupportedError: model-signing is not installed.
        """
        with signatures.public(key):
            return cls(key=key)

    def begin(self, read: Read, place: str) -> Sealing:
        """Return what signs one change of the index at a place, as it was signed last.

        Raises:
            StateError: it was signed by another key, or not at all.
            FormatError, SchemaError: what was signed cannot be read.
            AuthenticationError, OfflineError, AdapterHubError: the place cannot be read.
        """
        signed = read(SIGNED)
        last = _verified(signed, self.key, place)
        if last is None and read(INDEX) is not None:
            raise StateError(f"{place} is not signed yet", hint="look at it, and sign it with `adapterhub index sign`")
        return Sealing(key=self.key, read=read, place=place, signed=signed, last=last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """One change of an index that is signed together with it.

    Attributes:
        key: the private key.
        read: reads files beside the index.
        place: names the registry in errors.
        signed: what SIGNED says; None where there is no index yet.
        last: the snapshot in that.
    """

    key: Path
    read: Read
    place: str
    signed: bytes | None
    last: Snapshot | None

    def unfinished(self, there: Mapping[str, str | None]) -> dict[str, bytes]:
        """Return path → bytes of what is signed and not in its place yet, as somebody left it who died.

        Args:
            there: path → digest of the index file, or of it and of the shards that are to be changed, as they were
                read before the signature was; None is one that is not there.

        Raises:
            Stale: somebody else has changed them meanwhile.
            StateError: one of the files has changed since it was signed.
            NotFoundError, IntegrityError: what was signed is not there any more, or not what it was.
        """
        if self.last is None:
            return {}
        number, found = self.last.number, {}
        before = None if number == 1 else snapshots.parsed(self._bytes(snapshots.path_of(number - 1)), self.place)
        for path, actual in there.items():
            signed = self._digest(self.last, path)
            if signed == actual:
                continue
            kept = self.read(snapshots.place_of(signed)) if signed else None
            if kept is None or digest.of_bytes(kept) != signed or self._digest(before, path) != actual:
                if self.read(SIGNED) != self.signed or _digest_of(self.read(path)) != actual:
                    raise Stale(self.place)
                raise StateError(
                    f"{path} of {self.place} was changed after it was signed",
                    hint="look at it, and sign it with `adapterhub index sign`",
                )
            found[path] = kept
        return found

    def files(self, documents: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return what is written before documents are: path → bytes, SIGNED last, to replace what was read.

        Args:
            documents: the index file, or shards, as they are to be.

        Raises:
            NotFoundError, IntegrityError: what was signed is not there any more, or not what it was.
            UsageError: the key cannot sign.
        """
        index, root, nodes = documents.get(INDEX), "", {}
        if index is None and self.last is not None:
            index = self._bytes(INDEX)
            digests = {path: digest.of_bytes(data) for path, data in documents.items()}
            tree = digest_tree.changed(self.last.shards, digests, self._node)
            root, nodes = tree.root, {snapshots.place_of(known): node for known, node in tree.nodes.items()}
        if index is None:
            raise NotFoundError(f"there is no {INDEX} at {self.place}")
        found = _next(self.last, index, root, self.read, self.place)
        kept = {path: documents[name] for name, path in snapshots.places(documents).items()}
        return {**kept, **nodes, **_signed(found, self.last, self.key)}

    def _digest(self, snapshot: Snapshot | None, path: str) -> str | None:
        """Return the digest that a snapshot gives a file; None where it has none."""
        if snapshot is None:
            return None
        return snapshot.index if path == INDEX else digest_tree.find(snapshot.shards, path, self._node)

    def _node(self, known: str) -> bytes:
        return self._bytes(snapshots.place_of(known))

    def _bytes(self, path: str) -> bytes:
        return _read(self.read, path, self.place)


def _next(last: Snapshot | None, index: bytes, root: str, read: Read, place: str) -> Snapshot:
    """Return the snapshot that follows the last one."""
    number = last.number + 1 if last else 1
    own = {} if last is None else {snapshots.path_of(last.number): last.data}
    return Snapshot(
        number=number,
        time=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        index=digest.of_bytes(index),
        size=len(index),
        shards=root,
        ancestors=snapshots.ancestors_of(number, lambda path: own.get(path) or _read(read, path, place)),
    )


def _signed(found: Snapshot, last: Snapshot | None, key: Path) -> dict[str, bytes]:
    """Return the files of a new snapshot: the last one, which it follows, under its number, and itself, signed."""
    signed = Signed(snapshot=found, signature=signatures.sign(found.data, key))
    before = {} if last is None else {snapshots.path_of(last.number): last.data}
    return {**before, SIGNED: signed.dumps()}


def _digest_of(data: bytes | None) -> str | None:
    return None if data is None else digest.of_bytes(data)


def _verified(data: bytes | None, key: Path, place: str) -> Snapshot | None:
    """Return the newest snapshot at a place from what SIGNED says there, or None where there is none.

    Raises:
        StateError: it is not signed by the key.
    """
    if data is None:
        return None
    last = Signed.loads(data, f"{SIGNED} of {place}")
    with signatures.public(key) as own:
        try:
            signatures.verify(last.snapshot.data, last.signature, own, place)
        except IntegrityError as error:
            raise StateError(
                f"{place} was signed by another key, or its {SIGNED} was changed",
                hint=f"to begin a new history with this key, remove {SIGNED} and snapshots/ first",
            ) from error
    return last.snapshot


def _read(read: Read, path: str, place: str) -> bytes:
    data = read(path)
    if data is None:
        raise NotFoundError(f"there is no {path} at {place}", hint="a signed registry keeps all its snapshots")
    return data
