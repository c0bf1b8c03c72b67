"""Seen: the newest snapshot of a registry that was verified on this machine.

<cache>/trust/<mark of the place>.json    its number, digest and index
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import IntegrityError, NotFoundError
from . import atomic, digest, snapshots
from .settings import Settings
from .snapshots import Ancestor, Read, Snapshot
from .trusted_keys import canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest snapshot that was verified.

    Attributes:
        place: the registry.
        key: digest of the key.
        number, snapshot: number and digest of the snapshot.
        index: digest of the index.
    """

    place: str
    key: str
    number: int
    snapshot: str
    index: str

    @classmethod
    def of(cls, place: str, key: Path, snapshot: Snapshot) -> Seen:
        """Return what is remembered of a snapshot."""
        return cls(
            place=place,
            key=digest_of_key(key),
            number=snapshot.number,
            snapshot=snapshot.digest,
            index=snapshot.index,
        )


def path_of(place: str, settings: Settings) -> Path:
    """Return what is remembered of a registry; each revision that is asked for has a history of its own."""
    revision = place.partition("@")[2] if place.startswith("hf:") else ""
    return settings.cache / "trust" / f"{digest.mark(f'{canonical(place)}@{revision}'.encode())}.json"


def digest_of_key(key: Path) -> str:
    """Return the digest of a key."""
    return digest.of_bytes(atomic.read(key, missing=NotFoundError(f"there is no key {key}", hint="see [trust]")))


def load(path: Path) -> Seen | None:
    """Return what was seen, or None where nothing was.

    Raises:
        IntegrityError: what is remembered cannot be read.
    """
    try:
        said: Mapping[str, object] = json.loads(path.read_bytes())
        fields = {name: str(said[name]) for name in ("place", "key", "snapshot", "index")}
        return Seen(**fields, number=int(str(said["number"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} cannot be read", hint="remove it, if you know why it is damaged") from error


def remember(path: Path, fresh: Seen, snapshot: Snapshot, read: Read) -> None:
    """Remember a snapshot, which follows what was seen before; read gives the snapshots between.

    Raises:
        IntegrityError: it does not.
        NotFoundError, AdapterHubError: one between cannot be had.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.unwritable(path, error) from error
    while True:
        seen = load(path)
        if seen is not None and seen.key == fresh.key:
            snapshots.follows(snapshot, Ancestor(number=seen.number, digest=seen.snapshot), read)
        with atomic.held(path):
            # Who was faster may have seen a later one.
            if load(path) == seen:
                atomic.write(path, json.dumps(asdict(fresh), indent=2).encode() + b"\n")
                return
