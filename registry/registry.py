"""Registry: an index together with the place that its files lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotFoundError, OfflineError
from . import derived, remotes
from .lookup import Lookup, Progress
from .records import Artifact
from .remote import Source
from .settings import BUNDLED, Settings

if TYPE_CHECKING:
    from .store import Store

INDEX = "index.json"
PACKAGED = Path(__file__).parents[1] / INDEX
"""The index that lies in the package."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What is offered and how to get it.

    Attributes:
        location: the index file.
        index: what it says.
    """

    location: Path
    index: Lookup

    def fetch(self, artifact: Artifact, what: str, *, store: Store, offline: bool = False) -> tuple[Path, bool]:
        """Return a verified path of an artifact on this machine, and whether all of it was in the store.

        Args:
            artifact: one of the index.
            what: names it in errors, e.g. `sst2-bert@1.0.0`.
            store: where it is kept.
            offline: refuse to use the network.

        Raises:
            OfflineError, UnsupportedError, NotFoundError: its remote cannot give it.
            IntegrityError: its bytes are not those that the index promises.
            AdapterHubError: the store cannot be written.
        """

        def read(path: str) -> Iterator[bytes]:
            return remotes.read(Source(url=artifact.url, path=path, registry=self.location.parent), offline=offline)

        return store.obtain(artifact, read, what)


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
        OfflineError, UnsupportedError: the location is a URL.
    """
    settings = settings or Settings.load()
    path = locate(location, settings=settings)
    return Registry(location=path, index=derived.open_index(path, settings.cache, progress))


def locate(location: str | Path | None = None, *, settings: Settings | None = None) -> Path:
    """Return the index file of a registry; see open_registry.

    Raises:
        NotFoundError: there is no index.
        OfflineError, UnsupportedError: the location is a URL.
    """
    settings = settings or Settings.load()
    place = str(settings.registry if location is None else location)
    if place == BUNDLED:
        return PACKAGED
    if _URL.match(place):
        if settings.offline:
            raise OfflineError(f"the registry {place} needs the network, which is switched off")
        raise remotes.unsupported(f"the registry {place}")
    path = Path(place).expanduser()
    path = path / INDEX if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(f"there is no registry at {place}", hint=f"name a folder with an {INDEX}, or that file")
    return path.resolve()
