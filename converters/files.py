"""Where the files of an adapter lie: in a folder, or in a zip archive, as the archived AdapterHub offers them.

An archive is read where it is; nothing of it is unpacked to the disk. It holds the files of one adapter, at its top or
in one folder. All members are looked at before one is used: a name that leads out of the archive, a link, a member that
is encrypted, overlaps another one or grows beyond measure makes the whole archive refused.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ..errors import FormatError, UnsupportedError
from . import safetensors_file, torch_file, zips
from .disk import names_in, open_regular, read_bounded, sha256

if TYPE_CHECKING:
    import torch

MOST_MEMBERS = 2000
"""Members that an archive may have."""

LARGEST = torch_file.FILE_LIMIT
"""Bytes that one member may have."""

FREE = 16 * 2**20
"""Bytes that a member may have however small it was compressed."""

GROWTH = 20
"""How many times larger than compressed a larger member may be; weights of an adapter shrink by a tenth."""

MOST_SHOWN = 20
"""Faults told one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a file of weights holds.

    Attributes:
        tensors: name → tensor.
        digest: digest of the file.
        metadata: texts beside the tensors, for safetensors files.
    """

    tensors: dict[str, torch.Tensor]
    digest: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Files(Protocol):
    """Where the files of one adapter lie."""

    @property
    def path(self) -> Path:
        """The folder, or the archive."""
        ...

    def names(self) -> frozenset[str]:
        """Return the names of what is there."""
        ...

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file of at most limit bytes.

        Raises:
            FormatError: it is larger, damaged, or no plain file of this place.
        """
        ...

    def weights(self, name: str) -> Weights:
        """Return what a file of weights holds: safetensors by its ending, else what `torch.save` writes.

        Raises:
            FormatError: it is damaged, hostile, or no plain file of this place.
        """
        ...


def opened(path: Path) -> Files | None:
    """Return the folder or the zip archive at a path, or None for anything else.

    Raises:
        FormatError: it cannot be read, or is a hostile archive.
        UnsupportedError: it is an archive of several adapters.
    """
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        with open_regular(path) as file:
            if file.read(4) in _BEGINNINGS:
                return Archive(path)
    return None


def names_at(path: Path) -> frozenset[str]:
    """Return the names of the files in the folder or archive at a path, none for anything else; raises as opened."""
    files = opened(path)
    return frozenset() if files is None else files.names()


def required(path: Path) -> Files:
    """Return the folder or the archive at a path.

    Raises:
        FormatError: it is neither, cannot be read, or is hostile.
    """
    files = opened(path)
    if files is None:
        raise FormatError(f"{path} is no folder and no zip archive", hint="name the folder of the adapter")
    return files


_BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06")
_AGAIN = "fetch it again from a source that you trust"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder."""

    path: Path

    def names(self) -> frozenset[str]:
        """Return the names of what is there."""
        return names_in(self.path)

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file; see Files."""
        return read_bounded(self.path / name, limit, inside=self.path)

    def weights(self, name: str) -> Weights:
        """Return what a file of weights holds; see Files."""
        if name.endswith(".safetensors"):
            loaded = safetensors_file.load(self.path / name, digest=True, inside=self.path)
            return Weights(loaded.tensors, loaded.digest, loaded.header.metadata)
        return Weights(*torch_file.load(self.path / name, inside=self.path))


class Archive:
    """A zip archive with the files of one adapter."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _archive(path) as archive:
            members = archive.infolist()
        faults = _faults(members)
        if faults:
            shown = faults[:MOST_SHOWN] + [f"… and {len(faults) - MOST_SHOWN} more"] * (len(faults) > MOST_SHOWN)
            raise FormatError(f"the archive {path} is refused", faults=shown, hint=_AGAIN)
        self._members = _of_one_adapter({info.filename for info in members if not info.is_dir()}, path)

    def names(self) -> frozenset[str]:
        """Return the names of the files in the folder of the adapter."""
        return frozenset(self._members)

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file; see Files."""
        return bytes(self._content(name, limit))

    def weights(self, name: str) -> Weights:
        """Return what a file of weights holds; see Files."""
        data, what = self._content(name, LARGEST), f"{self.path}/{name}"
        digest = sha256(data)
        if name.endswith(".safetensors"):
            loaded = safetensors_file.loads(data, what)
            return Weights(loaded.tensors, digest, loaded.header.metadata)
        return Weights(torch_file.loads(data, what), digest)

    def _content(self, name: str, limit: int) -> bytearray:
        """Return the bytes of a file, decompressed piece by piece up to the size that was checked."""
        with _archive(self.path) as archive:
            info = archive.getinfo(self._members[name])
            if info.file_size > limit or _grows(info):
                raise FormatError(f"{self.path}/{name} is larger than {limit} bytes", hint=_AGAIN)
            data = bytearray()
            with archive.open(info) as member:
                while piece := member.read(_PIECE):
                    data += piece
        return data


_PIECE = 2**20


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Give an archive whose list of members is of bearable length; what zipfile raises becomes an error of ours."""
    with open_regular(path) as file:
        zips.check_directory(file, str(path), _AGAIN)
        try:
            with zipfile.ZipFile(_from_start(file)) as archive:
                yield archive
        except FormatError:
            raise
        except zips.ERRORS as error:
            raise FormatError(f"the archive {path} is damaged: {error}", hint=_AGAIN) from None


def _from_start(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _faults(members: list[zipfile.ZipInfo]) -> list[str]:
    """Return what is wrong with the members of an archive, one sentence each."""
    if len(members) > MOST_MEMBERS:
        return [f"it has {len(members)} members, allowed are {MOST_MEMBERS}"]
    faults = [f"member {info.filename[:200]!r} {fault}" for info in members if (fault := _fault(info))]
    names = [info.filename for info in members]
    faults += [f"member {name[:200]!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return faults + zips.overlapping(members)


def _fault(info: zipfile.ZipInfo) -> str:
    """Return what is wrong with one member, or ""."""
    name = info.filename
    parts = PurePosixPath(name).parts
    # zipfile cuts names at a zero byte and turns the system's separator into a slash; orig_filename is what is written.
    if not parts or name.startswith("/") or ".." in parts or set("\\:\x00") & set(info.orig_filename):
        return "leads out of the archive"
    if not name.isprintable() or len(name) > 1000:
        return "has a name that no file of an adapter has"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read (deflate is)"
    if info.file_size > LARGEST or _grows(info):
        return f"grows from {info.compress_size} to {info.file_size} bytes"
    return ""


def _grows(info: zipfile.ZipInfo) -> bool:
    return info.file_size > FREE and info.file_size > GROWTH * info.compress_size


def _of_one_adapter(members: set[str], path: Path) -> dict[str, str]:
    """Return name of a file → member, of the only folder with documents of an adapter; of the top where there is none.

    Raises:
        UnsupportedError: there are several such folders.
    """
    folders = {str(PurePosixPath(name).parent) for name in members if _is_document(PurePosixPath(name))}
    if len(folders) > 1:
        shown = ", ".join(sorted(folders)[:5])
        raise UnsupportedError(
            f"the archive {path} holds several adapters: {shown}", hint="unpack it, and name the folder of one"
        )
    home = PurePosixPath(folders.pop() if folders else ".")
    return {PurePosixPath(name).name: name for name in members if PurePosixPath(name).parent == home}


def _is_document(name: PurePosixPath) -> bool:
    """Return whether a member is a document of an adapter, and none of what macOS adds to archives."""
    return name.name in _DOCUMENTS and "__MACOSX" not in name.parts


_DOCUMENTS = ("adapter_config.json", "adapter_fusion_config.json", "head_config.json", "adapter_setup.json")
