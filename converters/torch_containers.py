"""The two containers of `torch.save`: a zip archive since torch 1.6, pickles and storages in a row before it.

The archive has `<top>/data.pkl` and a member `<top>/data/<key>` for each storage. The older container has five pickles
(a magic number, a version, the machine, the value, the keys of the storages), then for each storage the number of its
elements in 8 bytes and the elements.

Source: torch/serialization.py (`_save`, `_legacy_save`), version 2.13.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

from ..errors import FormatError
from . import pickle_data, zips
from .disk import Mapped
from .torch_records import Storage, entries_of, view_of

PICKLE_LIMIT = 4 * 2**20
"""Largest pickle, in bytes: some 15,000 tensors."""

StorageBytes = Callable[[Storage], bytes | None]
"""Storage → its bytes, None where the file has none of its key."""


def open_container(data: bytearray | Mapped, what: str) -> tuple[Any, StorageBytes]:
    """Return the value that a file's pickle describes and what gives the bytes of its storages.

    Raises:
        FormatError: it is neither container, damaged, or hostile.
    """
    return (_zipped if data[:4] == b"PK\x03\x04" else _legacy)(data, what)


_AGAIN = "the file is damaged or not a file of tensors; fetch it again, or ask its author for a safetensors file"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def _zipped(data: bytearray | Mapped, what: str) -> tuple[Any, StorageBytes]:
    """Return the pickled value and what gives a storage's bytes, of a zip archive."""
    members = _members(data, what)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FormatError(f"{what} is a zip archive without exactly one data.pkl", hint=_AGAIN)
    top = pickles[0].removesuffix("data.pkl")
    if len(members[pickles[0]]) > PICKLE_LIMIT:
        raise FormatError(f"{what} has a pickle of more than {PICKLE_LIMIT} bytes", hint=_AGAIN)
    if members.get(f"{top}byteorder", b"little") != b"little":
        raise FormatError(f"{what} was written in big-endian byte order", hint="write it again as safetensors")
    value = pickle_data.load(io.BytesIO(members[pickles[0]]), what)
    return value, lambda storage: members.get(f"{top}data/{storage.key}")


def _members(data: bytearray | Mapped, what: str) -> dict[str, bytes]:
    """Return name → content of an archive's members, all of which together are no larger than the archive."""
    zips.check_directory(_stream(data), what, _AGAIN)
    fault, found = "", {}
    try:
        with zipfile.ZipFile(_stream(data)) as archive:
            fault = _fault(archive.infolist(), len(data))
            if not fault:
                found = {info.filename: archive.read(info) for info in archive.infolist()}
    except zips.ERRORS as error:
        fault = f"that is damaged ({error})"
    if fault:
        raise FormatError(f"{what} is a zip archive {fault}", hint=_AGAIN)
    return found


def _fault(members: list[zipfile.ZipInfo], size: int) -> str:
    """Return what is wrong with compressed, repeated and overlapping members, which zip bombs have, or ""."""
    if len({info.filename for info in members}) != len(members):
        return "with two members of one name"
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        return "with compressed members, no file of torch.save"
    return "whose members claim more bytes than it has" if sum(info.file_size for info in members) > size else ""


def _stream(data: bytearray | Mapped) -> BinaryIO:
    """Return data as an open file."""
    return cast("BinaryIO", data) if isinstance(data, Mapped) else io.BytesIO(data)


def _legacy(data: bytearray | Mapped, what: str) -> tuple[Any, StorageBytes]:
    """Return the pickled value and what gives a storage's bytes, of the container before torch 1.6."""
    file = io.BytesIO(data[:PICKLE_LIMIT])
    if pickle_data.load(file, what) != _MAGIC or pickle_data.load(file, what) != _PROTOCOL:
        raise FormatError(f"{what} is no file of torch.save", hint=_AGAIN)
    system = pickle_data.load(file, what)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(f"{what} was not written in little-endian byte order", hint="write it again as safetensors")
    value, keys, start = pickle_data.load(file, what), pickle_data.load(file, what), file.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError(f"{what} has no list of storages", hint=_AGAIN)
    place = {key: number for number, key in enumerate(keys)}
    views = [view_of(item) for item in (entries_of(value) or {}).values()]
    widths = {view.storage.key: view.storage.width for view in views if view is not None}
    starts = _legacy_starts(data, keys, widths, start, what)

    def storage_bytes(storage: Storage) -> bytes | None:
        if storage.key not in place:
            return None
        begin, end = starts[place[storage.key]]
        return bytes(data[begin:end])

    return value, storage_bytes


def _legacy_starts(
    data: bytearray | Mapped, keys: list[str], widths: Mapping[str, int], start: int, what: str
) -> list[tuple[int, int]]:
    """Return where each storage begins and ends: 8 bytes with the number of elements, then the elements."""
    places = []
    for key in keys:
        count = struct.unpack_from("<q", data, start)[0] if start + 8 <= len(data) else -1
        begin, end = start + 8, start + 8 + count * widths.get(key, 1)
        if count < 0 or key not in widths or end > len(data):
            raise FormatError(f"{what} is cut off or damaged at storage {key!r}", hint=_AGAIN)
        places.append((begin, end))
        start = end
    if start != len(data):
        raise FormatError(f"{what} has {len(data) - start} bytes after its last storage", hint=_AGAIN)
    return places
