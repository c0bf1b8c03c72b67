"""The cache as its owner sees it: what is in it, what refers to that, what can go, and whether it is still right.

An artifact is referred to by the locks of projects (cache_roots.py) and by compositions in the cache. The time of its
folder says when it was used last. Objects that no artifact lays out are small files of repositories on the Hub, or were
left by a process that died.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import arrangement
from ..composition_file import document_of
from ..errors import AdapterHubError
from . import cache_roots, digest
from .records import ArtifactFile, Content
from .store import Store

INDEXES = ("registries", "lookup", "checked", "hub", "bulk")
"""Folders of what is known of registries and repositories; it is fetched or made again when it is needed."""

DAY = 24 * 3600.0
GRACE = 60.0
"""Seconds in which an artifact stays after it was used: somebody may be about to open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One artifact in the cache.

    Attributes:
        identity: its digest.
        name: its file or folder.
        path: where it lies.
        size: its bytes' number.
        used: when it was used last, in seconds since 1970.
        needed_by: locks of projects, and compositions in the cache, that refer to it.
    """

    identity: str
    name: str
    path: Path
    size: int
    used: float
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        artifacts: artifacts.
        objects: digests of objects that nothing lays out any more.
        folders: folders of indexes, and partial downloads.
        size: bytes that are free again.
    """

    artifacts: tuple[Kept, ...]
    objects: tuple[str, ...]
    folders: tuple[Path, ...]
    size: int


def listed(root: Path) -> list[Kept]:
    """Return the artifacts in a cache by their names.

    Raises:
        AdapterHubError, FormatError, SchemaError: a lock cannot be read, so that what it needs is not known.
    """
    homes = {f"sha256:{home.name}": home for home in _children(root / "artifacts") if len(home.name) == 64}
    needed = _needed(root, homes)
    found = [_kept(identity, home, needed) for identity, home in homes.items() if any(home.iterdir())]
    return sorted(found, key=lambda one: (one.name, one.identity))


def sizes(root: Path) -> dict[str, int]:
    """Return what takes how many bytes: artifacts, objects without one, indexes, and partial downloads."""
    inodes = _inodes(root)
    laid_out = {name for home in _children(root / "artifacts") for name in _digests(home, inodes)}
    objects = {path.name: status.st_size for path, status in _statuses(_objects(root))}
    return {
        "artifacts": sum(size for name, size in objects.items() if name in laid_out),
        "others": sum(size for name, size in objects.items() if name not in laid_out),
        "indexes": sum(_size(root / folder) for folder in INDEXES),
        "partial": _size(root / "tmp"),
    }


def prune(
    root: Path, *, unused_days: float, locked: bool = False, indexes: bool = False, dry_run: bool = False
) -> Pruned:
    """Remove what was not used for some days, but not what a lock names; return what that was.

    Args:
        root: the cache.
        unused_days: artifacts that were used since stay.
        locked: remove what locks name too.
        indexes: remove all that is known of registries and repositories.
        dry_run: remove nothing.

    Raises:
        AdapterHubError: a lock cannot be read, or the cache cannot be written.
    """
    everything = listed(root)
    stay = _staying(everything, root, time.time() - max(unused_days * DAY, GRACE), locked=locked)
    gone = tuple(one for one in everything if one.identity not in stay)
    objects = _unneeded(root, {one.identity for one in gone})
    folders = tuple(path for path in _folders(root, indexes=indexes) if path.exists())
    size = sum(_size(Store(root).path_of(name)) for name in objects) + sum(map(_size, folders))
    if not dry_run:
        _remove(root, gone, objects, folders)
    return Pruned(artifacts=gone, objects=objects, folders=folders, size=size)


def faults(root: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[str, Path, str]]:
    """Yield (digest, path, what is wrong) for every object and artifact that is not what its digest says.

    Everything is read and hashed; progress is told how many of how many bytes.
    """
    objects = list(_objects(root))
    total, done = sum(path.stat().st_size for path in objects), 0
    inodes = {}
    for path in objects:
        actual = digest.of_file(path)
        status = path.stat()
        inodes[status.st_dev, status.st_ino] = digest.hexadecimal(actual)
        if actual != f"sha256:{path.name}":
            yield f"sha256:{path.name}", path, f"has digest {actual}"
        done += status.st_size
        if progress is not None:
            progress(done, total)
    for home in _children(root / "artifacts"):
        for child in sorted(home.iterdir()):
            if (actual := _identity(child, inodes)) != f"sha256:{home.name}":
                yield f"sha256:{home.name}", child, f"has digest {actual}"


def discard(root: Path, found: Iterable[tuple[str, Path, str]]) -> None:
    """Remove what turned out to be wrong; it is fetched again when it is needed.

    Raises:
        AdapterHubError: the cache cannot be written.
    """
    store = Store(root)
    for identity, path, _ in found:
        if path == store.path_of(identity):
            store.remove(identity)
        else:
            _remove_folder(root, path.parent)


def _kept(identity: str, home: Path, needed: Mapping[str, list[str]]) -> Kept:
    names = sorted(child.name for child in home.iterdir())
    return Kept(
        identity=identity,
        name=", ".join(names),
        path=home / names[0],
        size=_size(home / names[0]),
        used=home.stat().st_mtime,
        needed_by=tuple(dict.fromkeys(needed.get(identity, ()))),
    )


def _needed(root: Path, homes: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return digest of an artifact → what refers to it: locks, then compositions."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, lock in cache_roots.locks(root).items():
        for pin in lock.pins():
            for identity in pin.identities:
                found[identity].append(str(path))
    for home in homes.values():
        for child in home.iterdir():
            for part in _parts(child):
                found[part].append(child.name)
    return found


def _parts(path: Path) -> list[str]:
    """Return the digests of a composition's adapters; none for anything else, or where it cannot be read."""
    with contextlib.suppress(AdapterHubError, OSError):
        if document_of(path) is not None:
            return [pin.digest for pin in arrangement.read(path).adapters.values()]
    return []


def _staying(everything: list[Kept], root: Path, limit: float, *, locked: bool) -> set[str]:
    """Return the artifacts that stay: used since, or named by a lock; and all adapters of compositions that stay."""
    locks = cache_roots.locks(root).values()
    named = set() if locked else {known for lock in locks for pin in lock.pins() for known in pin.identities}
    stay = {one.identity for one in everything if one.used > limit or one.identity in named}
    return stay | {part for one in everything if one.identity in stay for part in _parts(one.path)}


def _unneeded(root: Path, gone: Collection[str]) -> tuple[str, ...]:
    """Return the digests of the objects that no other artifact lays out; new ones of nobody are left a day."""
    inodes = _inodes(root)
    needed: set[str] = set()
    before: set[str] = set()
    for home in _children(root / "artifacts"):
        (before if f"sha256:{home.name}" in gone else needed).update(_digests(home, inodes))
    limit = time.time() - DAY
    return tuple(
        f"sha256:{path.name}"
        for path, status in _statuses(_objects(root))
        if path.name not in needed and (path.name in before or status.st_mtime < limit)
    )


def _folders(root: Path, *, indexes: bool) -> Iterator[Path]:
    limit = time.time() - DAY
    yield from (path for path, status in _statuses(_children(root / "tmp")) if status.st_mtime < limit)
    yield from (root / name for name in INDEXES if indexes)


def _remove(root: Path, gone: Iterable[Kept], objects: Iterable[str], folders: Iterable[Path]) -> None:
    store = Store(root)
    for one in gone:
        _remove_folder(root, one.path.parent)
    for identity in objects:
        store.remove(identity)
    for path in folders:
        if path.is_dir():
            _remove_folder(root, path)
        else:
            path.unlink(missing_ok=True)


def _remove_folder(root: Path, folder: Path) -> None:
    """Remove a folder: it is gone from its place at once, and as a whole."""
    aside = root / "tmp" / os.urandom(8).hex()
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AdapterHubError(f"cannot remove {folder}: {error.strerror or error}") from error
    shutil.rmtree(aside, ignore_errors=True)


def _identity(path: Path, inodes: Mapping[tuple[int, int], str]) -> str:
    """Return the digest that names a laid-out file or folder."""
    if path.is_file():
        return f"sha256:{_digest(path, inodes)}"
    files = [
        ArtifactFile(
            path=file.relative_to(path).as_posix(), digest=f"sha256:{_digest(file, inodes)}", size=file.stat().st_size
        )
        for file in path.rglob("*")
        if file.is_file()
    ]
    return Content(url="", files=tuple(files)).identity


def _digests(home: Path, inodes: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """Yield the digests of an artifact's files."""
    for path in home.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield _digest(path, inodes)


def _digest(path: Path, inodes: Mapping[tuple[int, int], str]) -> str:
    """Return the digest of a laid-out file: it is the object itself, or a copy, which is hashed."""
    status = path.stat()
    return inodes.get((status.st_dev, status.st_ino)) or digest.hexadecimal(digest.of_file(path))


def _inodes(root: Path) -> dict[tuple[int, int], str]:
    """Return what tells the objects' files apart → their digests as their names say."""
    return {(status.st_dev, status.st_ino): path.name for path, status in _statuses(_objects(root))}


def _objects(root: Path) -> Iterator[Path]:
    for folder in _children(root / "objects" / "sha256"):
        yield from _children(folder)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _statuses(found: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield files with what the system says of them; one that another process has just removed is left out."""
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            yield path, path.lstat()


def _size(path: Path) -> int:
    """Return the bytes' number of a file, or of all files below a folder."""
    inside = (child for child in path.rglob("*") if not child.is_dir()) if path.is_dir() else [path]
    return sum(status.st_size for _, status in _statuses(inside))
