"""Registry: an index together with the place that its files lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotFoundError, OfflineError
from . import remotes
from .index import Index
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
    index: Index

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


def open_registry(location: str | Path | None = None, *, settings: Settings | None = None) -> Registry:
    """Return the registry at a folder or index file; None is the one of the settings, `bundled` that of the package.

    Raises:
        NotFoundError: there is no index.
        SchemaError, FormatError: the index is not valid.
        OfflineError, UnsupportedError: the location is a URL.
    """
    settings = settings or Settings.load()
    place = str(settings.registry if location is None else location)
    if place == BUNDLED:
        return Registry(location=PACKAGED, index=_load(PACKAGED, settings))
    if _URL.match(place):
        if settings.offline:
            raise OfflineError(f"the registry {place} needs the network, which is switched off")
        raise remotes.unsupported(f"the registry {place}")
    path = Path(place).expanduser()
    path = path / INDEX if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(f"there is no registry at {place}", hint=f"name a folder with an {INDEX}, or that file")
    return Registry(location=path.resolve(), index=_load(path, settings))


def _load(path: Path, settings: Settings) -> Index:
    """Return the index in a file; that large bytes are valid is remembered in the cache."""
    return Index.load(path, verdicts=settings.cache / "checked")
