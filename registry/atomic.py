"""Files: written so that nobody ever sees half of one, not after kill -9 either; and what is said where that fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import AdapterHubError, NotFoundError, StateError

_LOCK_SECONDS = 60


def read(path: Path, *, missing: NotFoundError) -> bytes:
    """Return the bytes of a file.

    Raises:
        NotFoundError: the given one, where there is no such file.
        AdapterHubError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing from error
    except OSError as error:
        raise unreadable(path, error) from error


def write(path: Path, data: bytes) -> None:
    """Replace the file at path by data in one step; its folder must exist.

    Raises:
        AdapterHubError: the file cannot be written; what was there before is untouched.
    """
    import tempfile

    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            flush_to_disk(file.fileno())
        Path(temporary).chmod(_mode(path))
        Path(temporary).replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    flush_folder(path.parent)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file against other writers, from before it is read until it is written back.

    The lock is a hidden file beside it, which stays; a killed process leaves no lock behind.

    Raises:
        StateError: another process has held it for a minute.
        AdapterHubError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS)
        lock.acquire()
    except Timeout as error:
        raise StateError(f"another process is writing {path}", hint="try again when it has ended") from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def flush_to_disk(descriptor: int) -> None:
    """Wait until the disk holds what was written to an open file."""
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until the disk holds the names in folder, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> AdapterHubError:
    """Return the error that says that path cannot be written, and why."""
    return AdapterHubError(
        f"cannot write {path}: {error.strerror or error}", hint="check the folder's permissions and the free space"
    )


def unreadable(path: Path, error: OSError) -> AdapterHubError:
    """Return the error that says that path cannot be read, and why."""
    return AdapterHubError(f"cannot read {path}: {error.strerror or error}", hint="check the file and its permissions")


def _mode(path: Path) -> int:
    """Return the permissions that the file has, or those that a new one gets."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
