"""Registry: an index together with the place that its files lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, NotFoundError, OfflineError, UsageError
from . import derived, paths, remotes
from .lookup import Lookup, Progress
from .records import Artifact
from .remote import Source
from .settings import BUNDLED, Settings

if TYPE_CHECKING:
    from .receiving import Progress as Receiving
    from .store import Store

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

    def fetch(
        self,
        artifact: Artifact,
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
        url = self._absolute(artifact.url)

        def read(path: str, start: int) -> Iterator[bytes]:
            source = Source(url=url, path=path, registry=self.location.parent, start=start)
            return remotes.read(source, offline=offline)

        return store.obtain(artifact, read, what, progress=progress)

    def _absolute(self, url: str) -> str:
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
    path, home = remote_copy(place, settings) if _URL.match(place) else (locate(place, settings=settings), "")
    signed = False
    if settings.trust:
        from . import trust

        signed = trust.check(place, path, home, settings)
    return Registry(location=path, index=derived.open_index(path, settings.cache, progress), home=home, signed=signed)


def remote_copy(place: str, settings: Settings) -> tuple[Path, str]:
    """Return the index file of a registry on the network, as new as can be, and the URL that its urls begin at.

    Raises:
        OfflineError: the network is switched off, and there is no copy.
        UnsupportedError: this version reads no registries from such a place.
        NotFoundError, AuthenticationError, AdapterHubError: it cannot be read.
    """
    from .copies import copy_of

    registry = remotes.registry_at(place)
    if registry is None and settings.offline:
        raise OfflineError(f"the registry {place} needs the network, which is switched off")
    if registry is None:
        raise remotes.unsupported(f"the registry {place}")
    return copy_of(registry, settings.cache, offline=settings.offline)


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
