"""The digests of files that this process has hashed, kept as long as nothing about the file has changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeAlias

from . import digest

Stamp: TypeAlias = tuple[int, int, int, int, int]

_SETTLED_NANOSECONDS = 2_000_000_000
"""How long ago a file's times must lie on file systems that count in steps of up to two seconds."""

_FINE_NANOSECONDS = 100_000_000
"""The same where they count finely, as a time that is no multiple of _COARSE_STEP shows."""

_COARSE_STEP = 10_000_000
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
    if _stamp(path) == before and _settled(before[4]):
        _known[before] = actual
    return actual


def _settled(changed: int) -> bool:
    """Return whether a file was last changed so long ago that another change would leave it with another time.

    >>> _settled(time.time_ns() // 10**9 * 10**9), _settled(time.time_ns() - 2 * 10**8 | 1)
    (False, True)
    """
    fine = changed % _COARSE_STEP != 0
    return time.time_ns() - changed > (_FINE_NANOSECONDS if fine else _SETTLED_NANOSECONDS)


def _stamp(path: Path) -> Stamp:
    """Return what changes when a file does; the last is the time of any change, which programs cannot set back."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
