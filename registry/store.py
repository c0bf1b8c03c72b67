"""Store: the bytes that are on this machine, by their digest; shared by all projects and processes.

    objects/sha256/ab/<64 hex digits>     the bytes, written once, read-only
    artifacts/<64 hex digits>/<name>      the same bytes under their file names: hard links, or copies
    tmp/                                  what is being written, or was when a process died; fetching goes on from there
    locks/<first 2 hex digits>            who is fetching what

An object appears in its place in one step, after its bytes were hashed and are on the disk: a process that dies leaves
something in tmp/ at most, and of several processes each sees nothing or all. A digest is checked before a byte is
used: whatever hands out a path has hashed the file in this process, and does so again as soon as the file's size,
times, inode or device differ from then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from ..errors import AdapterHubError, DigestError, FormatError, StateError
from . import atomic, digest, paths, receiving, verified
from .receiving import Meter, Progress, Promise, Read
from .records import Content

_LOCK_SECONDS = 120.0
_TRIES = 10
_LEFTOVER_SECONDS = 24 * 3600.0


class Store:
    """A content-addressed store in a folder; the folder is made when something is first written."""

    def __init__(self, root: Path | str | None = None) -> None:
        """Open the store at root; None is that of the settings."""
        from .settings import Settings

        self.root = Path(root) if root is not None else Settings.load().cache

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def path_of(self, digest_text: str) -> Path:
        """Return where the object of a digest lies or would lie."""
        name = digest.hexadecimal(digest_text)
        return self.root / "objects" / "sha256" / name[:2] / name

    def find(self, digest_text: str) -> Path | None:
        """Return the verified object of a digest, or None where the store has none.

        Raises:
            DigestError: the object was changed or damaged; it has been removed.
            AdapterHubError: it cannot be read.
        """
        path = self.path_of(digest_text)
        try:
            actual = verified.digest_of(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise atomic.unreadable(path, error) from error
        if actual != digest_text:
            with contextlib.suppress(OSError):
                path.unlink()
            raise DigestError(f"the stored copy {path}", expected=digest_text, actual=actual)
        return path

    def remove(self, digest_text: str) -> None:
        """Remove the object of a digest; whoever is fetching it waits, and fetches it again.

        Raises:
            AdapterHubError: the store cannot be written.
        """
        with self.held(digest_text):
            try:
                self.path_of(digest_text).unlink(missing_ok=True)
            except OSError as error:
                raise self._unwritable(error) from error

    def put(self, blocks: Iterable[bytes], expected: str, size: int, what: str) -> Path:
        """Return the object of the digest, made of blocks; nothing is kept of bytes that differ from the promise.

        Args:
            blocks: the bytes, in pieces; no more than size are taken.
            expected: the digest that they must have.
            size: their number.
            what: names the bytes in errors.

        Raises:
            DigestError: the bytes have another digest or another number.
            AdapterHubError: the store cannot be written.
        """
        file = Promise(path=what, digest=expected, size=size)
        try:
            with self._temporary() as temporary:
                receiving.receive(lambda path, start: blocks, "", temporary, file, what, Meter([size], None))
                return self._keep(temporary, expected)
        except OSError as error:
            raise self._unwritable(error) from error

    def obtain(self, content: Content, read: Read, what: str, *, progress: Progress | None = None) -> tuple[Path, bool]:
        """Return a verified path of an artifact under its file names, and whether all of it was here already.

        What is missing or damaged is read again, several files at once, from where an earlier try broke off; of several
        processes one reads and the others wait for it.

        Raises:
            DigestError: what was read differs from the promise; or the copy here is damaged and no other can be had.
            FormatError: the artifact's paths are not safe.
            AdapterHubError: from read, or because the store cannot be written.
        """
        files = files_of(content)
        paths.refuse_unsafe([file.path for file in files], what)
        for _ in range(_TRIES):
            cached = self._bring(content, files, read, what, progress)
            try:
                return self._lay_out(content, files), cached
            except FileNotFoundError:
                continue  # It was pruned in this moment.
            except OSError as error:
                raise self._unwritable(error) from error
        raise StateError(f"{what} is removed from the cache as often as it is fetched", hint="try again later")

    def _bring(
        self, content: Content, files: tuple[Promise, ...], read: Read, what: str, progress: Progress | None
    ) -> bool:
        """Make sure that the objects of all files are here, and return whether they were."""
        damages: dict[str, DigestError | None] = {}
        for file in files:
            self._look(file, damages)
        inner = {file.path: path for file, path in zip(files, _inner_paths(content), strict=True)}
        # Equal files are fetched once.
        missing = {file.digest: file for file in reversed(files) if file.digest in damages}.values()
        meter = Meter([file.size for file in missing], progress)
        fetch = [
            partial(self._ensure, file, read, inner[file.path], what, damages[file.digest], meter) for file in missing
        ]
        return all(receiving.at_once(fetch, meter))

    def _look(self, file: Promise, damages: dict[str, DigestError | None]) -> None:
        """Note a file's digest where its object is not here, with the error if that was damaged."""
        try:
            if self.find(file.digest) is None:
                damages.setdefault(file.digest, None)
        except DigestError as error:
            damages[file.digest] = error
            _warn(f"{error.message}; it is fetched again")

    def _ensure(
        self, file: Promise, read: Read, inner: str, what: str, damage: DigestError | None, meter: Meter
    ) -> bool:
        """Make sure that a file's object is here; return whether another process has brought it meanwhile."""
        with self.held(file.digest) as alone:
            if self.find(file.digest) is not None:
                meter.add(file.size or 0)
                return damage is None
            try:
                self._fetch(file, read, inner, f"{what}: {file.path}", meter, alone=alone)
            except AdapterHubError as error:
                if damage is None:
                    raise
                raise damage from error
        return False

    def _fetch(self, file: Promise, read: Read, inner: str, what: str, meter: Meter, *, alone: bool) -> None:
        """Bring a file's object here; alone says that nobody else writes its partial file."""
        try:
            with self._partial(file.digest) if alone else self._temporary() as part:
                receiving.receive(read, inner, part, file, what, meter)
                self._keep(part, file.digest)
        except OSError as error:
            raise self._unwritable(error) from error

    def _keep(self, part: Path, digest_text: str) -> Path:
        """Move a file that was checked to the place of its object, and return that."""
        path = self.path_of(digest_text)
        path.parent.mkdir(parents=True, exist_ok=True)
        _move_into_place(part, path)
        atomic.flush_folder(path.parent)
        return path

    def _lay_out(self, artifact: Content, files: tuple[Promise, ...]) -> Path:
        """Return the path under which the artifact's files have their names, each the verified object itself."""
        home = self.root / "artifacts" / digest.hexadecimal(artifact.identity)
        name = file_name(artifact)
        folder = home / name if artifact.files else home
        if artifact.files:
            _refuse_strangers(folder, {file.path for file in files})
        for file in files:
            self._link(self.path_of(file.digest), folder / file.path, file.digest)
        # Says when it was used last; a cache that cannot be written is used without.
        with contextlib.suppress(OSError):
            os.utime(home)
        return home / name

    def _link(self, source: Path, target: Path, digest_text: str) -> None:
        """Make target the same file as source, or where links cannot be made, a verified copy."""
        if _is_good(target, source, digest_text):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._temporary() as temporary:
            temporary.unlink()
            try:
                os.link(source, temporary)
            except OSError:
                import shutil

                shutil.copyfile(source, temporary)
            temporary.replace(target)
        # Another process may remove the object in this moment, or lay it out too; its bytes are what counts.
        if not _is_good(target, source, digest_text) and (actual := digest.of_file(target)) != digest_text:
            raise DigestError(f"{target}", expected=digest_text, actual=actual)

    @contextlib.contextmanager
    def _partial(self, digest_text: str) -> Iterator[Path]:
        """Yield the partial file of an object, which stays where it holds something."""
        folder = self._tmp()
        part = folder / f"{digest.hexadecimal(digest_text)}.part"
        try:
            yield part
        finally:
            if part.is_file() and not part.stat().st_size:
                part.unlink()

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield a new empty file in tmp/; what is left of it afterwards is removed."""
        import tempfile

        handle, name = tempfile.mkstemp(dir=self._tmp())
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _tmp(self) -> Path:
        """Return the folder of what is being written, rid of what is old."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        return folder

    @contextlib.contextmanager
    def held(self, digest_text: str) -> Iterator[bool]:
        """Hold the lock of a digest, and yield True; after two minutes go on without it.

        That costs a second reading and no harm.
        """
        from filelock import FileLock, Timeout

        path = self.root / "locks" / digest.hexadecimal(digest_text)[:2]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            with contextlib.suppress(Timeout, NotImplementedError):
                lock.acquire(timeout=_LOCK_SECONDS)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> AdapterHubError:
        return AdapterHubError(
            f"cannot write to the cache {self.root}: {error.strerror or error}",
            hint="free space or permissions are missing; set ADAPTERHUB_CACHE to a folder that can be written",
        )


def file_name(artifact: Content) -> str:
    """Return the last part of an artifact's url, without revision and query, or `artifact` where that is no file name.

    The version stays in it: bundled:sst2-bert-1.0.0.safetensors → sst2-bert-1.0.0.safetensors.
    """
    place = artifact.url.partition("?")[0].partition("#")[0]
    name = PurePosixPath(place.removeprefix("bundled:")).name.partition("@")[0]
    return "artifact" if paths.fault(name) else name


def files_of(artifact: Content) -> tuple[Promise, ...]:
    """Return the files of an artifact, a single one under its own name."""
    if artifact.files:
        return tuple(Promise(path=file.path, digest=file.digest, size=file.size) for file in artifact.files)
    if artifact.digest is None:
        raise FormatError(f"artifact {artifact.url!r} has neither a digest nor files")
    return (Promise(path=file_name(artifact), digest=artifact.digest, size=artifact.size),)


def _inner_paths(artifact: Content) -> list[str]:
    """Return the paths that a remote knows the artifact's files by."""
    return [file.path for file in artifact.files] or [""]


def _warn(message: str) -> None:
    import logging

    logging.getLogger("adapterhub").warning(message)


def _move_into_place(temporary: Path, path: Path) -> None:
    temporary.chmod(0o444)
    try:
        temporary.replace(path)
    except PermissionError:
        # Windows does not replace a file that another process has open; that one has the same bytes.
        if not path.is_file() or verified.digest_of(path) != verified.digest_of(temporary):
            raise


def _refuse_strangers(folder: Path, expected: set[str]) -> None:
    """Raise where a laid-out folder holds files that are not of the artifact: a reader might take them for its own.

    Raises:
        FormatError: lists them.
    """
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    strangers = sorted(present - expected)
    if strangers:
        raise FormatError(
            f"{folder} holds files that are not of this artifact",
            faults=strangers,
            hint="remove that folder; it will be made again",
        )


def _is_good(target: Path, source: Path, digest_text: str) -> bool:
    """Return whether target is the verified file source, or a regular file with the digest."""
    try:
        status = target.lstat()
        if not stat.S_ISREG(status.st_mode):
            return False
        return os.path.samestat(status, source.lstat()) or verified.digest_of(target) == digest_text
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what processes left in tmp/ that died long ago."""
    limit = time.time() - _LEFTOVER_SECONDS
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < limit:
                path.unlink()
