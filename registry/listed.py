"""Listed: the artifacts of a whole registry, each as a plain value that another process can do something with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..composition_file import NAME as COMPOSITION
from . import closure, sources
from .lookup import Lookup
from .pulling import Pulled
from .records import Artifact
from .registry import Registry, open_registry
from .settings import Settings
from .store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One artifact.

    Attributes:
        name: name of its entry.
        version: its version.
        artifact: what the index says of it.
    """

    name: str
    version: str
    artifact: Artifact

    @property
    def title(self) -> str:
        """What tells it from all others, for people."""
        return f"{self.name}@{self.version} for {self.artifact.base.id}, {self.artifact.format}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where the artifacts are fetched from: a plain value.

    Attributes:
        registry: the registry, without its entries.
        place: where it is opened anew, for what its compositions are made of.
        offline: refuse to use the network.
    """

    registry: Registry
    place: str
    offline: bool

    def obtain(self, listed: Listed, store: Store) -> Pulled:
        """Return an artifact on this machine, a composition with its adapters.

        store: an empty one; the user's may have the right bytes already, and the registry's would not be looked at.

        Raises:
            AdapterHubError: as registry.pull.
        """
        what, pinned = f"{listed.name}@{listed.version}", self.registry.signed
        found = sources.obtain(
            self.registry, listed.artifact, what, store=store, offline=self.offline, progress=None, pinned=pinned
        )
        pulled = Pulled(
            path=found.path,
            name=listed.name,
            version=listed.version,
            artifact=listed.artifact,
            cached=found.cached,
            content=found.content,
            home=self.registry,
        )
        if listed.artifact.format != COMPOSITION:
            return pulled
        settings = Settings.load(offline=self.offline)
        home = open_registry(self.place, settings=settings)
        return closure.completed(pulled, home=home, settings=settings, store=store)


def shelf(registry: Registry, place: str, *, offline: bool) -> Shelf:
    """Return where the artifacts of a registry are fetched from; place: what it was opened by."""
    everywhere = place if registry.home else str(registry.location)
    return Shelf(registry=registry.without_entries(), place=everywhere, offline=offline)


def artifacts(index: Lookup) -> Iterator[Listed]:
    """Yield all artifacts of an index that has all entries at hand."""
    for name in index.names():
        for version, release in index.entry(name).versions.items():
            yield from (Listed(name=name, version=version, artifact=artifact) for artifact in release.artifacts)
