"""Locking: from what a project asks for to its lock, and from its lock to verified bytes on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..composition_file import NAME as COMPOSITION
from ..errors import AdapterHubError, AuthenticationError, NotFoundError, OfflineError
from . import hf_client, pulling, receiving, sources
from .closure import together
from .frozen import Frozen
from .hf_adapter import content_of
from .lock import Lock, LockedAdapter, LockedBase
from .project import Project, Wanted
from .pulling import Pulled
from .records import Artifact, Content
from .reference import Reference
from .registry import PACKAGED, Registry, open_registry
from .settings import Settings
from .store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What came of locking.

    Attributes:
        lock: what the project is to have.
        before: what it had.
        remarks: what could not be pinned, for people.
    """

    lock: Lock
    before: Lock
    remarks: tuple[str, ...] = ()

    @property
    def changes(self) -> Mapping[str, tuple[LockedAdapter | None, LockedAdapter | None]]:
        """Name → (what was pinned, what is pinned now) where that differs."""
        names = sorted(self.lock.adapters.keys() | self.before.adapters.keys())
        pairs = {name: (self.before.adapters.get(name), self.lock.adapters.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def locked(project: Project, *, settings: Settings, store: Store, upgrade: Collection[str] | None = ()) -> Locked:
    """Return the lock of a project: pins that still are what is asked for stay, the others are resolved.

    Args:
        project: what is asked for.
        settings: where the registries lie, and whether the network may be used.
        store: where the files of compositions are kept, which have to be read.
        upgrade: names whose pins are resolved anew; None is all.

    Raises:
        NotFoundError: adapters, versions or artifacts do not exist; every one is named.
        UsageError, OfflineError, IntegrityError, SchemaError, …: as for pull.
    """
    before = Lock.load(project.path) if project.path.is_file() else Lock()
    unknown = sorted(set(upgrade or ()) - project.wanted.keys())
    if unknown:
        known = ", ".join(sorted(project.wanted)) or "nothing"
        raise NotFoundError(f"the project asks for no {', '.join(unknown)}", hint=f"it asks for {known}")
    maker = _Maker(project, settings, store)
    adapters: dict[str, LockedAdapter] = {}
    errors: list[AdapterHubError] = []
    for name, wanted in sorted(project.wanted.items()):
        old = before.adapters.get(name)
        keep = upgrade is not None and name not in upgrade
        try:
            adapters[name] = old if old and keep and not wanted.fault(old) else maker.pin(wanted)
        except AdapterHubError as error:
            errors.append(error)
    if errors:
        raise together(str(project.folder), errors)
    bases = maker.bases(adapters, before.bases if upgrade is not None else {})
    return Locked(lock=Lock(adapters=adapters, bases=bases), before=before, remarks=tuple(maker.remarks))


@dataclass(frozen=True, slots=True)
class _Maker:
    """Resolves what a project asks for; each registry is opened once."""

    project: Project
    settings: Settings
    store: Store
    opened: dict[str, Registry] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def pin(self, wanted: Wanted) -> LockedAdapter:
        """Return the pin of what is asked for; of a composition with all its adapters, which are fetched."""
        reference = wanted.reference
        if reference.scheme != "name":
            return self._pinned(str(reference), self._pulled(wanted, None))
        place = self.settings.location(reference.registry)
        registry = self.opened.get(place) or open_registry(place, settings=self.settings)
        self.opened[place] = registry
        found = registry.index.resolve(reference, base=wanted.base, format=wanted.format, method=wanted.method)
        if found.artifact.format == COMPOSITION:
            return self._pinned(str(reference), self._pulled(wanted, registry))
        return self._record(str(reference), found.name, found.version, found.artifact, registry)

    def _pulled(self, wanted: Wanted, registry: Registry | None) -> Pulled:
        return pulling.pull(
            wanted.reference,
            registry=registry,
            base=wanted.base,
            format=wanted.format,
            method=wanted.method,
            offline=self.settings.offline,
            store=self.store,
        )

    def _pinned(self, reference: str, pulled: Pulled) -> LockedAdapter:
        """Return the pin of what was pulled; adapters beside a composition are among its own files."""
        parts = {
            leaf: self._pinned(f"{part.name}@{part.version}" if part.version else leaf, part)
            for leaf, part in pulled.parts.items()
            if part.artifact is not None or part.content is not None
        }
        if pulled.artifact is None or pulled.home is None:
            return LockedAdapter(reference=reference, content=pulled.content, parts=parts)
        record = self._record(reference, pulled.name, str(pulled.version), pulled.artifact, pulled.home)
        return replace(record, parts=parts)

    def _record(self, reference: str, name: str, version: str, artifact: Artifact, registry: Registry) -> LockedAdapter:
        """Return the pin of an artifact, which is found later without its index."""
        return LockedAdapter(
            reference=reference,
            name=name,
            version=version,
            artifact=replace(artifact, url=registry.absolute(artifact.url)),
            copies=() if registry.signed else tuple(self._copies(artifact)),
            registry=_place(registry, self.project.folder),
        )

    def _copies(self, artifact: Artifact) -> Iterator[Content]:
        """Yield the files of the repositories on the Hub that have an artifact too, with their digests."""
        for source in artifact.sources:
            if source.startswith(sources.REPOSITORY):
                try:
                    reference = Reference.parse(source)
                    yield content_of(reference, format=None, store=self.store, offline=self.settings.offline)
                except AdapterHubError as error:
                    self.remarks.append(f"{source} is not pinned besides: {error.message}")

    def bases(self, adapters: Mapping[str, LockedAdapter], before: Mapping[str, LockedBase]) -> dict[str, LockedBase]:
        """Return the base models of adapters, each at the commit that is known of it."""
        pins = Lock(adapters=adapters).pins()
        records = {pin.artifact.base.id: pin.artifact.base for pin in pins if pin.artifact is not None}
        found: dict[str, LockedBase] = {}
        ask = not self.settings.offline
        for name, record in sorted(records.items()):
            old = before.get(name)
            revision = old.revision if old is not None and old.architecture == record.architecture else None
            if revision is None and ask:
                revision, ask = self._commit(name, record.revision)
            revision = revision or hf_client.cached_commit(name, record.revision) or record.revision
            found[name] = LockedBase(architecture=record.architecture, revision=revision)
            if revision is None:
                self.remarks.append(f"the base model {name} is not pinned: no commit of it is known here")
        return found

    def _commit(self, base: str, revision: str | None) -> tuple[str | None, bool]:
        """Return the commit of a base model on the Hub, or None, and whether the Hub is worth another question."""
        try:
            return hf_client.commit_of(base, revision), True
        except OfflineError as error:
            self.remarks.append(error.message)
            return None, False
        except (NotFoundError, AuthenticationError):
            return None, True


def _place(registry: Registry, project: Path) -> str:
    """Return how a lock calls a registry: "" is the one in the package, a path in the project begins at the lock."""
    if registry.location == PACKAGED:
        return ""
    if registry.home:
        return registry.home
    folder = registry.location.parent
    inside = folder.is_relative_to(project.resolve())
    return f"./{folder.relative_to(project.resolve()).as_posix()}" if inside else os.fspath(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """One adapter of a lock on this machine.

    Attributes:
        name: name within the project; of an adapter of a composition `composition/name`.
        pin: what the lock says.
        path: where its bytes are, checked.
        cached: whether they were here already.
        bytes: which they are: those of its artifact, or of a copy where that cannot be had.
    """

    name: str
    pin: LockedAdapter
    path: Path
    cached: bool
    bytes: Content


def sync(
    frozen: Frozen, *, store: Store, offline: bool, progress: receiving.Progress | None = None
) -> Iterator[Synced]:
    """Yield every adapter of a lock, fetched if need be, its digests checked.

    Raises:
        NotFoundError, OfflineError, IntegrityError, …: as for pull.
    """
    for name, pin in _named(frozen.lock):
        if pin.artifact is None:
            path, cached = frozen.fetch(pin.bytes, pin.title, store=store, offline=offline, progress=progress)
            yield Synced(name=name, pin=pin, path=path, cached=cached, bytes=pin.bytes)
            continue
        found = sources.obtain(
            frozen, pin.artifact, pin.title, store=store, offline=offline, progress=progress, pinned=True
        )
        yield Synced(name=name, pin=pin, path=found.path, cached=found.cached, bytes=found.content or pin.artifact)


def _named(lock: Lock) -> Iterator[tuple[str, LockedAdapter]]:
    for name, adapter in sorted(lock.adapters.items()):
        yield name, adapter
        yield from ((f"{name}/{leaf}", part) for leaf, part in sorted(adapter.parts.items()))
