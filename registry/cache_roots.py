"""Roots: the locks of projects that were written or synced with this cache, whose adapters it keeps.

<cache>/projects/<mark of the path>     the path of a lock; a lock that is gone refers to nothing
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import AdapterHubError
from . import atomic, digest
from .lock import Lock

_FOLDER = "projects"


def remember(cache: Path, lock: Path) -> None:
    """Remember a lock; where the cache cannot be written nothing is fetched either."""
    place = cache / _FOLDER / digest.mark(str(lock).encode())
    with contextlib.suppress(OSError, AdapterHubError):
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_file():
            atomic.write(place, f"{lock}\n".encode())


def locks(cache: Path) -> dict[Path, Lock]:
    """Return path → lock of all projects that are known and still have one.

    Raises:
        AdapterHubError, FormatError, SchemaError: a lock cannot be read, so that what it names is not known.
    """
    places = sorted((cache / _FOLDER).glob("*"))
    paths = sorted({Path(place.read_text("utf-8").strip()) for place in places})
    return {path: Lock.load(path) for path in paths if path.is_file()}
