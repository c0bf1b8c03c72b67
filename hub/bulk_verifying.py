"""Verify all: what `verify` does with one adapter, for every artifact of a registry, as one task for each.

<cache>/bulk/verify-<mark>.jsonl    what was verified, until all of it is
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import schemas
from ..converters import listed as listed_files
from ..converters.identity import own_version
from ..registry import Registry, Settings, Store, digest, tasks
from ..registry.journal import Journal
from ..registry.listed import Listed, Shelf, artifacts, shelf
from ..registry.native_copies import native
from ..registry.tasks import Report, Runner, Task
from .verifying import Check, checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Verifies one artifact: the function of the tasks.

    Attributes:
        shelf: where it is fetched from.
        run: whether its base model is loaded and the probe replayed.
    """

    shelf: Shelf
    run: bool

    def __call__(self, listed: Listed) -> tuple[Check, ...]:
        """Return what was checked; the first thing that is wrong is raised."""
        with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
            store = Store(folder)
            pulled = self.shelf.obtain(listed, store)
            if pulled.packed:
                pulled = native(pulled, store, listed_files.write, by=own_version())
            return tuple(checks(pulled, run=self.run, offline=self.shelf.offline))


def verify_all(
    registry: Registry,
    place: str,
    runner: Runner,
    *,
    run: bool = False,
    afresh: bool = False,
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
) -> Report[tuple[Check, ...]]:
    """Return what was checked of every artifact of a registry, by its title.

    A list that was stopped, or in which something failed, is gone on with: what was found right is not looked at again.
    One that went through is forgotten, and the next looks at everything.

    Args:
        registry: the registry.
        place: what it was opened by.
        runner: who does it.
        run: also load the base models and replay the probes.
        afresh: look at everything in any case.
        settings: the cache that the list is noted in, and whether the network may be used.
        progress: is told how many of how many have ended.

    Raises:
        UnsupportedError: the registry cannot be listed.
        StateError: another process verifies it.
    """
    index = registry.index.whole()
    total = sum(1 for _ in artifacts(index))
    told = None if progress is None else lambda done: progress(done, total)
    journal = Journal[Listed, tuple[Check, ...]](
        _place_of(settings.cache, registry.place, run=run), _mark, _to_json, _from_json
    )
    function = Verify(shelf=shelf(registry, place, offline=settings.offline), run=run)
    with journal.opened(afresh=afresh):
        work = (Task(listed.title, listed) for listed in artifacts(index))
        report = tasks.run(function, work, runner, memory=journal, progress=told)
    if not report.failed:
        journal.close()
    return report


def _place_of(cache: Path, registry: str, *, run: bool) -> Path:
    mark = digest.mark(schemas.canonical([registry, run]))
    return cache / "bulk" / f"verify-{mark}.jsonl"


def _mark(task: Task[Listed]) -> str:
    said = [own_version(), task.value.artifact.to_json(), task.value.artifact.identity]
    return digest.mark(schemas.canonical(said))


def _to_json(found: tuple[Check, ...]) -> list[dict[str, object]]:
    return [check.to_json() for check in found]


def _from_json(data: list[dict[str, object]]) -> tuple[Check, ...]:
    return tuple(Check(str(one["name"]), str(one["detail"]), passed=bool(one["passed"])) for one in data)
