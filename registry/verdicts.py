"""What is remembered of large documents that were found valid, so that the next command need not check them again.

A verdict is an empty file in the cache, named by a digest over the schemas and the document's bytes: other bytes, or
other schemas, are always checked. Whoever can write to the cache could replace the adapters themselves.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from .. import schemas

SMALL = 1 << 18
"""Documents of fewer bytes are always checked; that is faster than it seems."""


def known(folder: Path | None, data: bytes, name: str) -> bool:
    """Return whether data were found valid against the schema called name before."""
    return folder is not None and len(data) >= SMALL and _path(folder, data, name).exists()


def remember(folder: Path | None, data: bytes, name: str) -> None:
    """Remember that data are valid; where the cache cannot be written, they are checked again next time."""
    if folder is None or len(data) < SMALL:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _path(folder, data, name).touch()


def _path(folder: Path, data: bytes, name: str) -> Path:
    import hashlib

    return folder / hashlib.sha256(schemas.state().encode() + name.encode() + b"\0" + data).hexdigest()
