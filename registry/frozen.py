"""Frozen: the lock of a project as a registry that offers what it pins and nothing else, and asks no index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NotFoundError
from . import paths
from .index import Entries, Index
from .lock import Lock, LockedAdapter
from .project import Project
from .records import Artifact, Content
from .reference import Reference
from .registry import PACKAGED, Registry
from .settings import Settings


class _Pinned(Index):
    """The adapters of a lock as an index."""

    __slots__ = ()

    @property
    def place(self) -> str:
        """What errors call it."""
        return "adapterhub.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen(Registry):
    """What a lock pins.

    Attributes:
        lock: the lock.
    """

    lock: Lock

    @property
    def alone(self) -> bool:
        """Whether nothing but this is asked for the adapters of its compositions."""
        return True

    def pinned(self, reference: Reference) -> Content | None:
        """Return the content that a reference means, or None where it is an adapter of a registry.

        Raises:
            NotFoundError: the lock holds no adapter from there.
        """
        for name, adapter in self.lock.adapters.items():
            if adapter.content is not None and str(reference) in (name, adapter.reference):
                return adapter.content
        if reference.scheme == "name":
            return None
        raise NotFoundError(f"{self.location} does not hold {reference}", hint="add it to [adapters], and lock again")

    def copies(self, artifact: Artifact) -> tuple[Content, ...]:
        """Return other bytes of the adapter in an artifact that are pinned, for where it cannot be had."""
        pin = self.part(artifact.identity)
        return pin.copies if pin is not None else ()

    def part(self, digest: str) -> LockedAdapter | None:
        """Return the pinned adapter that has a digest, or None."""
        return next((pin for pin in self.lock.pins() if pin.bytes.identity == digest), None)

    def revision(self, base: str) -> str | None:
        """Return the revision at which a base model is pinned, or None."""
        return self.lock.bases[base].revision if base in self.lock.bases else None

    def folder_of(self, content: Content) -> Path:
        """Return the folder of the registry that an artifact is from."""
        pin = self.part(content.identity)
        return folder_of(pin, self.location.parent) if pin is not None else self.location.parent


def folder_of(pin: LockedAdapter, project: Path) -> Path:
    """Return the folder of the registry that an adapter is from; of one on the network that of the lock."""
    if not pin.registry:
        return PACKAGED.parent
    place = project if paths.is_url(pin.registry) else project / pin.registry
    return place.parent if place.is_file() else place


def frozen(settings: Settings | None = None) -> Frozen:
    """Return what the lock of the project pins.

    Raises:
        NotFoundError: there is no project, or no lock.
        StateError: the lock is stale.
        UsageError, SchemaError, FormatError: project file or lock cannot be understood.
    """
    project = Project.load(settings or Settings.load())
    lock = project.locked()
    return Frozen(location=project.path, index=_Pinned(adapters=Entries(_entries(lock))), lock=lock)


def _entries(lock: Lock) -> dict[str, Any]:
    """Return an entry for each adapter of a registry, called as in the project; its own name is its alias.

    Adapters of compositions are found by their own names, where the project calls nothing else so.
    """
    entries: dict[str, Any] = {}
    for name, pin in lock.adapters.items():
        _add(entries, name, pin)
    for pin in lock.pins():
        if all(pin.name not in (name, *entry["aliases"]) for name, entry in entries.items()):
            _add(entries, pin.name, pin)
    return entries


def _add(entries: dict[str, Any], name: str, pin: LockedAdapter) -> None:
    if pin.artifact is None:
        return
    release: Mapping[str, Any] = {"published": "", "artifacts": [pin.artifact.to_json()]}
    entries[name] = {"aliases": [] if pin.name == name else [pin.name], "versions": {pin.version: release}}
