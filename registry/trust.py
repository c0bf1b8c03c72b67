"""Trust: registries that the settings say must be signed by a key, and what was seen of them.

    <cache>/trust/<mark of the place>.json    the newest snapshot that was verified: its number, digest and index

An index of such a registry is used only if it is the one that a snapshot names, the snapshot is signed by the key, and
it is the one seen before or follows it. So neither a changed index is used, nor an old one that was put back, nor one
of another history, nor the index of one state with the signature of another. What was verified is not verified again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DigestError, IntegrityError, NotFoundError, UnsupportedError, UsageError
from . import atomic, copies, digest, paths, remotes, signatures, signing, snapshots, streaming, verified
from .registry import locate
from .remote import Source
from .settings import BUNDLED, Settings
from .snapshots import SIGNED, Ancestor, Signed, Snapshot

INDEX = "index.json"
MOST = 1 << 20
"""Bytes that a snapshot may have."""


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
            key=_digest_of_key(key),
            number=snapshot.number,
            snapshot=snapshot.digest,
            index=snapshot.index,
        )


def check(place: str, index: Path, home: str, settings: Settings) -> bool:
    """Return whether the settings ask for a signature of the index of a registry, which then has it.

    Args:
        place: where the registry lies, as it was asked for.
        index: the index file; of a registry on the network, its copy.
        home: the URL that its urls begin at; "" where that is the folder of the index.
        settings: the settings.

    Raises:
        IntegrityError: it is not signed, or not by the key, or not a later state of what was seen.
        OfflineError: what it was signed with is not on this machine.
        UnsupportedError: such a registry cannot be signed; or model-signing is not installed.
        NotFoundError: the settings name a key or registry that is not there.
        AuthenticationError, AdapterHubError: the signature cannot be read.
    """
    key = key_of(place, settings)
    if key is None:
        return False
    seen = _seen(_path(place, settings))
    if seen is None or seen.key != _digest_of_key(key) or seen.index != verified.digest_of(index):
        verify(place, index, home, key, settings)
    return True


def key_of(place: str, settings: Settings) -> Path | None:
    """Return the key that the settings ask for at a place, or None.

    Raises:
        NotFoundError: the settings ask for a key at a registry that they do not name.
    """
    wanted = {_canonical(_where(who, settings)): key for who, key in settings.trust.items()}
    key = wanted.get(_canonical(place)) if place != BUNDLED else None
    return None if key is None else Path(key)


def verify_place(place: str, settings: Settings, key: Path | None) -> Snapshot:
    """Return the snapshot that the index at a place is signed as, by a key, or else by the one of the settings.

    Raises:
        UsageError: there is no key.
        NotFoundError: there is no registry; and as check.
    """
    wanted = key or key_of(place, settings)
    if wanted is None:
        raise UsageError(f"the settings ask for no signature of {place}", hint="name a public key with --key")
    if not paths.is_url(place):
        return verify(place, locate(place, settings=settings), "", wanted, settings)
    registry = remotes.registry_at(place)
    if registry is None:
        raise remotes.unsupported(f"the registry {place}")
    index, home = copies.copy_of(registry, settings.cache, offline=settings.offline)
    return verify(place, index, home, wanted, settings)


def verify(place: str, index: Path, home: str, key: Path, settings: Settings) -> Snapshot:
    """Return the snapshot that an index is signed as, and remember it; see check."""
    if home.startswith("oci://"):
        raise UnsupportedError(f"{place} cannot be signed: its index is put together by readers")
    what, read = f"the index of {place}", _reader(index, home, settings)
    try:
        signed = Signed.loads(read(SIGNED), f"{SIGNED} of {place}")
    except NotFoundError as error:
        raise IntegrityError(
            f"{what} is not signed, and must be by {key}", hint="`adapterhub index sign` does it"
        ) from error
    signatures.verify(signed.snapshot.data, signed.signature, key, what)
    _refuse_other(signed.snapshot, index, what)
    path, fresh = _path(place, settings), Seen.of(place, key, signed.snapshot)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.unwritable(path, error) from error
    while True:
        seen = _seen(path)
        if seen is not None and seen.key == fresh.key:
            snapshots.follows(signed.snapshot, Ancestor(number=seen.number, digest=seen.snapshot), read)
        with atomic.held(path):
            # Who was faster may have seen a later one.
            if _seen(path) == seen:
                atomic.write(path, json.dumps(asdict(fresh), indent=2).encode() + b"\n")
                return signed.snapshot


def _refuse_other(snapshot: Snapshot, index: Path, what: str) -> None:
    """Raise unless an index is the one that a snapshot names.

    Raises:
        DigestError: it is another one.
        UnsupportedError: it does not hold its entries itself.
    """
    data = atomic.read(index, missing=NotFoundError(f"there is no index at {index}"))
    if (actual := digest.of_bytes(data)) != snapshot.index:
        raise DigestError(
            f"{what}, as of snapshot {snapshot.number},",
            expected=snapshot.index,
            actual=actual,
            hint="it was changed after it was signed; who keeps it signs it with `adapterhub index sign`",
        )
    signing.refuse_parts(data, what)


def _reader(index: Path, home: str, settings: Settings) -> snapshots.Read:
    """Return what reads small files beside an index."""

    def read(path: str) -> bytes:
        url = remotes.joined(home, path) if home else path
        source = Source(url=url, path="", registry=index.parent)
        return streaming.bounded(remotes.read(source, offline=settings.offline), MOST, path)

    return read


def _where(who: str, settings: Settings) -> str:
    """Return the place that a line of the settings is about: one that it names, or that of a registry's name."""
    return who if paths.is_url(who) or "/" in who or Path(who).is_absolute() else settings.location(who)


def _canonical(place: str) -> str:
    """Return a place as it is compared, however it is written.

    >>> _canonical("https://HOST/hub/index.json"), _canonical("hf://me/hub@main")
    ('https://host/hub', 'hf://me/hub')
    """
    if not paths.is_url(place):
        path = Path(place).expanduser()
        return str((path.parent if path.name == INDEX else path).resolve())
    scheme, _, rest = place.partition("://")
    rest = rest.rstrip("/").removesuffix(f"/{INDEX}").rstrip("/")
    host, slash, path_text = rest.partition("/")
    if scheme.lower() in {"http", "https"}:
        host = host.lower()
    if scheme.lower() == "hf":
        path_text = path_text.partition("@")[0]
    return f"{scheme.lower()}://{host}{slash}{path_text}"


def _path(place: str, settings: Settings) -> Path:
    """Return what is remembered of a registry; each revision that is asked for has a history of its own."""
    revision = place.partition("@")[2] if place.startswith("hf:") else ""
    return settings.cache / "trust" / f"{digest.mark(f'{_canonical(place)}@{revision}'.encode())}.json"


def _digest_of_key(key: Path) -> str:
    return digest.of_bytes(atomic.read(key, missing=NotFoundError(f"there is no key {key}", hint="see [trust]")))


def _seen(path: Path) -> Seen | None:
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
