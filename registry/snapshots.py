"""Snapshots: the states that an index had when it was signed, each with a number, each naming those before it.

Of two states the one with the higher number is the newer one, and it is a later state of the other only if a chain of
digests leads from it there. A snapshot names those one, two, four, eight, … before it, so that chains are short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .. import schemas
from ..errors import DigestError, IntegrityError
from . import digest

JSON: TypeAlias = Any
Read: TypeAlias = Callable[[str], bytes]
"""Takes a path beside the index and returns the file's bytes; raises NotFoundError and other errors of its remote."""

SIGNED = "index.signed.json"
"""The newest snapshot with its signature, beside index.json."""

FORMAT = 1
SCHEMA = "urn:adapterhub:schema:snapshot:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """An earlier snapshot, by number and digest."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One state of an index.

    Attributes:
        number: its place in the order of states; the first is 1.
        time: when it was signed, in UTC.
        index: digest of index.json.
        size: bytes of index.json.
        shards: of a sharded index, the root of the tree of its shards' digests (digest_tree.py); else "".
        ancestors: earlier snapshots: the one before, two before, four, ….
    """

    number: int
    time: str
    index: str
    size: int
    shards: str = ""
    ancestors: tuple[Ancestor, ...] = ()

    @classmethod
    def from_json(cls, data: JSON) -> Snapshot:
        """Return the record that checked JSON describes."""
        return cls(**{**data, "ancestors": tuple(Ancestor(**row) for row in data.get("ancestors", ()))})

    def to_json(self) -> JSON:
        """Return the record as JSON."""
        ancestors = [{"number": row.number, "digest": row.digest} for row in self.ancestors]
        known = {"number": self.number, "time": self.time, "index": self.index, "size": self.size}
        return {**known, **({"shards": self.shards} if self.shards else {}), "ancestors": ancestors}

    @property
    def data(self) -> bytes:
        """The bytes that are signed."""
        return schemas.canonical({"snapshot of an index": self.to_json()})

    @property
    def digest(self) -> str:
        """The digest that others name it by."""
        return digest.of_bytes(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A snapshot and its signature.

    Attributes:
        snapshot: the snapshot.
        signature: the bundle that model-signing writes.
    """

    snapshot: Snapshot
    signature: Mapping[str, JSON]

    @classmethod
    def loads(cls, data: bytes, what: str = SIGNED) -> Signed:
        """Return what data write; nothing of it is verified.

        Raises:
            FormatError, SchemaError: they are no such document.
        """
        document = schemas.loads(data, what)
        schemas.check(document, "snapshot", what)
        return cls(snapshot=Snapshot.from_json(document["snapshot"]), signature=document["signature"])

    def dumps(self) -> bytes:
        """Return it as bytes."""
        return schemas.dumps(
            {
                "$schema": SCHEMA,
                "format": FORMAT,
                "snapshot": self.snapshot.to_json(),
                "signature": dict(self.signature),
            },
            sort_keys=False,
        )


def path_of(number: int) -> str:
    """Return where a snapshot is kept after others have followed it: its bytes, as they are digested.

    >>> path_of(12)
    'snapshots/12.json'
    """
    return f"snapshots/{number}.json"


def place_of(known: str) -> str:
    """Return where bytes are kept under their digest: nodes of a tree, and what is signed before it is in its place.

    >>> place_of(f"sha256:{'ab' * 32}")[:24]
    'snapshots/ab/abababababa'
    """
    name = digest.hexadecimal(known)
    return f"snapshots/{name[:2]}/{name}.json"


def places(documents: Mapping[str, bytes]) -> dict[str, str]:
    """Return path → where a document that is signed lies under its digest, until it is in its place."""
    return {path: place_of(digest.of_bytes(data)) for path, data in documents.items()}


def parsed(data: bytes, what: str) -> Snapshot:
    """Return the snapshot that bytes beside an index are.

    Raises:
        FormatError, SchemaError: they are none.
    """
    document = schemas.loads(data, what)
    body = document.get("snapshot of an index") if isinstance(document, dict) else None
    schemas.check(body, "snapshot", what, part="snapshot")
    return Snapshot.from_json(body)


def ancestors_of(number: int, read: Read) -> tuple[Ancestor, ...]:
    """Return the ancestors of the snapshot that gets a number: those one, two, four, … before it.

    Raises:
        NotFoundError: one of them is not kept any more.
    """
    steps = [1 << power for power in range(number.bit_length()) if number - (1 << power) >= 1]
    return tuple(Ancestor(number=number - step, digest=digest.of_bytes(read(path_of(number - step)))) for step in steps)


def follows(newer: Snapshot, known: Ancestor, read: Read) -> None:
    """Raise unless a chain of digests leads from a snapshot to an earlier one, or to itself.

    Raises:
        IntegrityError: it is older, or a state of another history.
        DigestError: a link of the chain was changed.
        NotFoundError, AdapterHubError: a link cannot be had.
    """
    current = Ancestor(number=newer.number, digest=newer.digest)
    links = newer.ancestors
    while current.number > known.number:
        before = [link for link in links if known.number <= link.number < current.number]
        if not before:
            break
        current = min(before, key=lambda link: link.number)
        if current.number > known.number:
            links = _link(current, read).ancestors
    if current.number < known.number:
        raise IntegrityError(
            f"the index is older than it has been: snapshot {newer.number}, after {known.number} was seen",
            hint="somebody has put an old state back; ask who keeps the registry",
        )
    if current != known:
        raise IntegrityError(
            f"the index does not follow from what it has been: snapshot {newer.number} has another past than "
            f"snapshot {known.number}, which was seen",
            hint="ask who keeps the registry whether its history was begun anew",
        )


def _link(wanted: Ancestor, read: Read) -> Snapshot:
    """Return an earlier snapshot, held to its digest and number."""
    path = path_of(wanted.number)
    data = read(path)
    if (actual := digest.of_bytes(data)) != wanted.digest:
        raise DigestError(path, expected=wanted.digest, actual=actual)
    found = parsed(data, path)
    if found.number != wanted.number:
        raise IntegrityError(f"{path} is snapshot {found.number}")
    return found
