"""Editing the index of a folder: read, changed and replaced under a lock, so that nobody's change is lost.

One file is replaced as a whole. Of a sharded index only the shards are locked, read and written whose names are edited;
the lock is that of their folder, so that there are 256 of them and not one for each name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StateError
from . import atomic, digest, shards, snapshots
from .copies import INDEX
from .index import Index

if TYPE_CHECKING:
    from .signing import Seal

Change = Callable[[Index], Index]
"""Takes an index and returns it changed, or itself where there is nothing to do."""


def edit(place: Path, names: Iterable[str], change: Change, *, create: bool = False, seal: Seal | None = None) -> Index:
    """Change the index in a file, or the shards beside it, and return the index that change gave.

    Args:
        place: the index file.
        names: all names and aliases that are touched; of a sharded index, change gets what they stand for.
        change: is called once or more, under the lock; what it does besides has to bear that.
        create: whether an index is made where there is none.
        seal: signs what is changed; then the index is locked as a whole.

    Raises:
        NotFoundError: there is none.
        SchemaError, FormatError: it is not valid, or would not be.
        StateError: another process has held the lock for a minute, or somebody changes the names all the time.
        AdapterHubError: it cannot be written; and whatever change raises.
    """
    with atomic.held(place):
        _sweep(place.parent, f".{place.stem}.*.tmp")
        index = load(place, create=create)
        if not index.layout:
            if seal is not None and _finish(place.parent, [INDEX], seal):
                index = load(place)
            changed = change(index)
            if changed is not index:
                changed.check(what=str(place))
                _write(place.parent, {place.name: changed.dumps()}, seal)
            return changed
        if seal is not None:
            return _edit_shards(place.parent, list(names), change, seal)
    return _edit_shards(place.parent, list(names), change, None)


def load(place: Path, *, create: bool = False) -> Index:
    """Return the index in a file; an empty one where there is none and one is to be made."""
    return Index() if create and not place.is_file() else Index.load(place)


def view(place: Path, names: Iterable[str], *, create: bool = False) -> Index:
    """Return what edit would change."""
    index = load(place, create=create)
    return shards.partial(names, reader(place.parent), str(place.parent)) if index.layout else index


def reader(folder: Path) -> shards.Read:
    """Return what reads the shards in the folder of a registry."""

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise atomic.unreadable(folder / path, error) from error

    return read


def _finish(folder: Path, paths: list[str], seal: Seal) -> bool:
    """Bring what was signed to its place where somebody died before; return whether there was anything."""
    read = reader(folder)
    data = {path: read(path) for path in paths}
    there = {path: None if one is None else digest.of_bytes(one) for path, one in data.items()}
    left = seal.begin(read, str(folder)).unfinished(there)
    _write(folder, left, None)
    return bool(left)


def _write(folder: Path, documents: Mapping[str, bytes], seal: Seal | None) -> None:
    """Write index file or shards, signed before if they are to be."""
    if seal is None:
        for path, data in documents.items():
            atomic.write(folder / path, data)
        return
    files = seal.begin(reader(folder), str(folder)).files(documents)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(folder / path, data)
    _write(folder, documents, None)
    for kept in snapshots.places(documents).values():
        (folder / kept).unlink(missing_ok=True)


def _edit_shards(folder: Path, names: list[str], change: Change, seal: Seal | None) -> Index:
    """Change the shards of these names and of all that they stand for."""
    read, where = reader(folder), str(folder)
    wanted = {*names, *shards.partial(names, read, where).adapters}
    for _ in range(10):
        with _locked(folder, wanted):
            index = shards.partial(names, read, where)
            if seal is not None and _finish(folder, [INDEX, *map(shards.path_of, filter(shards.can_be, wanted))], seal):
                index = shards.partial(names, read, where)
            if set(index.adapters) <= wanted:
                return _written(folder, index, change, wanted, seal)
        wanted |= set(index.adapters)
    raise StateError(f"others keep changing {', '.join(names)} in {folder}", hint="try again later")


def _written(folder: Path, index: Index, change: Change, wanted: Iterable[str], seal: Seal | None) -> Index:
    """Write the shards that a change makes other ones, under the locks of their folders."""
    changed = change(index)
    if changed is index:
        return index
    changed.check(str(folder))
    groups = {shards.group_of(name) for name in wanted}
    documents = shards.changes(index, changed)
    for path in documents:
        if path.split("/")[1] not in groups:
            raise StateError(f"{path} is changed without its lock", hint="edit it under this name too")
    _write(folder, documents, seal)
    return changed


def _sweep(folder: Path, pattern: str) -> None:
    """Remove what writers left that have died; who lives holds the lock that is held here."""
    for left in folder.glob(pattern):
        with contextlib.suppress(OSError):
            left.unlink()


@contextlib.contextmanager
def _locked(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Hold the shards of names against other writers; what dead ones left there is removed."""
    with contextlib.ExitStack() as stack:
        for group in sorted({shards.group_of(name) for name in names}):
            home = folder / shards.FOLDER / group
            try:
                home.mkdir(parents=True, exist_ok=True)
                stack.enter_context(atomic.held(home))
                _sweep(home, ".*.tmp")
            except OSError as error:
                raise atomic.unwritable(home, error) from error
        yield
