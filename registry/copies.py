"""Copies: the indexes of registries on the network, kept in the cache, and asked for again only if they changed.

    <cache>/registries/<mark of the place>/<mark of the state>/index.json    what was fetched, checked, never changed
    <cache>/registries/<mark of the place>/current.json                      which of them is the newest, and its home
    <cache>/registries/<mark of the place>/<path of a shard>                 its tag in a line, then its bytes

A new state is checked against its schema before it is used: one that is broken never takes the place of a good one.
Without the network the newest copy is used.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import AdapterHubError, NotFoundError, OfflineError, UnsupportedError
from . import atomic, digest

INDEX = "index.json"
MOST = 1 << 30
"""Bytes that an index may have."""

_LEFTOVER_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state of an index on the network.

    Attributes:
        tag: what its server calls it: an ETag, a commit; "" where it has no name for it.
        home: the URL that its relative urls begin at.
        data: its bytes.
    """

    tag: str
    home: str
    data: bytes


class Place(Protocol):
    """A registry on the network."""

    @property
    def url(self) -> str:
        """Where it lies, in its shortest form."""
        ...

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None where it is still the state called tag.

        Raises:
            NotFoundError: there is no registry.
            OfflineError, AuthenticationError, AdapterHubError: it cannot be read.
        """
        ...


@runtime_checkable
class Sharing(Place, Protocol):
    """A registry on the network that gives the files beside its index, too."""

    def part(self, path: str, home: str, tag: str) -> State | None:
        """Return a file as it is now, or None where it is still the state called tag.

        Args:
            path: its path from the folder of the index.
            home: the URL that relative urls begin at, as the index came with it.
            tag: what its server called the state that is known, or "".

        Raises:
            NotFoundError: there is none.
            OfflineError, AuthenticationError, AdapterHubError: it cannot be read.
        """
        ...


def copy_of(place: Place, cache: Path, *, offline: bool) -> tuple[Path, str]:
    """Return the file of a registry's index on this machine, as new as can be, and the URL that its urls begin at.

    Raises:
        OfflineError: the network is switched off, and there is no copy.
        SchemaError, FormatError: the index is not valid.
        NotFoundError, AuthenticationError, AdapterHubError: it cannot be had.
    """
    folder = _home(cache, place)
    known = _current(folder)
    if offline:
        if known is None:
            raise OfflineError(
                f"the registry {place.url} needs the network, which is switched off",
                hint="read it once with the network; unset ADAPTERHUB_OFFLINE and HF_HUB_OFFLINE",
            )
        return folder / known["copy"] / INDEX, known["home"]
    state = place.fetch(known["tag"] if known else "")
    if state is None and known is not None:
        return folder / known["copy"] / INDEX, known["home"]
    if state is None:
        raise AdapterHubError(f"the registry {place.url} gives no index")
    return _kept(state, folder, place.url, cache), state.home


def part_of(place: Place, path: str, home: str, cache: Path, *, offline: bool) -> bytes | None:
    """Return a file beside an index on the network, as new as can be, or None where there is none.

    Raises:
        OfflineError: the network is switched off, and it was never fetched.
        UnsupportedError: this version reads no such files from such a place.
        AuthenticationError, AdapterHubError: it cannot be had.
    """
    kept = part_file(place, path, cache)
    tag, known = _known(kept)
    if offline:
        if known is None:
            raise OfflineError(
                f"{path} of the registry {place.url} was never fetched, and the network is switched off",
                hint="read it once with the network; unset ADAPTERHUB_OFFLINE and HF_HUB_OFFLINE",
            )
        return known
    if not isinstance(place, Sharing):
        raise UnsupportedError(
            f"{place.url} keeps its entries in one file per name, which cannot be read from there",
            hint="copy it to a folder or a static host",
        )
    try:
        state = place.part(path, home, tag)
    except NotFoundError:
        return None
    if state is None:
        return known
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(kept, state.tag.encode() + b"\n" + state.data)
    except OSError as error:
        raise atomic.unwritable(kept, error) from error
    return state.data


def known_part(place: Place, path: str, cache: Path) -> bytes | None:
    """Return a file beside an index on the network as it was fetched before, or None where it was not."""
    return _known(part_file(place, path, cache))[1]


def part_file(place: Place, path: str, cache: Path) -> Path:
    """Return where a file beside an index on the network is kept: its tag in a line, then its bytes."""
    return _home(cache, place) / path


def kept_beside(copy: Path, data: bytes) -> Path:
    """Return the file of another state of the index that a file is the copy of, without making it the newest.

    Raises:
        AdapterHubError: it cannot be written.
    """
    path = copy.parent.parent / digest.mark(data) / INDEX
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(path, data)
    except OSError as error:
        raise atomic.unwritable(path, error) from error
    return path


def _home(cache: Path, place: Place) -> Path:
    """Return the folder of all that is kept of a registry."""
    return cache / "registries" / digest.mark(place.url.encode())


def _known(kept: Path) -> tuple[str, bytes | None]:
    """Return tag and bytes of a file that was fetched before; "" and None where it was not."""
    try:
        tag, mark, data = kept.read_bytes().partition(b"\n")
    except OSError:
        return "", None
    return (tag.decode(errors="replace"), data) if mark else ("", None)


def _kept(state: State, folder: Path, url: str, cache: Path) -> Path:
    """Return the file of a new state, which becomes the current one."""
    from .index import Index

    Index.loads(state.data, f"{INDEX} of {url}", verdicts=cache / "checked")
    name = digest.mark(state.data)
    path = folder / name / INDEX
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(path, state.data)
        current = {"url": url, "tag": state.tag, "home": state.home, "copy": name}
        atomic.write(folder / "current.json", json.dumps(current, indent=2).encode() + b"\n")
        _sweep(folder, name)
    except OSError as error:
        raise atomic.unwritable(folder, error) from error
    return path


def _current(folder: Path) -> dict[str, str] | None:
    """Return what is known of the newest copy, or None where there is none."""
    try:
        known = json.loads((folder / "current.json").read_bytes())
        fields = {name: str(known[name]) for name in ("tag", "home", "copy")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return fields if (folder / fields["copy"] / INDEX).is_file() else None


def _sweep(folder: Path, current: str) -> None:
    """Remove former copies that nobody can be reading any more."""
    limit = time.time() - _LEFTOVER_SECONDS
    for path in folder.glob(f"*/{INDEX}"):
        with contextlib.suppress(OSError):
            if path.parent.name != current and path.stat().st_mtime < limit:
                path.unlink()
                path.parent.rmdir()
