"""Convert all: the adapters of a registry into one format, in a folder that becomes a registry, as one task for each.

    adapters/<name>/<version>/<base model>/<format>/…    the files of an artifact
    .convert/                                            what is being made, and the journal of what was made

There is one artifact for each version and base model: that in the format itself, which is copied, else the native one,
else the first. The folder may be that of the registry; then the versions get another format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import converters
from ..adapter import JSON
from ..errors import StateError
from ..registry import Artifact, Entry, Registry, Release, tasks
from ..registry.growing import Change, Entering, Growing, growing
from ..registry.index import with_artifact
from ..registry.journal import Journal
from ..registry.listed import Listed, shelf
from ..registry.lookup import Lookup
from ..registry.pulling import NATIVE
from ..registry.records import ascending
from ..registry.tasks import Report, Runner, Task
from .listed_conversion import Convert, Converted, Wanted, made_of

WORK = ".convert"
JOURNAL = "journal.jsonl"


def convert_all(
    registry: Registry,
    place: str,
    folder: Path,
    runner: Runner,
    *,
    to: str,
    options: Mapping[str, JSON] | None = None,
    offline: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report[Converted]:
    """Convert all adapters of a registry, and return what came of each version for each base model.

    What the folder has already is not made again, whoever was stopped.

    Args:
        registry: the registry.
        place: what it was opened by.
        folder: where to; it becomes a registry.
        runner: who does it.
        to: name of the format.
        options: what the format wants to be told besides; see Format.options.
        offline: refuse to use the network.
        dry_run: convert, and keep nothing.
        progress: is told how many of how many have ended.

    Raises:
        UnsupportedError: the registry cannot be listed.
        StateError: another process converts to the folder.
        UsageError: there is no such format.
    """
    converters.by_name(to)
    index = registry.index.whole()
    total = sum(1 for _ in _wanted(index, to, None))
    told = None if progress is None else lambda done: progress(done, total)
    source = shelf(registry, place, offline=offline)
    function = Convert(shelf=source, to=to, options=options or {}, spot=None)
    if dry_run:
        return tasks.run(function, _wanted(index, to, None), runner, progress=told)
    with growing(folder, WORK, sharded=registry.index.sharded, alone=runner.alone) as there:
        journal = Journal[Wanted, Converted](
            there.spot.folder / WORK / JOURNAL, function.mark, Converted.to_json, Converted.from_json
        )
        with journal.opened():
            memory = _Entered(there, journal)
            work = replace(function, spot=there.spot)
            report = tasks.run(work, _wanted(index, to, there), runner, memory=memory, progress=told)
    journal.close()
    return report.but(there.refused)


def _wanted(index: Lookup, to: str, there: Growing | None) -> Iterator[Task[Wanted]]:
    """Yield a task for each version and base model; there: the folder, or None for none."""
    for name in index.names():
        entry = index.entry(name)
        ours = there.entry(name) if there is not None else None
        for version, release in entry.versions.items():
            has = ours.versions.get(version) if ours is not None else None
            for base, artifact in _chosen(release, to).items():
                listed = Listed(name=name, version=version, artifact=artifact)
                wanted = Wanted(
                    listed=listed,
                    entry=replace(entry, versions={}),
                    release=replace(release, artifacts=()),
                    ours=_of(has, base, to),
                )
                yield Task(listed.title, wanted)


def _chosen(release: Release, to: str) -> dict[str, Artifact]:
    """Return base model → the artifact to convert."""
    order = (to, NATIVE)
    found: dict[str, Artifact] = {}
    for artifact in sorted(
        release.artifacts, key=lambda one: order.index(one.format) if one.format in order else len(order)
    ):
        found.setdefault(artifact.base.id, artifact)
    return {base: found[base] for base in dict.fromkeys(one.base.id for one in release.artifacts)}


def _of(release: Release | None, base: str, form: str) -> Artifact | None:
    """Return the artifact of a release for a base model in a format, or None."""
    among = release.artifacts if release is not None else ()
    return next((one for one in among if (one.base.id, one.format) == (base, form)), None)


@dataclass(frozen=True, slots=True)
class _Entered:
    """The index of the folder, and the journal of what is not yet in it, as the memory of what was done."""

    there: Growing
    journal: Journal[Wanted, Converted]

    def recall(self, task: Task[Wanted]) -> Converted | None:
        """Return what the folder has of a task, in the index from now on."""
        wanted = task.value
        if wanted.ours is not None:
            if not made_of(wanted.ours, wanted.listed.artifact):
                return None  # The task tells it.
            found = Converted(artifact=wanted.ours)
        else:
            noted = self.journal.recall(task)
            if noted is None or not _is_there(self.there.spot.folder, noted.artifact):
                return None
            found = noted
        self._enter(task, found.artifact)
        return found

    def keep(self, task: Task[Wanted], result: Converted) -> None:
        """Note what was made, and enter it in the index."""
        self.journal.keep(task, result)
        self._enter(task, result.artifact)

    def _enter(self, task: Task[Wanted], artifact: Artifact) -> None:
        name, change = task.value.listed.name, _with(task.value, artifact)
        ours = self.there.entry(name)
        if ours is None or _has_news(change, ours):
            self.there.enter(Entering(task.name, name, task.value.entry.aliases, change))


def _has_news(change: Change, ours: Entry) -> bool:
    """Return whether a change changes an entry, or cannot, which shows when it is entered."""
    try:
        return bool(change(ours).to_json() != ours.to_json())
    except StateError:
        return True


def _is_there(folder: Path, artifact: Artifact) -> bool:
    """Return whether the files of an artifact are in the folder, with their sizes."""
    place = folder / artifact.url
    if not artifact.files:
        return place.is_file() and place.stat().st_size == artifact.size
    files = ((place / file.path, file.size) for file in artifact.files)
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _with(wanted: Wanted, artifact: Artifact) -> Change:
    """Return what puts an artifact behind those of an entry; what is said of it besides is as the source has it."""
    listed = wanted.listed

    def change(ours: Entry | None) -> Entry:
        versions = dict(ours.versions) if ours is not None else {}
        there = versions[listed.version].artifacts if listed.version in versions else ()
        release = replace(wanted.release, artifacts=there)
        versions[listed.version] = with_artifact(release, artifact, f"{listed.name}@{listed.version}")
        aliases = tuple(dict.fromkeys([*wanted.entry.aliases, *(ours.aliases if ours is not None else ())]))
        return replace(wanted.entry, versions=dict(ascending(versions)), aliases=aliases)

    return change
