"""Mirroring: all adapters of a registry into a folder, as one task for each name.

    adapters/<name>/<version>/<base model>/<format>/…    the files of an artifact
    .mirror/                                             what is being fetched, and the lock of who does that

A task fetches what its entry names and the folder lacks, and checks it; then the versions are entered in the index: of
one in the index it is known that this was done. Who is stopped goes on where he was, also in the middle of a file.
Nothing is removed from the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import AdapterHubError, IntegrityError, StateError
from . import atomic, digest, editing, paths, receiving, remotes, tasks
from .growing import Entering, Growing, Spot, entry_of, growing
from .joining import joined
from .receiving import Meter, Promise
from .records import Artifact, Entry
from .registry import INDEX, Registry
from .remote import Source
from .sources import pinned_sources
from .store import file_name, files_of
from .tasks import Runner, Task

WORK = ".mirror"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a task is about.

    Attributes:
        name: name of an entry.
        theirs: the entry.
        ours: what the folder has of it.
    """

    name: str
    theirs: Entry
    ours: Entry | None

    def joined(self, *, keep_urls: bool) -> tuple[Entry, list[tuple[Artifact, str]]]:
        """Return what the folder is to have of the entry, and the artifacts that it lacks with their urls there."""
        return joined(self.name, self.theirs, self.ours, partial(url_in_folder, keep_urls=keep_urls))


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

    def run(self, runner: Runner, progress: Callable[[int, int], None] | None = None) -> tasks.Report[Copied]:
        """Mirror all entries and return what came of them; progress is told how many of how many have ended.

        Raises:
            StateError: another process mirrors to the folder.
            UnsupportedError: the registry cannot be listed.
            AdapterHubError: the folder cannot be written.
        """
        index = self.source.index.whole()
        total = len(list(index.names()))
        told = None if progress is None else lambda done: progress(done, total)
        with growing(self.folder, WORK, sharded=self.source.index.sharded, alone=runner.alone) as there:
            copy = Copy(
                source=self.source.without_entries(), spot=there.spot, keep_urls=self.keep_urls, offline=self.offline
            )
            work = (
                Task(name, Wanted(name=name, theirs=index.entry(name), ours=there.entry(name)))
                for name in index.names()
            )
            report = tasks.run(copy, work, runner, memory=_Entered(self, there), progress=told)
        return report.but(there.refused)

    def plan(self) -> tasks.Report[Copied]:
        """Return what would be done, size being what would be fetched."""
        from .local_runner import Threads

        index, there = self.source.index.whole(), editing.load(self.folder / INDEX, create=True)
        work = (
            Task(name, Wanted(name=name, theirs=index.entry(name), ours=entry_of(self.folder, there, name)))
            for name in index.names()
        )
        return tasks.run(partial(planned, keep_urls=self.keep_urls), work, Threads(1), memory=_Entered(self, None))


@dataclass(frozen=True, slots=True)
class _Entered:
    """The index of the folder, as the memory of what was done; None enters nothing."""

    mirror: Mirror
    there: Growing | None

    def recall(self, task: Task[Wanted]) -> Copied | None:
        """Return that nothing is to do where the folder has all of an entry."""
        wanted = task.value
        try:
            merged, missing = wanted.joined(keep_urls=self.mirror.keep_urls)
        except StateError:
            return None  # The task tells it.
        if missing or wanted.ours is None or merged.to_json() != wanted.ours.to_json():
            return None
        return Copied(artifacts=0, size=0, entry=merged)

    def keep(self, task: Task[Wanted], result: Copied) -> None:
        """Enter what is there now in the index, beside what others have published of it meanwhile."""
        self.mirror.fetched += result.size
        if self.there is not None:
            name, entry = task.name, result.entry
            change = partial(_with, name, entry)
            self.there.enter(Entering(task.name, name, entry.aliases, change))


def planned(wanted: Wanted, *, keep_urls: bool) -> Copied:
    """Return what the task would do."""
    merged, missing = wanted.joined(keep_urls=keep_urls)
    size = sum(artifact.total_size or 0 for artifact, _ in missing if not _stays(artifact, keep_urls=keep_urls))
    return Copied(artifacts=len(missing), size=size, entry=merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Fetches what a folder lacks of an entry: the function of the tasks.

    Attributes:
        source: the registry, without its entries.
        spot: the folder.
        keep_urls, offline: as in Mirror.
    """

    source: Registry
    spot: Spot
    keep_urls: bool
    offline: bool

    def __call__(self, wanted: Wanted) -> Copied:
        """Return what was fetched, all of it checked and on the disk."""
        self.spot.check()
        merged, missing = wanted.joined(keep_urls=self.keep_urls)
        size = sum(self._bring(wanted.name, artifact, url) for artifact, url in missing)
        return Copied(artifacts=len(missing), size=size, entry=merged)

    def _bring(self, name: str, artifact: Artifact, url: str) -> int:
        """Fetch the files of an artifact to their places, and return how many bytes came in.

        Of its further sources those are asked that have the same bytes, too.
        """
        if _stays(artifact, keep_urls=self.keep_urls):
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
                yield block

        for file in files_of(artifact):
            inner = file.path if artifact.files else ""
            self._bring_file(read, inner, self.spot.folder / url / inner, file, f"{name}: {file.path}")
        return count

    def _bring_file(self, read: receiving.Read, inner: str, target: Path, file: Promise, what: str) -> None:
        """Fetch one file, unless it is there already."""
        part = self.spot.temporary(digest.mark(os.fsencode(target)), ".part")
        try:
            if target.is_file() and digest.of_file(target) == file.digest:
                return
            receiving.receive(read, inner, part, file, what, Meter([file.size], None))
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            atomic.flush_folder(target.parent)
        except OSError as error:
            raise atomic.unwritable(target, error) from error


def url_in_folder(name: str, version: str, artifact: Artifact, *, keep_urls: bool) -> str:
    """Return where an artifact lies in the folder, or its url as it is where that is kept."""
    if _stays(artifact, keep_urls=keep_urls):
        return artifact.url
    home = f"{paths.home_of(name, version, artifact.base.id)}/{artifact.format}"
    return home if artifact.files else f"{home}/{file_name(artifact)}"


def _stays(artifact: Artifact, *, keep_urls: bool) -> bool:
    """Return whether an artifact is named where it lies, and not copied."""
    return keep_urls and paths.is_url(artifact.url) and not artifact.url.startswith("bundled:")


def _with(name: str, entry: Entry, ours: Entry | None) -> Entry:
    """Return an entry with what others have published of it meanwhile."""
    return joined(name, entry, ours, _same_url)[0]


def _same_url(name: str, version: str, artifact: Artifact) -> str:
    return artifact.url
