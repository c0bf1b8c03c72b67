"""GGUF files: metadata and tensors, read in one pass within the bounds of the file, and written in one order.

A file is `GGUF`, a version, two counts, the metadata, what the tensors are called and where they lie, and their data,
each on a multiple of the alignment. Dimensions are stored with the innermost first.

Source: the GGUF specification (docs/gguf.md of ggml), versions 2 and 3, and the package gguf 0.19.0, constants.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...errors import FormatError, UnsupportedError
from ..disk import Mapped
from ..values import octets

if TYPE_CHECKING:
    import torch

MAGIC = b"GGUF"
VERSIONS = (2, 3)
WRITES = 3
ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

MOST_ENTRIES = 4096
"""Entries that the metadata of an adapter may have."""

MOST_TENSORS = 100_000
MOST_METADATA = 16 * 2**20
"""Bytes that the metadata may have."""

LONGEST_NAME = 64
"""Bytes that llama.cpp has room for in a tensor's name, its end included."""

MOST_DIMENSIONS = 4

SCALARS: Mapping[str, tuple[int, str]] = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
"""Type of a value → its number and struct's letter for it."""

STRING, ARRAY = 8, 9
_BY_NUMBER = {number: (name, letter) for name, (number, letter) in SCALARS.items()}

Metadata = Mapping[str, list[JSON]]
"""Key → [type, value]; of an array ["array", type of its items, items]."""

TYPES: Mapping[int, tuple[str, int]] = {0: ("float32", 4), 1: ("float16", 2), 30: ("bfloat16", 2), 28: ("float64", 8)}
"""Number of a type of tensors → dtype and bytes of an element; the others are quantised or whole numbers."""

WRITTEN = ("float32", "float16", "bfloat16")
"""What llama.cpp multiplies with."""

_AGAIN = "the file is damaged or hostile; fetch it again, or convert it again with llama.cpp"


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a file holds.

    Attributes:
        metadata: key → typed value.
        tensors: name → tensor on the CPU.
    """

    metadata: dict[str, list[JSON]] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class _Cursor:
    """A place in a file, which every reading moves on and none leaves."""

    data: bytearray | Mapped
    what: str
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError(f"{self.what} ends at byte {len(self.data)}, within what it claims to hold", hint=_AGAIN)
        found = bytes(self.data[self.at : self.at + count])
        self.at += count
        return found

    def number(self, letter: str) -> JSON:
        """Return one number of struct's type letter, little-endian."""
        (found,) = struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))
        if isinstance(found, float) and not math.isfinite(found):
            raise FormatError(f"{self.what} has a number in its metadata that is not finite", hint=_AGAIN)
        return found

    def text(self) -> str:
        length = self.number("Q")
        if length > MOST_METADATA:
            raise FormatError(f"{self.what} has a text of {length} bytes in its metadata", hint=_AGAIN)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise FormatError(f"{self.what} has a text in its metadata that is no UTF-8", hint=_AGAIN) from None


@dataclass(frozen=True, slots=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * TYPES[self.kind][1]


def loads(data: bytearray | Mapped, what: str) -> Content:
    """Return metadata and tensors that lie in data; what names the file in errors.

    Raises:
        FormatError: the data break the format.
        UnsupportedError: they are of another version, byte order, or type of tensors.
    """
    cursor = _Cursor(data, what)
    tensor_count, entry_count = _head(cursor)
    metadata: dict[str, list[JSON]] = {}
    for _ in range(entry_count):
        key = cursor.text()
        if key in metadata:
            raise FormatError(f"{what} has the key {key[:80]!r} twice", hint=_AGAIN)
        metadata[key] = _value(cursor)
        if cursor.at > MOST_METADATA:
            raise FormatError(f"{what} has more than {MOST_METADATA} bytes of metadata", hint=_AGAIN)
    infos = [_info(cursor) for _ in range(tensor_count)]
    return Content(metadata, _tensors(cursor, infos, _alignment(metadata, what)))


def _head(cursor: _Cursor) -> tuple[int, int]:
    """Return how many tensors and entries of metadata there are."""
    if cursor.take(4) != MAGIC:
        raise FormatError(f"{cursor.what} is no GGUF file", hint=_AGAIN)
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = "in big-endian order" if swapped in VERSIONS else f"of version {version}"
        raise UnsupportedError(f"{cursor.what} is a GGUF file {kind}", hint="convert it again with llama.cpp of today")
    tensors, entries = cursor.number("Q"), cursor.number("Q")
    if tensors > MOST_TENSORS or entries > MOST_ENTRIES:
        raise FormatError(
            f"{cursor.what} claims {tensors} tensors and {entries} entries of metadata, allowed are "
            f"{MOST_TENSORS} and {MOST_ENTRIES}",
            hint=_AGAIN,
        )
    return tensors, entries


def _value(cursor: _Cursor) -> list[JSON]:
    number = cursor.number("I")
    if number != ARRAY:
        return list(_scalar(cursor, number))
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner == ARRAY:
        raise UnsupportedError(f"{cursor.what} has arrays of arrays in its metadata", hint=_AGAIN)
    smallest = 8 if inner == STRING else struct.calcsize(f"<{_scalar_type(cursor, inner)[1]}")
    if count > (len(cursor.data) - cursor.at) // smallest or count * smallest > MOST_METADATA:
        raise FormatError(f"{cursor.what} claims an array of {count} values in its metadata", hint=_AGAIN)
    name = "string" if inner == STRING else _scalar_type(cursor, inner)[0]
    return ["array", name, [_scalar(cursor, inner)[1] for _ in range(count)]]


def _scalar(cursor: _Cursor, number: int) -> tuple[str, JSON]:
    if number == STRING:
        return "string", cursor.text()
    name, letter = _scalar_type(cursor, number)
    return name, cursor.number(letter)


def _scalar_type(cursor: _Cursor, number: int) -> tuple[str, str]:
    if number not in _BY_NUMBER:
        raise FormatError(f"{cursor.what} has a value of the unknown type {number} in its metadata", hint=_AGAIN)
    return _BY_NUMBER[number]


def _info(cursor: _Cursor) -> _Info:
    name = cursor.text()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise FormatError(f"{cursor.what}: tensor {name[:80]!r} has {dimensions} dimensions", hint=_AGAIN)
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in TYPES:
        raise UnsupportedError(
            f"{cursor.what}: tensor {name[:80]!r} is quantised or of another type that is not read ({kind})",
            hint="convert it again with --outtype f32, f16 or bf16",
        )
    return _Info(name, shape, kind, offset)


def _alignment(metadata: Metadata, what: str) -> int:
    found = metadata.get(ALIGNMENT_KEY, ["uint32", ALIGNMENT])[1]
    if type(found) is not int or found < 8 or found & (found - 1) or found > 2**20:
        raise FormatError(f"{what} has an alignment of {found!r} bytes", hint=_AGAIN)
    return found


def _tensors(cursor: _Cursor, infos: list[_Info], alignment: int) -> dict[str, torch.Tensor]:
    """Return the tensors, each a copy of its own; they have to follow each other as the writer puts them."""
    import torch

    start = _padded(cursor.at, alignment)
    found: dict[str, torch.Tensor] = {}
    faults = []
    expected = 0
    for info in infos:
        if info.name in found:
            faults.append(f"tensor {info.name[:80]!r} is there twice")
        elif info.offset != expected:
            faults.append(f"tensor {info.name[:80]!r} lies at {info.offset}, expected {expected}")
        elif start + info.offset + info.size > len(cursor.data):
            faults.append(f"tensor {info.name[:80]!r} of {info.size} bytes goes beyond the end of the file")
        if faults:
            raise FormatError(f"{cursor.what} is no correct GGUF file", faults=faults, hint=_AGAIN)
        at, dtype = start + info.offset, getattr(torch, TYPES[info.kind][0])
        block = bytearray(cursor.data[at : at + info.size])
        found[info.name] = (torch.frombuffer(block, dtype=dtype) if block else torch.empty(0, dtype=dtype)).view(
            info.shape
        )
        expected = _padded(expected + info.size, alignment)
    return found


def _padded(count: int, alignment: int) -> int:
    return count + -count % alignment


def chunks(metadata: Metadata, tensors: Mapping[str, torch.Tensor], what: str) -> Iterator[bytes | memoryview]:
    """Give a file piece by piece: the entries and the tensors in the order of their names, general ones first.

    Raises:
        UnsupportedError: a tensor's dtype or name is none that llama.cpp takes.
        FormatError: a value is none of its type.
    """
    import torch

    kinds = {getattr(torch, name): number for number, (name, _) in TYPES.items() if name in WRITTEN}
    faults = [f"{key} is {t.dtype}" for key, t in tensors.items() if t.dtype not in kinds]
    faults += [f"{key} is longer than {LONGEST_NAME} bytes" for key in tensors if len(key.encode()) >= LONGEST_NAME]
    if faults:
        raise UnsupportedError(f"{what} cannot hold these tensors: {'; '.join(faults[:5])}", hint="convert their dtype")
    alignment = _alignment(metadata, what)
    head = struct.pack("<4sIQQ", MAGIC, WRITES, len(tensors), len(metadata))
    for key in sorted(metadata, key=lambda key: (not key.startswith("general."), key)):
        head += _text(key) + _packed(metadata[key], f"{what}: {key}")
    order, offset = sorted(tensors), 0
    for key in order:
        tensor = tensors[key]
        shape = tuple(tensor.shape)[::-1]
        head += _text(key) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kinds[tensor.dtype], offset)
        offset = _padded(offset + tensor.nbytes, alignment)
    yield head + bytes(-len(head) % alignment)
    for key in order:
        tensor = tensors[key].cpu()
        if tensor.numel():
            yield octets(tensor).numpy().data
        yield bytes(-tensor.nbytes % alignment)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _packed(value: list[JSON], what: str) -> bytes:
    """Return type and value of an entry."""
    kind = value[0]
    try:
        if kind == "array":
            _, inner, items = value
            number = STRING if inner == "string" else SCALARS[inner][0]
            return struct.pack("<IIQ", ARRAY, number, len(items)) + b"".join(_bare(inner, item) for item in items)
        return struct.pack("<I", STRING if kind == "string" else SCALARS[kind][0]) + _bare(kind, value[1])
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error):
        raise FormatError(
            f"{what} is {str(value)[:80]}, which is no typed value", hint="correct the metadata"
        ) from None


def _bare(kind: str, value: JSON) -> bytes:
    return _text(value) if kind == "string" else struct.pack(f"<{SCALARS[kind][1]}", value)
