"""Registry: an index together with the place that its files lie in."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, NotFoundError, OfflineError, UsageError
from . import copies, derived, paths, remotes
from .copies import Place
from .lookup import Lookup, Progress
from .records import Artifact, Content
from .settings import BUNDLED, Settings

if TYPE_CHECKING:
    from .lock import LockedAdapter
    from .receiving import Progress as Receiving
    from .reference import Reference
    from .store import Store
    from .trust import Trusted

INDEX = "index.json"
PACKAGED = Path(__file__).parents[1] / INDEX
"""The index that lies in the package."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What is offered and how to get it.

    Attributes:
        location: the index file; of a registry on the network, its copy.
        index: what it says.
        home: URL that relative urls begin at; "" where that is the folder of the index.
        signed: whether its index had to be signed, and is; then only what it has digests of is used.
    """

    location: Path
    index: Lookup
    home: str = ""
    signed: bool = False

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return self.home or str(self.location)

    @property
    def alone(self) -> bool:
        """Whether nothing but this is asked for the adapters of its compositions."""
        return False

    def pinned(self, reference: Reference) -> Content | None:
        """Return what a reference means here that no index is asked for, or None; see frozen.Frozen.

        Raises:
            NotFoundError: it means nothing here.
        """
        return None

    def copies(self, artifact: Artifact) -> tuple[Content, ...]:
        """Return other bytes of the adapter in an artifact that are pinned here; see frozen.Frozen."""
        return ()

    def part(self, digest: str) -> LockedAdapter | None:
        """Return the adapter of a composition that has a digest and is pinned here, or None; see frozen.Frozen."""
        return None

    def revision(self, base: str) -> str | None:
        """Return the revision at which a base model is pinned here, or None; see frozen.Frozen."""
        return None

    def without_entries(self) -> Registry:
        """Return the place that files are fetched from, as a value that another process can have."""
        from .index import Index

        return replace(self, index=Index())

    def folder_of(self, content: Content) -> Path:
        """Return the folder that the relative url of an artifact begins at."""
        return self.location.parent

    def fetch(
        self,
        artifact: Content,
        what: str,
        *,
        store: Store,
        offline: bool = False,
        progress: Receiving | None = None,
    ) -> tuple[Path, bool]:
        """Return a verified path of an artifact on this machine, and whether all of it was in the store.

        Args:
            artifact: one of the index.
            what: names it in errors, e.g. `sst2-bert@1.0.0`.
            store: where it is kept.
            offline: refuse to use the network.
            progress: is told how many of how many bytes are here.

        Raises:
            OfflineError, UnsupportedError, NotFoundError: its remote cannot give it.
            IntegrityError: its bytes are not those that the index promises.
            AdapterHubError: the store cannot be written.
        """
        read = remotes.reader(self.absolute(artifact.url), self.folder_of(artifact), offline=offline)
        return store.obtain(artifact, read, what, progress=progress)

    def absolute(self, url: str) -> str:
        """Return the url of an artifact as its remote takes it."""
        if not self.home or paths.is_url(url):
            return url
        if fault := paths.fault_of_url(url):
            raise FormatError(f"url {url!r} {fault}")
        return remotes.joined(self.home, url)


def open_registry(
    location: str | Path | None = None, *, settings: Settings | None = None, progress: Progress | None = None
) -> Registry:
    """Return the registry at a folder or index file; None is the one of the settings, `bundled` that of the package.

    Args:
        location: where it lies.
        settings: the settings; None is those of the process.
        progress: is told how far it is when a large index is prepared, which takes seconds after it has changed.

    Raises:
        NotFoundError: there is no index.
        SchemaError, FormatError: the index is not valid.
        OfflineError, UnsupportedError, AuthenticationError: it lies on the network, and cannot be read.
        IntegrityError: the settings say that it must be signed, and it is not.
    """
    settings = settings or Settings.load()
    place = str(settings.registry if location is None else location)
    remote = _remote(place, settings) if _URL.match(place) else None
    if settings.trust:
        from . import trust

        path, home, (trusted, index) = trust.found(place, remote, settings, progress)
    else:
        (path, home), trusted = copy_of(place, remote, settings), None
        index = derived.open_index(path, settings.cache, progress)
    if index.sharded:
        index = _over_shards(path, home, remote, settings, progress, trusted)
    return Registry(location=path, index=index, home=home, signed=trusted is not None)


def copy_of(place: str, remote: Place | None, settings: Settings) -> tuple[Path, str]:
    """Return the index file of a registry on this machine, as new as can be, and the URL that its urls begin at, or "".

    Raises:
        NotFoundError: there is no index.
        OfflineError, AuthenticationError, AdapterHubError: it lies on the network, and cannot be read.
        SchemaError, FormatError: one on the network is not valid.
    """
    if remote is not None:
        return copies.copy_of(remote, settings.cache, offline=settings.offline)
    return locate(place, settings=settings), ""


def _over_shards(
    path: Path, home: str, remote: Place | None, settings: Settings, progress: Progress | None, trusted: Trusted | None
) -> Lookup:
    """Return the look-up over the shards beside an index file, or beside that on the network of which it is a copy."""
    from . import over_shards

    if remote is None:
        return over_shards.in_folder(path.parent, settings, progress, trusted)
    return over_shards.on_network(remote, home, settings, progress, trusted)


def _remote(place: str, settings: Settings) -> Place:
    """Return the registry on the network at a URL.

    Raises:
        OfflineError: the network is switched off, and no version reads such places.
        UnsupportedError: this version reads no registries from such a place.
    """
    registry = remotes.registry_at(place)
    if registry is None and settings.offline:
        raise OfflineError(f"the registry {place} needs the network, which is switched off")
    if registry is None:
        raise remotes.unsupported(f"the registry {place}")
    return registry


def locate(location: str | Path | None = None, *, settings: Settings | None = None) -> Path:
    """Return the index file of a registry on this machine; see open_registry.

    Raises:
        NotFoundError: there is no index.
        UsageError: the location is a URL.
    """
    settings = settings or Settings.load()
    place = str(settings.registry if location is None else location)
    if place == BUNDLED:
        return PACKAGED
    if _URL.match(place):
        raise UsageError(f"the registry {place} is not on this machine", hint="name a folder")
    path = Path(place).expanduser()
    path = path / INDEX if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(f"there is no registry at {place}", hint=f"name a folder with an {INDEX}, or that file")
    return path.resolve()
