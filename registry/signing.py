"""Signing an index: its state becomes the next snapshot, which says by digest what it follows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from .. import schemas
from ..errors import IntegrityError, NotFoundError, StateError, UnsupportedError
from . import digest, signatures, snapshots
from .contention import between_others
from .copies import INDEX
from .desks import Desk
from .index import Index
from .snapshots import SIGNED, Signed, Snapshot

PARTS = frozenset({"$schema", "format", "adapters"})
"""What an index says that holds all of its entries itself."""


def sign(desk: Desk, key: Path) -> tuple[Snapshot, bool]:
    """Sign the index at a desk, and return its snapshot, and whether that is a new one.

    The same index, signed by the same key already, is no change.

    Raises:
        NotFoundError: there is no index or key, or an earlier snapshot is missing.
        SchemaError, FormatError, IntegrityError: the index is not valid, or what was signed before is not what it was.
        StateError: it was signed by another key before.
        UnsupportedError: the index does not hold its entries itself; or model-signing is not installed.
        UsageError: the key cannot sign.
        AuthenticationError, OfflineError, AdapterHubError: the desk cannot be read or written.
    """
    return between_others(lambda: _attempt(desk, key), desk.place)


def refuse_parts(data: bytes, what: str) -> None:
    """Raise where an index names other files of its own, which its digest says nothing about.

    Raises:
        UnsupportedError: it does.
    """
    if others := sorted(set(schemas.loads(data, what)) - PARTS):
        raise UnsupportedError(
            f"{what} does not hold its entries itself ({', '.join(others)}), and a signature would not cover them",
            hint="sign an index in one file",
        )


def _attempt(desk: Desk, key: Path) -> tuple[Snapshot, bool]:
    """Sign the index as it is now.

    Raises:
        Stale: somebody else has changed or signed it meanwhile.
    """
    desk.look()
    data = _read(desk, INDEX)
    Index.loads(data, f"{INDEX} of {desk.place}").check(desk.place)
    refuse_parts(data, f"{INDEX} of {desk.place}")
    last = _last(desk, key)
    if last is not None and last.index == digest.of_bytes(data):
        return last, False
    number = last.number + 1 if last else 1
    found = Snapshot(
        number=number,
        time=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        index=digest.of_bytes(data),
        size=len(data),
        ancestors=snapshots.ancestors_of(number, lambda path: _read(desk, path)),
    )
    if last is not None and found.ancestors[0].digest != last.digest:
        raise IntegrityError(f"{snapshots.path_of(last.number)} of {desk.place} is not the snapshot that was signed")
    signed = Signed(snapshot=found, signature=signatures.sign(found.data, key))
    desk.write({snapshots.path_of(number): found.data, SIGNED: signed.dumps()})
    return found, True


def _last(desk: Desk, key: Path) -> Snapshot | None:
    """Return the newest snapshot at a desk, or None where there is none.

    Raises:
        StateError: it is not signed by the key.
    """
    data = desk.read(SIGNED)
    if data is None:
        return None
    last = Signed.loads(data, f"{SIGNED} of {desk.place}")
    with signatures.public(key) as own:
        try:
            signatures.verify(last.snapshot.data, last.signature, own, desk.place)
        except IntegrityError as error:
            raise StateError(
                f"{desk.place} was signed by another key, or its {SIGNED} was changed",
                hint=f"to begin a new history with this key, remove {SIGNED} and snapshots/ first",
            ) from error
    return last.snapshot


def _read(desk: Desk, path: str) -> bytes:
    data = desk.read(path)
    if data is None:
        raise NotFoundError(f"there is no {path} at {desk.place}", hint="a signed registry keeps all its snapshots")
    return data
