"""Desks: where the index of a registry is signed and packed. Each replaces what was signed only if it is what it was.

What a snapshot names comes first, then the snapshot; so whoever dies in between leaves files that nothing names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import NotFoundError, OfflineError, UnsupportedError
from . import atomic, conditions, editing, hf_client, hf_commits, schemes, shard_database, shards
from .bucket import NEW
from .buckets import Buckets, home_of
from .contention import Stale
from .copies import INDEX, MOST
from .hf import Hub, HubRegistry
from .hf_client import Snapshot
from .paths import is_url
from .registry import locate
from .settings import Settings
from .snapshots import SIGNED

T = TypeVar("T")

_SHARD = re.compile(rf"{shards.FOLDER}/[0-9a-f]{{2}}/[^/]+\.json")
_AT_ONCE = 16
"""Shards that are read side by side."""


class Desk(Protocol):
    """A registry in which an index can be signed."""

    @property
    def place(self) -> str:
        """What it is called."""
        ...

    def look(self) -> None:
        """Begin with the registry as it is now."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a file beside the index, or None.

        Raises:
            AuthenticationError, OfflineError, AdapterHubError: it cannot be read.
        """
        ...

    def shards(self, take: Callable[[bytes, str], T]) -> dict[str, T]:
        """Return the path of every shard, and what take makes of its bytes and of what errors call it.

        Raises:
            FormatError, SchemaError: one is not valid.
            AuthenticationError, OfflineError, AdapterHubError: they cannot be read.
        """
        ...

    def write(self, files: Mapping[str, bytes], title: str) -> None:
        """Write files in their order, SIGNED last if it is one. What is kept under its digest is left as it is.

        title: what is done, where that is written down.

        Raises:
            Stale: that is not what was read; it was not written.
            AuthenticationError, OfflineError, AdapterHubError: they cannot be written.
        """
        ...


class FolderDesk:
    """A registry in a folder."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._folder = folder
        self._now = editing.reader(folder)
        self._read: dict[str, bytes | None] = {}

    def look(self) -> None:
        """Forget what was read; see Desk."""
        self._read = {}

    def read(self, path: str) -> bytes | None:
        """Return a file beside the index; see Desk."""
        self._read[path] = self._now(path)
        return self._read[path]

    def shards(self, take: Callable[[bytes, str], T]) -> dict[str, T]:
        """Return the path of every shard, and what take makes of it; see Desk."""
        found = shard_database.scan(self._folder / shards.FOLDER).files
        return _taken((f"{shards.FOLDER}/{group}/{file}" for group, file in found), self._now, self.place, take)

    def write(self, files: Mapping[str, bytes], title: str) -> None:
        """Write files under the lock of the index; see Desk."""
        with atomic.held(self._folder / INDEX):
            if any(self._now(path) != self._read.get(path) for path in (INDEX, SIGNED)):
                raise Stale(self.place)
            for path, data in files.items():
                target = self._folder / path
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise atomic.unwritable(target, error) from error
                if path == SIGNED or self._now(path) != data:
                    atomic.write(target, data)


class BucketDesk:
    """A registry in a bucket."""

    def __init__(self, url: str) -> None:
        self._store, self._home = home_of(url)
        self.place = str(self._home)
        self._tag = NEW

    def look(self) -> None:
        """Do nothing: the state of what is replaced comes with it; see Desk."""

    def read(self, path: str) -> bytes | None:
        """Return a file beside the index; see Desk."""
        try:
            found = self._store.document(self._home / path, most=MOST)
        except NotFoundError:
            found = None
        if path == SIGNED:
            self._tag = NEW if found is None else found.etag
        return None if found is None else found.data

    def shards(self, take: Callable[[bytes, str], T]) -> dict[str, T]:
        """Return the path of every shard, and what take makes of it; see Desk."""
        there = self._store.listed(self._home / f"{shards.FOLDER}/")
        beginning = len((self._home / "x").key) - 1
        return _taken((one.key[beginning:] for one in there), self.read, self.place, take)

    def write(self, files: Mapping[str, bytes], title: str) -> None:
        """Write files, the last only if nobody else has; see Desk."""
        conditions.refuse_unheeded(self._store, self._home)
        for path, data in files.items():
            self._store.put(self._home / path, data, match=self._tag if path == SIGNED else None)


class HubDesk:
    """A registry in a repository on the Hub."""

    def __init__(self, url: str) -> None:
        self.place = HubRegistry(url).url
        self._found = Snapshot(repo=hf_client.parse(self.place).name, commit="", files=())

    def look(self) -> None:
        """Begin with the newest commit; see Desk."""
        self._found = hf_client.snapshot(self._found.repo)

    def read(self, path: str) -> bytes | None:
        """Return a file at the commit; see Desk."""
        return None if self._found.find(path) is None else hf_client.small_file(self._found, path, most=MOST)

    def shards(self, take: Callable[[bytes, str], T]) -> dict[str, T]:
        """Return the path of every shard, and what take makes of it; see Desk."""
        return _taken((file.path for file in self._found.files), self.read, self.place, take)

    def write(self, files: Mapping[str, bytes], title: str) -> None:
        """Commit files on top of the commit that was read; see Desk."""
        hf_commits.commit(self._found, dict(files), (), title)


def _taken(paths: Iterable[str], read: shards.Read, place: str, take: Callable[[bytes, str], T]) -> dict[str, T]:
    """Return the paths that are those of shards, and what take makes of what lies there."""
    wanted = [path for path in paths if _SHARD.fullmatch(path)]

    def known(path: str) -> T:
        data = read(path)
        if data is None:
            raise Stale(place)
        return take(data, f"{path} of {place}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(known, wanted), strict=True))


def desk_at(place: str, settings: Settings) -> Desk:
    """Return where the index of a registry is signed.

    Args:
        place: a folder, its index file, a URL, or the name of a registry in the settings.
        settings: the settings.

    Raises:
        UnsupportedError: this version does not sign there.
        OfflineError: the network is needed, and switched off.
        NotFoundError: there is no registry.
    """
    where = settings.registries.get(place, place)
    if not is_url(where):
        return FolderDesk(locate(where, settings=settings).parent)
    if not (Buckets().takes(where) or Hub().takes(where)):
        raise UnsupportedError(
            f"{where} is not signed there: this version signs in folders, {schemes.SIGNED}",
            hint="sign the folder that is copied there",
        )
    if settings.offline:
        raise OfflineError(f"{where} needs the network, which is switched off", hint="try again with the network")
    return BucketDesk(where) if Buckets().takes(where) else HubDesk(where)
