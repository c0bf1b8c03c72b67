"""All entries of a sharded registry on the network in one file, for lists and searches.

The files of a web server cannot be listed. The keeper makes this one (`adapterhub index pack`), so it may be older than
the shards. Names are looked up in these.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import AdapterHubError, NotFoundError, UnsupportedError
from . import copies, derived, shards
from .copies import MOST, Place, Sharing, State
from .lookup import Lookup, Progress
from .settings import Settings


class Packed:
    """The packed index beside a sharded one, as a place of its own."""

    def __init__(self, beside: Place, home: str) -> None:
        self.url = f"{beside.url}/{shards.PACKED}"
        self._beside = beside
        self._home = home

    def fetch(self, tag: str) -> State | None:
        """Return the packed index as it is now, or None; see copies.Place.

        Raises:
            UnsupportedError: there is none, so that the registry cannot be listed.
        """
        if not isinstance(self._beside, Sharing):
            raise AdapterHubError(f"{self.url} cannot be read")
        try:
            state = self._beside.part(shards.PACKED, self._home, tag)
        except NotFoundError as error:
            raise UnsupportedError(
                f"the registry {self._beside.url} can be asked for names, but not be listed or searched",
                hint="whoever keeps it can change that with `adapterhub index pack`",
            ) from error
        if state is None:
            return None
        return State(tag=state.tag, home=state.home, data=shards.unpack(state.data, MOST, self.url))


def look_up(beside: Place, home: str, settings: Settings, progress: Progress | None = None) -> Lookup:
    """Return a look-up over all entries of a sharded registry on the network, as of when it was packed.

    Raises:
        UnsupportedError: it was never packed.
        OfflineError: the network is switched off, and there is no copy.
        AuthenticationError, AdapterHubError: it cannot be read.
    """
    return derived.open_index(copy_of(beside, home, settings), settings.cache, progress)


def copy_of(beside: Place, home: str, settings: Settings) -> Path:
    """Return a file with the packed index as it is now; raises as look_up does."""
    return copies.copy_of(Packed(beside, home), settings.cache, offline=settings.offline)[0]
