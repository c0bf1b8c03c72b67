"""From an index in one file to a sharded one, and all its entries in one compressed file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import AdapterHubError, NotFoundError, UnsupportedError
from . import atomic, desks, editing, paths, shard_database, shards
from .contention import between_others
from .folder_publisher import FolderPublisher
from .index import Entries, Index
from .publishers import publisher_at
from .registry import INDEX, locate
from .settings import Settings

JSON: TypeAlias = Any


def shard_at(place: str, settings: Settings, *, dry_run: bool = False) -> int | None:
    """Make the index at a place a sharded one; return how many shards it has, or None where it was one already.

    dry_run: only say it.

    Raises:
        UnsupportedError, UsageError: the place is neither a folder nor a repository on the Hub.
        StateError, SchemaError, NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be done.
    """
    publisher = publisher_at(place, settings=settings, create=True)
    if isinstance(publisher, FolderPublisher):
        return shard(publisher.folder, dry_run=dry_run)
    from .hf_publisher import HubPublisher

    if isinstance(publisher, HubPublisher):
        return publisher.shard(dry_run=dry_run)
    raise UnsupportedError(f"{place} cannot be sharded", hint="shard a copy of it in a folder")


def shard(folder: Path, *, dry_run: bool = False) -> int | None:
    """Make the index in a folder a sharded one, or a new one where there is none; see shard_at.

    It is one file until all shards are there. Whoever publishes meanwhile waits.

    Raises:
        SchemaError, FormatError: the index is not valid.
        AdapterHubError: it cannot be written.
    """
    place = folder / INDEX
    if dry_run:
        index = editing.load(place, create=True)
        return None if index.layout else len(dict(shards.all_of(index)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.held(place):
            index = editing.load(place, create=True)
            if index.layout:
                return None
            count = _write(folder, index)
            shards.MARKER.write(place)
    except OSError as error:
        raise atomic.unwritable(folder, error) from error
    return count


def whole(folder: Path) -> Index:
    """Return all entries of a sharded registry in a folder as one index.

    Raises:
        SchemaError, FormatError: a shard is not valid.
        AdapterHubError: one cannot be read.
    """
    try:
        return shard_database.ShardDatabase(folder / shards.FOLDER, folder).whole()
    except OSError as error:
        raise atomic.unreadable(folder, error) from error


def pack_at(place: str, settings: Settings, *, dry_run: bool = False) -> tuple[int, int]:
    """Write all entries of a sharded registry into one compressed file beside it; return their number and its size.

    dry_run: only say it.

    Raises:
        UnsupportedError: the place is neither a folder nor a bucket nor a repository on the Hub.
        AdapterHubError: it is no sharded registry, or cannot be read or written.
        SchemaError, FormatError: a shard is not valid.
    """
    where = settings.registries.get(place, place)
    if not paths.is_url(where):
        return pack(locate(where, settings=settings).parent, dry_run=dry_run)
    desk = desks.desk_at(where, settings)
    return between_others(lambda: _packed(desk, dry_run=dry_run), desk.place)


def _packed(desk: desks.Desk, *, dry_run: bool) -> tuple[int, int]:
    """Pack the registry at a desk as it is now; raises as pack_at, and Stale where a shard is gone meanwhile."""
    desk.look()
    data = desk.read(INDEX)
    if data is None:
        raise NotFoundError(f"there is no registry at {desk.place}", hint="`adapterhub push --create` makes one")
    _refuse_one_file(Index.loads(data, f"{INDEX} of {desk.place}"), desk.place)
    entries: dict[str, JSON] = {}
    for found in desk.shards(shards.parse).values():
        entries |= found.adapters.raw
    index = Index(adapters=Entries(entries))
    index.check(desk.place)
    made = shards.pack(index)
    if not dry_run:
        desk.write({shards.PACKED: made}, "Pack the index")
    return len(index), len(made)


def _refuse_one_file(index: Index, place: str) -> None:
    if not index.layout:
        raise AdapterHubError(f"{place} has one index file, which needs no other", hint="`adapterhub index shard`")


def pack(folder: Path, *, dry_run: bool = False) -> tuple[int, int]:
    """Write all entries of a sharded registry in a folder into one compressed file; see pack_at.

    Raises:
        AdapterHubError: it is no sharded registry, or cannot be read or written.
        SchemaError, FormatError: a shard is not valid.
    """
    _refuse_one_file(Index.load(folder / INDEX), str(folder))
    index = whole(folder)
    index.check(str(folder))
    data = shards.pack(index)
    if not dry_run:
        atomic.write(folder / shards.PACKED, data)
    return len(index), len(data)


def faults(folder: Path, index: Index) -> list[str]:
    """Return what is wrong with the shards of a registry besides what the index made of them says.

    An alias too many is not: it counts only where the entry has it, and is what a process leaves that dies in between.
    """
    expected = dict(shards.all_of(index))
    read, found = editing.reader(folder), shard_database.scan(folder / shards.FOLDER).files
    there = {path: read(path) or b"" for path in (f"{shards.FOLDER}/{group}/{file}" for group, file in found)}
    missing = [f"{path} is missing" for path in sorted(expected.keys() - there.keys())]
    other = [path for path in sorted(there) if not _fits(there[path], expected.get(path), path)]
    return [*missing, *(f"{path} is not what it should be" for path in other)]


def _fits(data: bytes, expected: bytes | None, path: str) -> bool:
    """Return whether a shard is what it should be; None is one that should not be."""
    if data == expected:
        return True
    found = shards.parse(data, path)
    owners = () if expected is None else shards.parse(expected, path).alias_of
    return not found.adapters and set(owners) <= set(found.alias_of)


def _write(folder: Path, index: Index) -> int:
    """Write all shards, which nobody reads yet, to the disk, and return how many they are."""
    count = 0
    for path, data in shards.all_of(index):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        count += 1
    (folder / shards.FOLDER).mkdir(exist_ok=True)
    if os.name != "nt":
        os.sync()
    return count
