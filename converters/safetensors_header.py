"""The header of a safetensors file, read and checked without torch.

A file is: 8 bytes little-endian header length n, n bytes of JSON, then the tensors' data without gaps. The JSON maps
each tensor's name to {"dtype", "shape", "data_offsets": [begin, end]}, and "__metadata__" to texts.

Source: https://github.com/huggingface/safetensors, README "Format"; the same limits as its reader, and besides no
duplicate keys, which that reader lets pass.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ..errors import FormatError
from . import json_text
from .disk import open_regular

if TYPE_CHECKING:
    from ..adapter import JSON

HARD_LIMIT = 100_000_000
"""Largest header length in bytes that a safetensors file may have, the limit of the reference."""

HEADER_LIMIT = 16 * 2**20
"""Largest header length that is read unless more is asked for: 100,000 tensors with room for a manifest."""

MOST_DIMENSIONS = 32
"""Dimensions that a tensor may have."""

LONGEST_NAME = 2000
"""Characters that a tensor's name may have."""

FIRST_READ = 16_384
"""Bytes asked for at first; most headers of adapters end within them."""

ITEM_SIZE: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "C64": 8,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
"""dtype → bytes per element, in the order of the reference's writer, which puts the last ones first."""


class RangeReader(Protocol):
    """Something that gives any range of a file's bytes: a remote, a cache, an archive member."""

    def read_range(self, start: int, length: int) -> bytes:
        """Return the bytes from start on, at most length of them, fewer only at the end of the file."""
        ...


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        dtype: name of the dtype in the format, e.g. `F32`.
        shape: its shape.
        begin: first byte, counted from the end of the header.
        end: one past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        metadata: the texts of `__metadata__`.
        tensors: name → where it lies, in the order of the data.
        data_start: offset of the data in the file.
        size: size of the whole file in bytes.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]
    data_start: int
    size: int


def read_header(source: str | Path | RangeReader, *, size: int | None = None, limit: int = HEADER_LIMIT) -> Header:
    """Return the checked header of a file, having read little more than the header.

    Args:
        source: a path, or a reader of ranges.
        size: size of the whole file, where a reader's caller knows it; a path knows it itself.
        limit: largest header length that is accepted, in bytes.

    Raises:
        NotFoundError: there is no such file.
        FormatError: the header breaks the format; every fault is listed.
    """
    if isinstance(source, (str, Path)):
        with open_regular(Path(source)) as file:
            return parse_header(FileRange(file), str(source), size=file.seek(0, 2), limit=limit)
    return parse_header(source, "the safetensors file", size=size, limit=limit)


def parse_header(reader: RangeReader, what: str, *, size: int | None, limit: int = HEADER_LIMIT) -> Header:
    """Return the checked header that reader begins with; what names the file in errors.

    Raises:
        FormatError: as read_header.
    """
    first = reader.read_range(0, FIRST_READ)
    length = _header_length(first, what, size, min(limit, HARD_LIMIT))
    if 8 + length > len(first):
        first += reader.read_range(len(first), 8 + length - len(first))
    text = first[8 : 8 + length]
    if len(text) != length:
        raise FormatError(f"{what} ends within its header", hint=_AGAIN)
    if not text.startswith(b"{"):
        raise FormatError(f"{what} has a header that is no JSON object", hint=_AGAIN)
    known = _parsed.get((text, size))
    if known is None:
        document = json_text.loads(text, f"the header of {what}")
        known = _checked(document, what, 8 + length, size)
        _remember(text, size, known)
    return known


def _remember(text: bytes, size: int | None, header: Header) -> None:
    """Keep what a small header says: adapters that are swapped from disk come again and again."""
    if len(text) <= _SMALL:
        if len(_parsed) >= _KEPT:
            _parsed.clear()
        _parsed[text, size] = header


_parsed: dict[tuple[bytes, int | None], Header] = {}
_KEPT = 32
_SMALL = 65_536
_AGAIN = "the file is damaged or no safetensors file; fetch or write it again"
_SHOWN = 20
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


class FileRange:
    """An open file as a RangeReader."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read_range(self, start: int, length: int) -> bytes:
        """Return the bytes from start on, at most length of them."""
        self._file.seek(start)
        return self._file.read(length)


def _header_length(first: bytes, what: str, size: int | None, limit: int) -> int:
    if len(first) < 8:
        raise FormatError(f"{what} has {len(first)} bytes, too few for a safetensors file", hint=_AGAIN)
    (length,) = struct.unpack_from("<Q", first)
    if length > limit:
        raise FormatError(f"{what} claims a header of {length} bytes, allowed are {limit}", hint=_AGAIN)
    if size is not None and 8 + length > size:
        raise FormatError(f"{what} claims a header of {length} bytes but has only {size} in all", hint=_AGAIN)
    return int(length)


def _checked(document: JSON, what: str, data_start: int, size: int | None) -> Header:
    """Return the header that a document describes, after every check."""
    if not isinstance(document, dict):
        raise FormatError(f"{what} has a header that is no JSON object", hint=_AGAIN)
    faults: list[str] = []
    metadata = _metadata(document.pop("__metadata__", {}), faults)
    tensors = {name: info for name, entry in document.items() if (info := _tensor(name, entry, faults))}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    if not faults:
        end = _check_order(ordered, faults)
        if size is not None and not faults:
            _check_end(end, size - data_start, faults)
    if faults:
        raise FormatError(f"{what} is no correct safetensors file", faults=_first(faults), hint=_AGAIN)
    return Header(metadata, ordered, data_start, data_start + end if size is None else size)


def _metadata(value: JSON, faults: list[str]) -> dict[str, str]:
    if value is None:  # as MLX writes it
        return {}
    if not isinstance(value, dict):
        faults.append("__metadata__ is no object")
        return {}
    faults += [f"__metadata__[{key!r}] is no text" for key, item in value.items() if not isinstance(item, str)]
    return value


def _tensor(name: str, entry: JSON, faults: list[str]) -> TensorInfo | None:
    """Return where a tensor lies, or None with what is wrong put into faults."""
    if len(name) > LONGEST_NAME:
        faults.append(f"a tensor has a name of {len(name)} characters, allowed are {LONGEST_NAME}")
        return None
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        faults.append(f"tensor {name!r}: expected exactly dtype, shape and data_offsets")
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        faults.append(f"tensor {name!r}: unknown dtype {dtype!r}; known are {', '.join(ITEM_SIZE)}")
        return None
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        faults.append(f"tensor {name!r}: shape and the two data_offsets must be lists of whole numbers from 0 on")
        return None
    count = math.prod(shape)
    if len(shape) > MOST_DIMENSIONS or (count or math.prod(size for size in shape if size)) >= 2**60:
        faults.append(f"tensor {name!r}: a shape of {len(shape)} dimensions and such sizes is no tensor")
        return None
    begin, end = offsets
    needed = count * ITEM_SIZE[dtype]
    if end - begin != needed:
        faults.append(
            f"tensor {name!r}: data_offsets {begin}..{end} hold {end - begin} bytes, shape and dtype need {needed}"
        )
        return None
    return TensorInfo(dtype, tuple(shape), begin, end)


def _counts(value: JSON) -> bool:
    """Whether value is a list of integers in 0 … 2^63 - 1."""
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110 - a generator would double the time
        if type(item) is not int or not 0 <= item < 2**63:
            return False
    return True


def _check_order(tensors: Mapping[str, TensorInfo], faults: list[str]) -> int:
    """Return the end of the data, having found overlaps and holes."""
    end = 0
    for name, info in tensors.items():
        if info.begin != end:
            kind = "overlaps the tensor before it" if info.begin < end else "leaves a hole before it"
            faults.append(f"tensor {name!r}: data_offsets {info.begin}..{info.end}: {kind}, expected to begin at {end}")
        end = max(end, info.end)
    return end


def _check_end(end: int, available: int, faults: list[str]) -> None:
    if end > available:
        faults.append(f"the data should have {end} bytes, the file ends after {available}")
    elif end < available:
        faults.append(f"{available - end} bytes follow the last tensor")


def _first(faults: list[str]) -> list[str]:
    """Return the first faults, and how many more there are: a hostile header can hold a million."""
    more = len(faults) - _SHOWN
    return faults if more <= 0 else [*faults[:_SHOWN], f"… and {more} more"]
