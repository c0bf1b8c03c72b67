"""Safetensors files: the tensors, read in one pass and written in one canonical way.

The header is in safetensors_header.py. Everything here but the reading of tensors works without torch.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DigestError, FormatError
from . import disk, json_text
from .disk import Chunk, Mapped, Stretch, content, open_regular, write_atomic
from .outline import OutlinedTensor
from .safetensors_header import (
    HEADER_LIMIT,
    ITEM_SIZE,
    FileRange,
    Header,
    RangeReader,
    TensorInfo,
    parse_header,
    read_header,
)
from .values import octets

if TYPE_CHECKING:
    import torch

__all__ = [
    "HEADER_LIMIT",
    "Header",
    "Loaded",
    "RangeReader",
    "TensorInfo",
    "dtypes",
    "dumps",
    "load",
    "loads",
    "memory_of",
    "read_header",
    "read_tensors",
    "size",
    "type_names",
    "write",
]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A file in memory.

    Attributes:
        header: its header.
        tensors: name → tensor on the CPU, in the order of the data; they share one block of memory.
        digest: `sha256:<hex>` of the whole file, or "" where it was not asked for.
    """

    header: Header
    tensors: dict[str, torch.Tensor]
    digest: str = ""


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Return name → tensor of a file, in the order of the data.

    Raises:
        NotFoundError, FormatError: as load.
    """
    return load(path).tensors


def load(path: str | Path, *, digest: bool = False, expected: str | None = None, inside: Path | None = None) -> Loaded:
    """Return header, tensors and, if asked for, the digest of a file, all of the same bytes.

    Args:
        path: the file.
        digest: compute the digest.
        expected: a digest that the file must have; it is compared before anything is parsed.
        inside: a folder that the file must lie in, its links followed.

    Raises:
        NotFoundError: there is no such file.
        DigestError: the file has another digest than the expected one.
        FormatError: the file breaks the format.
    """
    path = Path(path)
    with open_regular(path, inside=inside) as file:
        size = file.seek(0, os.SEEK_END)
        if size >= disk.MAP_FROM and not expected:
            # A file of holes can claim any size; its header is looked at before anything is done with all of it.
            parse_header(FileRange(file), str(path), size=size)
        data = content(file, path)
    if expected and (actual := _sha256(data)) != expected:
        raise DigestError(str(path), expected=expected, actual=actual)
    loaded = loads(data, str(path))
    return replace(loaded, digest=expected or _sha256(data)) if digest or expected else loaded


def loads(data: bytearray | Mapped, what: str) -> Loaded:
    """Return the tensors that lie in data, without copying; what names the file in errors.

    Raises:
        FormatError: the data break the format.
    """
    header = parse_header(_Bytes(data), what, size=len(data))
    return Loaded(header, _tensors(header, data))


def write(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> None:
    """Write tensors and metadata as the one file they determine.

    The data are sorted as the reference does it, larger elements first and then by name; the header ends on a multiple
    of 8 bytes, so every tensor is aligned.

    Raises:
        StateError: the file exists and force is not set, or cannot be written.
        FormatError: a tensor's dtype has no name in the format.
    """
    write_atomic(Path(path), _chunks(tensors, metadata or {}), force=force)


def dumps(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes that write would write.

    Raises:
        FormatError: a tensor's dtype has no name in the format.
    """
    chunks = _chunks(tensors, metadata or {})
    return b"".join(b"".join(chunk.blocks()) if isinstance(chunk, Stretch) else chunk for chunk in chunks)


def size(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> int:
    """Return how many bytes write would write.

    Raises:
        FormatError: a tensor's dtype has no name in the format.
    """
    _, header = _head(tensors, metadata or {})
    return len(header) + sum(map(_length, tensors.values()))


class _Bytes:
    """Bytes in memory as a RangeReader."""

    def __init__(self, data: bytearray | Mapped) -> None:
        self._data = data

    def read_range(self, start: int, length: int) -> bytes:
        return bytes(self._data[start : start + length])


def _sha256(data: bytearray | Mapped) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _tensors(header: Header, data: bytearray | Mapped) -> dict[str, torch.Tensor]:
    """Return views of data, one per tensor: each run of one dtype becomes one flat tensor, which is split."""
    import torch

    types = dtypes()
    tensors = {}
    for kind, run in groupby(header.tensors.items(), key=lambda item: item[1].dtype):
        dtype, width, infos = types[kind], ITEM_SIZE[kind], dict(run)
        start = header.data_start + next(iter(infos.values())).begin
        counts = [(info.end - info.begin) // width for info in infos.values()]
        flat = torch.empty(0, dtype=dtype)
        if sum(counts):
            flat = torch.frombuffer(data, dtype=dtype, count=sum(counts), offset=start)
        # What lies across the alignment of its dtype is copied to where the hardware can read it.
        flat = flat.clone() if start % width else flat
        for (name, info), values in zip(infos.items(), flat.split(counts), strict=True):
            tensors[name] = values.view(info.shape)
    return tensors


def dtypes() -> dict[str, torch.dtype]:
    """Return the format's name → dtype of torch."""
    import torch

    return {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "I16": torch.int16,
        "U16": torch.uint16,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I32": torch.int32,
        "U32": torch.uint32,
        "F32": torch.float32,
        "C64": torch.complex64,
        "F64": torch.float64,
        "I64": torch.int64,
        "U64": torch.uint64,
    }


def _chunks(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Iterator[Chunk]:
    """Give the file piece by piece: the header, then each tensor's bytes."""
    order, header = _head(tensors, metadata)
    yield header
    for key in order:
        yield from _bytes_of(tensors[key])


def _head(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> tuple[list[str], bytes]:
    """Return the names of the tensors in the order of their data, and the header with its length in front."""
    types = type_names(tensors)
    rank = {name: -place for place, name in enumerate(ITEM_SIZE)}
    order = sorted(tensors, key=lambda key: (rank[types[key]], key))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for key in order:
        begin, end = end, end + _length(tensors[key])
        entries[key] = {
            "dtype": types[key],
            "shape": list(tensors[key].shape),
            "data_offsets": [begin, end],
        }
    return order, _header_bytes(entries)


def type_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the format's name of the dtype of every tensor; torch is not loaded for outlines.

    Raises:
        FormatError: the format has none for some.
    """
    known = {key: str(t.dtype) for key, t in tensors.items() if isinstance(t, OutlinedTensor)}
    others = [key for key in tensors if key not in known]
    names = {dtype: name for name, dtype in dtypes().items()} if others else {}
    faults = [f"tensor {key!r} has dtype {tensors[key].dtype}" for key in others if tensors[key].dtype not in names]
    if faults:
        raise FormatError("safetensors files cannot hold these tensors", faults=faults)
    return known | {key: names[tensors[key].dtype] for key in others}


def _length(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _header_bytes(entries: Mapping[str, object]) -> bytes:
    text = json_text.compact(entries, "the header")
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise FormatError(f"the header would have {len(text)} bytes, allowed are {HEADER_LIMIT}")
    return struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: torch.Tensor) -> Iterator[memoryview | Stretch]:
    """Give the bytes of a tensor in row-major order."""
    if isinstance(tensor, OutlinedTensor):
        yield from tensor.stretches()
    elif tensor.numel():
        yield memory_of(tensor)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor that has values, in row-major order, without a copy where it lies so already."""
    return octets(tensor.cpu()).numpy().data
