"""Stamps: whether a file is still the one that was hashed, told without reading it.

A stamp says how a file looked when it was hashed, and what its bytes belong to. It is trusted as long as the file looks
the same. None is written for a file so new that a later change could leave it looking the same: the times of files are
no finer than two seconds on some systems. The time of any change, which programs cannot set back, is among what counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TypeAlias

from ..errors import AdapterHubError
from . import atomic

Look: TypeAlias = list[int]
"""What changes when a file does: device, inode, size, time of the last writing, time of any change."""

SETTLED_NANOSECONDS = 2_000_000_000


def read(path: Path) -> tuple[bytes, Look | None]:
    """Return the bytes of a file, and how it looks, or None where a later change could look the same.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        before = look_of(os.fstat(file.fileno()))
        now = time.time_ns()
        data = file.read()
        after = look_of(os.fstat(file.fileno()))
    settled = before == after and now - max(before[3:]) > SETTLED_NANOSECONDS
    return data, before if settled else None


def write(stamp: Path, path: Path, look: Look, belongs: str) -> None:
    """Write a stamp for a file that looks so; where it cannot be written, the file is hashed again next time."""
    with contextlib.suppress(AdapterHubError):
        atomic.write(stamp, json.dumps({"path": str(path), "look": look, "belongs": belongs}).encode())


def known(stamp: Path) -> tuple[str, Look, str]:
    """Return path, look and what the bytes belong to; empty ones where there is no stamp that can be read."""
    try:
        said = json.loads(stamp.read_bytes())
        return str(said["path"]), list(said["look"]), str(said["belongs"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", [], ""


def trusted(stamp: Path, path: Path) -> str:
    """Return what the bytes of a file belong to if it looks as its stamp says, else "".

    Raises:
        OSError: there is no such file.
    """
    stamped, then, belongs = known(stamp)
    return belongs if (stamped, then) == (str(path), look_of(path.stat())) else ""


def look_of(status: os.stat_result) -> Look:
    """Return what changes when a file or folder does."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
