"""Receiving: bytes that come in, written to a file, counted, hashed, and gone on with where they broke off.

What came before a source failed, or the process died, stays in a partial file; the next try hashes it and asks for the
rest only. Nothing that differs from its promise stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from ..errors import AdapterHubError, DigestError
from . import atomic
from .remote import BLOCK

if TYPE_CHECKING:
    import hashlib
    from typing import BinaryIO

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many of how many bytes are here, 0 being unknown; called by several threads, one at a time."""

AT_ONCE = 4
"""Files that are fetched at the same time."""

MOST = 4 << 30
"""Bytes that a file of unknown size may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a file has to be.

    Attributes:
        path: its path in its artifact.
        digest: `sha256:<hex>` of its bytes.
        size: its bytes' number, or None where that is not known.
    """

    path: str
    digest: str
    size: int | None


class Read(Protocol):
    """Takes the path of a file within its artifact ("" for a single file), and yields its bytes from start on."""

    def __call__(self, path: str, start: int, /) -> Iterable[bytes]:
        """Yield the bytes."""
        ...


class Meter:
    """Counts the bytes of several files together, and tells how far they are."""

    def __init__(self, sizes: Iterable[int | None], progress: Progress | None) -> None:
        known = list(sizes)
        self.total = 0 if None in known else sum(size or 0 for size in known)
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def add(self, count: int) -> None:
        """Count bytes; a negative number takes back what has to be fetched again."""
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(min(self._done, self.total or self._done), self.total)


def receive(read: Read, inner: str, part: Path, file: Promise, what: str, meter: Meter) -> None:
    """Fill the partial file with a file's bytes, all of them checked and on the disk.

    Raises:
        DigestError: the bytes differ from the promise; nothing of them is kept.
        AdapterHubError: from the source; what came until then is kept.
        OSError: the disk cannot hold them; nothing is kept.
    """
    begun = part.stat().st_size if part.exists() else 0
    try:
        _fill(read, inner, part, file, what, meter)
    except DigestError:
        part.unlink(missing_ok=True)
        if not begun:
            raise
        # What was there may have been the beginning of other bytes, or damaged since.
        meter.add(-(begun if file.size is None else file.size))
        receive(read, inner, part, file, what, meter)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _fill(read: Read, inner: str, part: Path, file: Promise, what: str, meter: Meter) -> None:
    """Write the partial file to its end, and check all of it."""
    import hashlib

    hashed = hashlib.sha256()
    with part.open("ab+") as target:
        count = _known(target, hashed)
        meter.add(count)
        if file.size is None or count < file.size:
            most = MOST if file.size is None else file.size
            count = _append(read(inner, count), target, hashed, count, most, meter)
        _check(count, f"sha256:{hashed.hexdigest()}", file, what)
        target.flush()
        atomic.flush_to_disk(target.fileno())


def _known(target: BinaryIO, hashed: hashlib._Hash) -> int:
    """Return how many bytes are in the file, which are hashed."""
    target.seek(0)
    count = 0
    while block := target.read(BLOCK):
        hashed.update(block)
        count += len(block)
    return count


def _append(
    blocks: Iterable[bytes], target: BinaryIO, hashed: hashlib._Hash, count: int, most: int, meter: Meter
) -> int:
    """Return how many bytes there are with these blocks, no more than one block beyond most."""
    for block in _until(blocks, meter.stopped):
        count += len(block)
        meter.add(len(block))
        if count > most:
            break
        hashed.update(block)
        target.write(block)
    return count


def _until(blocks: Iterable[bytes], stopped: threading.Event) -> Iterator[bytes]:
    for block in blocks:
        if stopped.is_set():
            raise AdapterHubError("another file could not be fetched")
        yield block


def _check(count: int, actual: str, file: Promise, what: str) -> None:
    """Raise where the bytes are not those that were promised.

    Raises:
        DigestError: they have another number or another digest.
    """
    size = min(count, MOST) if file.size is None else file.size
    if count != size:
        found = f"more than {size}" if count > size else str(count)
        promised = f"{file.digest} ({size if file.size is not None else f'at most {MOST}'} bytes)"
        raise DigestError(what, expected=promised, actual=f"another one ({found} bytes)")
    if actual != file.digest:
        raise DigestError(what, expected=file.digest, actual=actual)


def at_once(tasks: Iterable[Callable[[], T]], meter: Meter) -> list[T]:
    """Return what the tasks return, several being done at the same time; the first that fails stops the others."""
    todo = list(tasks)
    if len(todo) < 2:
        return [task() for task in todo]
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(min(AT_ONCE, len(todo))) as pool:
        futures = [pool.submit(task) for task in todo]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((error for future in done if (error := future.exception()) is not None), None)
            if failed is not None:
                raise failed
        except BaseException:
            # Also at Ctrl-C: nothing new begins, and what is under way ends with its next block.
            meter.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]
