"""Zip archives from outside: what is checked before zipfile makes objects of their members, and what it raises.

Source: PKWARE, APPNOTE.TXT, sections 4.3.14 (zip64 end of central directory) and 4.3.16 (end of central directory).
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import BinaryIO

from ..errors import FormatError

DIRECTORY_LIMIT = 4 * 2**20
"""Largest list of members of an archive, in bytes."""

ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    IndexError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""Whatever zipfile raises on damaged archives, texts of a wrong encoding included."""


def check_directory(file: BinaryIO, what: str, hint: str) -> None:
    """Refuse an archive whose list of members is missing or huge, before zipfile makes an object for each member.

    Raises:
        FormatError: what names the file in it.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _LONGEST_END))
    tail = file.read(_LONGEST_END)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise FormatError(f"{what} is a zip archive without an end", hint=hint)
    (length,) = struct.unpack_from("<I", tail, end + 12)
    if start + end >= 76:
        file.seek(start + end - 76)
        long = file.read(56)
        if long[:4] == b"PK\x06\x06":
            length = max(length % 0xFFFFFFFF, *struct.unpack_from("<Q", long, 40))
    if length > DIRECTORY_LIMIT:
        raise FormatError(f"{what} is a zip archive with a list of members of {length} bytes", hint=hint)


def overlapping(members: list[zipfile.ZipInfo]) -> list[str]:
    """Return a sentence for each member whose bytes are another one's too, which zip bombs have."""
    faults, end = [], 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            faults.append(f"member {info.filename[:200]!r} overlaps the one before it")
        end = max(end, info.header_offset + _SHORTEST_HEADER + info.compress_size)
    return faults


_LONGEST_END = 65_557 + 76
_SHORTEST_HEADER = 30
