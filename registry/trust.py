"""Trust: registries that the settings say must be signed by a key.

An index of such a registry is used only if it is the one that a snapshot names, the snapshot is signed by the key, and
it is the one seen before or follows it. So neither a changed index is used, nor an old one that was put back, nor one
of another history, nor the index of one state with the signature of another. What was verified is not verified again.
Of a sharded index the snapshot names the tree of its shards, which are verified as they are read (signed_shards.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import DigestError, IntegrityError, NotFoundError, UnsupportedError, UsageError
from . import (
    atomic,
    copies,
    derived,
    digest,
    editing,
    paths,
    remotes,
    seen,
    signatures,
    signed_shards,
    signing,
    snapshots,
    verified,
)
from .copies import Place
from .lookup import Lookup, Progress
from .registry import copy_of
from .seen import Seen
from .settings import Settings
from .snapshots import SIGNED, Signed, Snapshot
from .trusted_keys import key_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An index as it was signed.

    Attributes:
        index: the file to read it from: another one than its own while a signed change is on its way to its place.
        digest: the digest that this file has to have.
        shards: of a sharded index the root of the tree of its shards, else "".
        renew: gives the root that is signed now.
    """

    index: Path
    digest: str
    shards: str = ""
    renew: Callable[[], str] = field(default=str, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An index file and what reads small files beside it, or None where there is no such file.

    Attributes:
        place: where the registry lies, as it was asked for.
        index: the index file; of a registry on the network, its copy.
        read: takes the path of a file beside it.
    """

    place: str
    index: Path
    read: Callable[[str], bytes | None]

    def bytes(self, path: str) -> bytes:
        """Return a file beside the index.

        Raises:
            NotFoundError: there is none.
        """
        data = self.read(path)
        if data is None:
            raise NotFoundError(f"there is no {path} of {self.place}", hint="a signed registry keeps all its snapshots")
        return data


def check(beside: Beside, settings: Settings) -> Trusted | None:
    """Return the index of a registry as it was signed; None where the settings ask for no signature.

    Raises:
        IntegrityError: it is not signed, or not by the key, or not a later state of what was seen.
        OfflineError: what it was signed with is not on this machine.
        UnsupportedError: such a registry cannot be signed; or model-signing is not installed.
        NotFoundError: the settings name a key or registry that is not there.
        AuthenticationError, AdapterHubError: the signature cannot be read.
    """
    key = key_of(beside.place, settings)
    if key is None:
        return None
    before = seen.load(seen.path_of(beside.place, settings))
    now = (seen.digest_of_key(key), verified.digest_of(beside.index))
    # What is known of a sharded index by its file is nothing: that stays the same.
    if before is not None and (before.key, before.index) == now and not _is_sharded(beside):
        return Trusted(index=beside.index, digest=before.index)
    return verify(beside, key, settings, again=False)[0]


def verify_place(place: str, settings: Settings, key: Path | None) -> Snapshot:
    """Return the snapshot that the index at a place is signed as, by a key, or else by the one of the settings.

    Raises:
        UsageError: there is no key.
        NotFoundError: there is no registry; and as check.
    """
    wanted = key or key_of(place, settings)
    if wanted is None:
        raise UsageError(f"the settings ask for no signature of {place}", hint="name a public key with --key")
    remote = remotes.registry_at(place) if paths.is_url(place) else None
    if remote is None and paths.is_url(place):
        raise remotes.unsupported(f"the registry {place}")
    path, _, (trusted, snapshot) = _settled(place, remote, settings, lambda beside: verify(beside, wanted, settings))
    if trusted.shards and remote is None:
        signed_shards.verify_all(path.parent, trusted.shards)
    return snapshot


def found(
    place: str, remote: Place | None, settings: Settings, progress: Progress | None
) -> tuple[Path, str, tuple[Trusted | None, Lookup]]:
    """Return the index file of a registry, the URL that its urls begin at, the index as it was signed, and opened.

    Args:
        place: where the registry lies, as it was asked for.
        remote: the registry, where it lies on the network.
        settings: the settings.
        progress: is told how far it is when a large index is prepared.

    Raises:
        IntegrityError, …: see check, and derived.open_index.
    """

    def ask(beside: Beside) -> tuple[Trusted | None, Lookup]:
        trusted = check(beside, settings)
        if trusted is None:
            return None, derived.open_index(beside.index, settings.cache, progress)
        return trusted, derived.open_index(trusted.index, settings.cache, progress, trusted.digest)

    return _settled(place, remote, settings, ask)


def _settled(place: str, remote: Place | None, settings: Settings, ask: Callable[[Beside], T]) -> tuple[Path, str, T]:
    """Return the index file of a registry, the URL that its urls begin at, and what is asked of both.

    It is asked again where somebody may have pushed and signed while index and signature were read.
    """
    failed: set[tuple[str, str]] = set()
    while True:
        path, home = copy_of(place, remote, settings)
        beside = of_folder(place, path) if remote is None else of_network(place, remote, path, home, settings)
        try:
            return path, home, ask(beside)
        except DigestError as error:
            if (error.expected, error.actual) in failed:
                raise
            failed.add((error.expected, error.actual))


def of_folder(place: str, index: Path) -> Beside:
    """Return an index in a folder, with what reads the files beside it."""
    return Beside(place=place, index=index, read=editing.reader(index.parent))


def of_network(place: str, registry: Place, index: Path, home: str, settings: Settings) -> Beside:
    """Return the copy of an index on the network, with what reads the files beside that."""

    def read(path: str) -> bytes | None:
        if home.startswith("oci://"):
            raise UnsupportedError(f"{place} cannot be signed: its index is put together by readers")
        return copies.part_of(registry, path, home, settings.cache, offline=settings.offline)

    return Beside(place=place, index=index, read=read)


def verify(beside: Beside, key: Path, settings: Settings, *, again: bool = True) -> tuple[Trusted, Snapshot]:
    """Return an index as it is signed, and the snapshot that says so, which is remembered; see check.

    again: also verify the signature of the snapshot that was seen last.
    """
    what = f"the index of {beside.place}"
    data = beside.read(SIGNED)
    if data is None:
        raise IntegrityError(f"{what} is not signed, and must be by {key}", hint="`adapterhub index sign` does it")
    signed = Signed.loads(data, f"{SIGNED} of {beside.place}")
    path, fresh = seen.path_of(beside.place, settings), Seen.of(beside.place, key, signed.snapshot)
    new = seen.load(path) != fresh
    if again or new:
        signatures.verify(signed.snapshot.data, signed.signature, key, what)
    trusted = Trusted(
        index=_signed_index(signed.snapshot, beside, what),
        digest=signed.snapshot.index,
        shards=signed.snapshot.shards,
        renew=lambda: verify(beside, key, settings, again=False)[0].shards,
    )
    if new:
        seen.remember(path, fresh, signed.snapshot, beside.bytes)
    return trusted, signed.snapshot


def _is_sharded(beside: Beside) -> bool:
    data = atomic.read(beside.index, missing=NotFoundError(f"there is no index at {beside.index}"))
    return signing.is_sharded(data, f"the index of {beside.place}")


def _signed_index(snapshot: Snapshot, beside: Beside, what: str) -> Path:
    """Return the file with the index that a snapshot names.

    Raises:
        DigestError: there is only another one.
        IntegrityError: it is sharded, and the snapshot does not name its shards, or the other way round.
        UnsupportedError: it holds its entries neither itself nor in shards.
    """
    data = atomic.read(beside.index, missing=NotFoundError(f"there is no index at {beside.index}"))
    path = beside.index
    if (actual := digest.of_bytes(data)) != snapshot.index:
        kept = beside.read(snapshots.place_of(snapshot.index))
        if kept is None or digest.of_bytes(kept) != snapshot.index:
            raise DigestError(
                f"{what}, as of snapshot {snapshot.number},",
                expected=snapshot.index,
                actual=actual,
                hint=signed_shards.HINT,
            )
        data, path = kept, _kept(kept, beside)
    if signing.is_sharded(data, what) != bool(snapshot.shards):
        raise IntegrityError(f"{what} is kept in another way than snapshot {snapshot.number} says")
    return path


def _kept(data: bytes, beside: Beside) -> Path:
    """Return a file with an index that is signed and not in its place yet."""
    if not paths.is_url(beside.place):
        return beside.index.parent / snapshots.place_of(digest.of_bytes(data))
    return copies.kept_beside(beside.index, data)
