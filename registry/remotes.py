"""The kinds of places that artifacts are read from; a new kind is one file and one row of REMOTES."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import OfflineError, UnsupportedError
from .bundled import Bundled
from .folder import Folder
from .remote import Remote, Source

REMOTES: tuple[Remote, ...] = (Bundled(), Folder())
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


def unsupported(place: str) -> UnsupportedError:
    """Return the error that says that this version cannot read a place."""
    return UnsupportedError(
        f"{place} cannot be read: this version reads the bundled registry and folders",
        hint="download it, and name it by its path: ./folder or ./file",
    )
