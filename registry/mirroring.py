"""Mirroring: all adapters of a registry into a folder, as one task for each name.

    adapters/<name>/<version>/<base model>/<format>/…    the files of an artifact
    .mirror/                                             what is being fetched, and the lock of who does that

A task fetches what its entry names and the folder lacks, checks it, and enters the versions; of one in the index it is
known that this was done. Who is stopped goes on where he was, also in the middle of a file. An index in one file is
written now and then and at the end, a sharded one with each task. Nothing is removed from the folder.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import AdapterHubError, IntegrityError, StateError
from . import atomic, digest, editing, paths, receiving, remotes, sharding, shards, tasks
from .index import Entries, Index
from .lookup import Lookup
from .receiving import Meter, Promise
from .records import Artifact, Entry, Release, ascending
from .registry import INDEX, Registry
from .remote import Source
from .sources import pinned_sources
from .store import file_name, files_of

WORK = ".mirror"
WRITE_SECONDS = 30.0
"""So often an index in one file is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a task did.

    Attributes:
        artifacts: so many artifacts are new in the folder.
        size: so many bytes were fetched for them.
        entry: what its index says now.
    """

    artifacts: int
    size: int
    entry: Entry


@dataclass(slots=True)
class Mirror:
    """A folder that gets what a registry has.

    Attributes:
        source: the registry.
        folder: where it is mirrored to.
        keep_urls: leave files that lie elsewhere where they are, and name them as the source does.
        offline: refuse to use the network.
        fetched: bytes that have come in.
    """

    source: Registry
    folder: Path
    keep_urls: bool = False
    offline: bool = False
    fetched: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pending: dict[str, Entry] = field(default_factory=dict)
    _written: float = field(default_factory=time.monotonic)

    def run(self, jobs: int, progress: Callable[[int, int], None] | None = None) -> tasks.Report[Copied]:
        """Mirror all entries and return what came of them; progress is told how many of how many have ended.

        Raises:
            StateError: another process mirrors to the folder.
            UnsupportedError: the registry cannot be listed.
            AdapterHubError: the folder cannot be written.
        """
        index = self.source.index.whole()
        names = list(index.names())
        if progress is not None:
            progress(0, len(names))
        with self._held():
            there = self._prepare()
            try:
                work = (tasks.Task(name, self._task(name, index, there)) for name in names)
                told = None if progress is None else lambda done: progress(done, len(names))
                return tasks.run(work, jobs, told)
            finally:
                self._write()

    def plan(self) -> tasks.Report[Copied]:
        """Return what would be done, size being what would be fetched."""
        index, there = self.source.index.whole(), editing.load(self.folder / INDEX, create=True)
        work = (tasks.Task(name, self._planned(name, index, there)) for name in index.names())
        return tasks.run(work, 1)

    def _task(self, name: str, index: Lookup, there: Index) -> Callable[[], Copied]:
        def run() -> Copied:
            ours = self._ours(name, there)
            merged, missing = joined(name, index.entry(name), ours, self._url)
            size = sum(self._bring(name, artifact, url) for artifact, url in missing)
            if ours is None or merged.to_json() != ours.to_json():
                self._enter(name, merged, sharded=there.sharded)
            return Copied(artifacts=len(missing), size=size, entry=merged)

        return run

    def _planned(self, name: str, index: Lookup, there: Index) -> Callable[[], Copied]:
        def run() -> Copied:
            merged, missing = joined(name, index.entry(name), self._ours(name, there), self._url)
            size = sum(artifact.total_size or 0 for artifact, _ in missing if not self._stays(artifact))
            return Copied(artifacts=len(missing), size=size, entry=merged)

        return run

    def _ours(self, name: str, there: Index) -> Entry | None:
        """Return what the folder has of an entry."""
        if there.sharded:
            there = shards.partial([name], editing.reader(self.folder), str(self.folder))
        return there.adapters.get(name)

    def _url(self, name: str, version: str, artifact: Artifact) -> str:
        """Return where an artifact lies in the folder, or its url as it is where that is kept."""
        if self._stays(artifact):
            return artifact.url
        home = f"adapters/{name}/{version}/{artifact.base.id.replace('/', '--')}/{artifact.format}"
        return home if artifact.files else f"{home}/{file_name(artifact)}"

    def _stays(self, artifact: Artifact) -> bool:
        """Return whether an artifact is named where it lies, and not copied."""
        return self.keep_urls and paths.is_url(artifact.url) and not artifact.url.startswith("bundled:")

    def _bring(self, name: str, artifact: Artifact, url: str) -> int:
        """Fetch the files of an artifact to their places, and return how many bytes came in.

        Of its further sources those are asked that have the same bytes, too.
        """
        if self._stays(artifact):
            return 0
        errors: list[AdapterHubError] = []
        for place in (artifact.url, *pinned_sources(artifact)):
            try:
                return self._bring_from(self.source.absolute(place), name, artifact, url)
            except IntegrityError:
                raise
            except AdapterHubError as error:
                errors.append(error)
        raise errors[0]

    def _bring_from(self, place: str, name: str, artifact: Artifact, url: str) -> int:
        """Fetch the files of an artifact from one place."""
        home, count = self.source.folder_of(artifact), 0

        def read(path: str, start: int) -> Iterator[bytes]:
            nonlocal count
            source = Source(url=place, path=path, registry=home, start=start)
            for block in remotes.read(source, offline=self.offline):
                count += len(block)
                self._count(len(block))
                yield block

        for file in files_of(artifact):
            inner = file.path if artifact.files else ""
            self._bring_file(read, inner, self.folder / url / inner, file, f"{name}: {file.path}")
        return count

    def _bring_file(self, read: receiving.Read, inner: str, target: Path, file: Promise, what: str) -> None:
        """Fetch one file, unless it is there already."""
        part = self.folder / WORK / f"{digest.mark(os.fsencode(target))}.part"
        try:
            if target.is_file() and digest.of_file(target) == file.digest:
                return
            receiving.receive(read, inner, part, file, what, Meter([file.size], None))
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            atomic.flush_folder(target.parent)
        except OSError as error:
            raise atomic.unwritable(target, error) from error

    def _count(self, size: int) -> None:
        with self._lock:
            self.fetched += size

    def _enter(self, name: str, entry: Entry, *, sharded: bool) -> None:
        """Enter what is there now in the index."""
        if sharded:
            editing.edit(self.folder / INDEX, [name, *entry.aliases], lambda index: _with(index, {name: entry}))
            return
        with self._lock:
            self._pending[name] = entry
            due = time.monotonic() - self._written > WRITE_SECONDS
        if due:
            self._write()

    def _write(self) -> None:
        """Write what is pending into an index in one file."""
        with self._lock:
            if self._pending:
                names, pending = list(self._pending), dict(self._pending)
                editing.edit(self.folder / INDEX, names, lambda index: _with(index, pending), create=True)
            self._pending.clear()
            self._written = time.monotonic()

    def _prepare(self) -> Index:
        """Return the index of the folder; one of the layout of the source is made where there is none."""
        place = self.folder / INDEX
        if not place.is_file() and self.source.index.sharded:
            sharding.shard(self.folder)
        elif not place.is_file():
            Index().write(place)
        return editing.load(place)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder against other mirrors."""
        from filelock import FileLock, Timeout

        work = self.folder / WORK
        try:
            work.mkdir(parents=True, exist_ok=True)
            with FileLock(work / "lock", timeout=0):
                yield
        except Timeout as error:
            raise StateError(f"another process mirrors to {self.folder}", hint="wait for it to end") from error
        except OSError as error:
            raise atomic.unwritable(work, error) from error


def joined(
    name: str, theirs: Entry, ours: Entry | None, url_of: Callable[[str, str, Artifact], str]
) -> tuple[Entry, list[tuple[Artifact, str]]]:
    """Return an entry with the versions and artifacts of two, and those that ours lacks, with the urls they get.

    What is said of the adapter and its versions besides is as theirs has it.

    Raises:
        StateError: they have different artifacts for a version, base model and format.
    """
    missing: list[tuple[Artifact, str]] = []
    versions = dict(ours.versions) if ours else {}
    for version, release in theirs.versions.items():
        there = versions.get(version)
        artifacts = list(there.artifacts) if there else []
        for artifact in release.artifacts:
            if not _is_among(artifact, artifacts, f"{name}@{version}"):
                missing.append((artifact, url_of(name, version, artifact)))
                artifacts.append(replace(artifact, url=missing[-1][1]))
        versions[version] = _ordered(release, artifacts)
    aliases = tuple(dict.fromkeys([*theirs.aliases, *(ours.aliases if ours else ())]))
    return replace(theirs, versions=dict(ascending(versions)), aliases=aliases), missing


def _is_among(artifact: Artifact, there: list[Artifact], what: str) -> bool:
    """Return whether an artifact is among those that are there.

    Raises:
        StateError: another one for its base model and format is.
    """
    for other in there:
        if (other.base.id, other.format) == (artifact.base.id, artifact.format):
            if other.identity == artifact.identity:
                return True
            raise StateError(
                f"{what} has another {artifact.format} artifact for {artifact.base.id} there, {other.identity}",
                hint="published versions never change; find out which one is right",
            )
    return False


def _ordered(release: Release, artifacts: list[Artifact]) -> Release:
    """Return a release with artifacts in the order in which it has them; the first is the default."""
    order = [(artifact.base.id, artifact.format) for artifact in release.artifacts]
    ranks = {key: rank for rank, key in enumerate(order)}
    placed = sorted(artifacts, key=lambda one: ranks.get((one.base.id, one.format), len(ranks)))
    return replace(release, artifacts=tuple(placed))


def _with(index: Index, entries: Mapping[str, Entry]) -> Index:
    """Return an index with entries, and with what others have published of these meanwhile."""
    pairs = {name: (entry, index.adapters.get(name)) for name, entry in entries.items()}
    raw = {name: joined(name, *pair, _same_url)[0].to_json() for name, pair in pairs.items()}
    return replace(index, adapters=Entries({**index.adapters.raw, **raw}))


def _same_url(name: str, version: str, artifact: Artifact) -> str:
    return artifact.url
