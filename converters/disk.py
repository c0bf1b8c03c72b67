"""Files of adapters on the disk: opened only if they are what they seem, written whole or not at all."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, NotFoundError, StateError

MAP_FROM = 64 * 2**20
"""Files from this size on are mapped instead of read, in bytes."""

BLOCK = 2**20
"""So many bytes of a large file are in memory at a time."""

AT_ONCE = 2**26
"""So many bytes the system is asked to copy at once."""


def open_regular(path: Path, *, inside: Path | None = None) -> BinaryIO:
    """Return an open regular file, without waiting on pipes or devices.

    Args:
        path: the file; a symbolic link is followed.
        inside: a folder that the file must lie in once its links are followed (or in the blobs of the same cache, where
            the folder is a snapshot in the cache of huggingface_hub).

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is a folder, pipe, device or a link that leads out of the folder or nowhere.
    """
    try:
        if inside is not None:
            _check_inside(path, inside)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="check the path") from None
    except FormatError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{path} cannot be opened: {_reason(error)}", hint=_PLAIN) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FormatError(f"{path} is a folder, pipe or device, not a file", hint=_PLAIN)
    return os.fdopen(handle, "rb")


def names_in(folder: Path) -> frozenset[str]:
    """Return the names of what is in a folder.

    Raises:
        FormatError: it cannot be listed.
    """
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise FormatError(f"the folder {folder} cannot be read: {_reason(error)}", hint="check its rights") from None


def read_bounded(path: Path, limit: int, *, inside: Path | None = None) -> bytes:
    """Return the bytes of a regular file of at most limit bytes.

    Raises:
        NotFoundError, FormatError: as open_regular, or the file is larger.
    """
    with open_regular(path, inside=inside) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FormatError(f"{path} is larger than {limit} bytes", hint="no adapter needs that; the file is damaged")
    return data


class Mapped(mmap.mmap):
    """A file mapped into memory; writing to the memory does not change the file."""

    def seekable(self) -> bool:
        """Return True, as zipfile asks."""
        return True


def content(file: BinaryIO, path: Path, *, map_from: int = MAP_FROM) -> bytearray | Mapped:
    """Return the content of an open file: read where it is small, and so safe from being cut while in use, else mapped.

    map_from: the size that is not small any more, in bytes.

    Raises:
        FormatError: there is no room for it.
    """
    size = file.seek(0, os.SEEK_END)
    if size >= map_from:
        try:
            return Mapped(file.fileno(), size, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise FormatError(f"{path} of {size} bytes cannot be mapped into memory: {_reason(error)}") from None
    data = bytearray(size)
    file.seek(0)
    read = file.readinto(data)  # type: ignore[attr-defined]
    return data if read == size else data[:read]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of another file, which are written without passing through memory where the system can do that.

    Attributes:
        file: the file, open for as long as the stretch is used.
        begin: where they begin.
        length: how many they are.
    """

    file: BinaryIO
    begin: int
    length: int

    def copy_to(self, target: BinaryIO) -> None:
        """Write the bytes at the end of a file that is being written.

        Raises:
            FormatError: the file ends before.
        """
        target.flush()
        done = 0
        while done < self.length and (count := self._copied(target, done)):
            done += count
        for block in self.blocks(done):
            target.write(block)

    def blocks(self, done: int = 0) -> Iterator[memoryview]:
        """Yield the bytes, but for the first ones, through one block of memory.

        Raises:
            FormatError: the file ends before.
        """
        block = memoryview(bytearray(min(BLOCK, self.length - done)))
        self.file.seek(self.begin + done)
        while done < self.length:
            part = block[: self.length - done]
            if self.file.readinto(part) != len(part):  # type: ignore[attr-defined]
                raise FormatError(f"{self.file.name} ends within its tensors", hint="fetch it again")
            yield part
            done += len(part)

    def _copied(self, target: BinaryIO, done: int) -> int:
        """Return how many bytes the system has copied, 0 where it does not do that between these files."""
        try:
            place, count = self.begin + done, min(self.length - done, AT_ONCE)
            return os.copy_file_range(self.file.fileno(), target.fileno(), count, offset_src=place)
        except (AttributeError, OSError):
            return 0


Chunk = bytes | memoryview | Stretch


def write_atomic(path: Path, chunks: Iterable[Chunk], *, force: bool = False) -> None:
    """Write a file whole or not at all: a temporary file in the same folder, then a rename.

    Raises:
        StateError: the file exists and force is not set, or it cannot be written.
    """
    if not force and os.path.lexists(path):
        raise StateError(f"{path} exists already", hint="choose another path, or force overwriting")
    try:
        with _temporary(path) as file:
            for chunk in chunks:
                if isinstance(chunk, Stretch):
                    chunk.copy_to(file)
                else:
                    file.write(chunk)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {_reason(error)}", hint="check the path and its rights") from None


def write_folder(
    path: Path, fill: Callable[[Path], object], *, force: bool = False, owned: Collection[str] = ()
) -> Path:
    """Return path after writing it: a folder that is made beside it and then put in its place.

    With force its files are put into a folder that holds something. Who is killed meanwhile leaves the old files, or
    files without a JSON document to tell what they are, or the new ones, but no mixture that could be read.

    Args:
        path: the folder.
        fill: writes the files into the folder that it is given.
        force: write into a folder that holds something.
        owned: names of the files that would be read in place of the new ones, or with them; they are taken away.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    if path.is_dir() and any(path.iterdir()) and not force:
        raise StateError(f"{path} exists already and is not empty", hint="choose another path, or force overwriting")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        fill(temporary)
        if path.is_dir():
            _put_into(path, temporary, owned)
        else:
            temporary.rename(path)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}", hint="check the path and its rights") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _put_into(path: Path, fresh: Path, owned: Collection[str]) -> None:
    """Move the files of a fresh folder into another one: documents last, and the old ones gone before anything else."""
    names = sorted((file.name for file in fresh.iterdir()), key=lambda name: (name.endswith(".json"), name))
    stale = sorted({*owned, *names}, key=lambda name: (not name.endswith(".json"), name))
    for name in stale:
        if name.endswith(".json") or name not in names:
            (path / name).unlink(missing_ok=True)
    for name in names:
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)
        (fresh / name).replace(path / name)


def sha256(data: bytes | bytearray) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of(digests: Mapping[str, str]) -> str:
    """Return the digest of a folder: that of a text with a line `<digest>  <file>` for each file, sorted by file."""
    return sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode())


_PLAIN = "adapter files must be plain files in their own folder; copy them there (cp -L)"


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """Give a file that becomes path when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_inside(path: Path, folder: Path) -> None:
    real, home = path.resolve(strict=True), folder.resolve(strict=True)
    if real.is_relative_to(home):
        return
    if home.parent.name == "snapshots" and real.is_relative_to(home.parent.parent / "blobs"):
        return
    raise FormatError(f"{path} is a link that leads out of {folder}", hint=_PLAIN)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
