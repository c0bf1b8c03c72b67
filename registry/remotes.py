"""The kinds of places that artifacts are read from; a new kind is one file and one row of REMOTES."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..errors import OfflineError, UnsupportedError
from . import paths, schemes
from .buckets import BucketRegistry, Buckets
from .bundled import Bundled
from .folder import Folder
from .hf import Hub, HubRegistry
from .http import Http, HttpRegistry
from .oci import Oci, OciRegistry
from .remote import Remote, Source

if TYPE_CHECKING:
    from pathlib import Path

    from .copies import Place
    from .receiving import Read

REMOTES: tuple[Remote, ...] = (Bundled(), Folder(), Http(), Hub(), Buckets(), Oci())
"""The first that takes a url reads it."""


def read(source: Source, *, offline: bool) -> Iterator[bytes]:
    """Yield the bytes of one file from the remote that takes its url.

    Raises:
        OfflineError: the network is needed, and switched off.
        UnsupportedError: no remote takes such urls.
        NotFoundError, AuthenticationError, AdapterHubError: from the remote.
    """
    remote = next((remote for remote in REMOTES if remote.takes(source.url)), None)
    if offline and (remote is None or remote.network):
        raise OfflineError(
            f"{source} is not on this machine, and the network is switched off",
            hint="pull it once with the network; unset ADAPTERHUB_OFFLINE and HF_HUB_OFFLINE",
        )
    if remote is None:
        raise unsupported(str(source))
    return remote.read(source)


def reader(url: str, folder: Path, *, offline: bool) -> Read:
    """Return what reads the files of an artifact; folder: where relative urls begin."""

    def take(path: str, start: int) -> Iterator[bytes]:
        return read(Source(url=url, path=path, registry=folder, start=start), offline=offline)

    return take


def joined(home: str, path: str) -> str:
    """Return the url of a path beside an index on the network.

    >>> joined("https://host/a", "b c"), joined("hf://user/repo@main", ".")
    ('https://host/a/b%20c', 'hf://user/repo@main')
    """
    if path == paths.HERE:
        return home
    return f"{home}/{quote(path) if home.startswith('http') else path}"


def registry_at(url: str) -> Place | None:
    """Return the registry at a URL, or None where this version reads none from such a place."""
    kinds = ((Http(), HttpRegistry), (Hub(), HubRegistry), (Buckets(), BucketRegistry), (Oci(), OciRegistry))
    return next((registry(url) for remote, registry in kinds if remote.takes(url)), None)


def unsupported(place: str) -> UnsupportedError:
    """Return the error that says that this version cannot read a place."""
    return UnsupportedError(
        f"{place} cannot be read: this version reads the bundled registry, folders, https://, {schemes.PUBLISHED}",
        hint="download it, and name it by its path: ./folder or ./file",
    )
