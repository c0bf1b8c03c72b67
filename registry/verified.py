"""The digests of files that this process has hashed, kept as long as nothing about the file has changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeAlias

from . import digest

Stamp: TypeAlias = tuple[int, int, int, int, int]

_SETTLED_NANOSECONDS = 2_000_000_000
_known: dict[Stamp, str] = {}


def digest_of(path: Path) -> str:
    """Return the digest of a file: hashed now, or before in this process and unchanged since.

    Raises:
        OSError: it cannot be read.
    """
    before = _stamp(path)
    if before in _known:
        return _known[before]
    actual = digest.of_file(path)
    # Not kept while the file is so new that another change could leave it with the same times.
    if _stamp(path) == before and time.time_ns() - max(before[3:]) > _SETTLED_NANOSECONDS:
        _known[before] = actual
    return actual


def _stamp(path: Path) -> Stamp:
    """Return what changes when a file does; the last is the time of any change, which programs cannot set back."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
