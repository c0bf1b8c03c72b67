"""The remote of buckets: `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import NotFoundError
from . import schemes
from .copies import INDEX, MOST, State
from .remote import Source

if TYPE_CHECKING:
    from .bucket import Location, Store


def stores() -> Mapping[str, Store]:
    """Return the clients by the scheme of their URLs, those that schemes.BUCKETS has; loaded when one is asked for."""
    from . import azure_client, gcs_client, s3_client

    return {"s3": s3_client, "az": azure_client, "gs": gcs_client}


def found(url: str) -> tuple[Store, Location]:
    """Return the store that a URL of Buckets.takes leads to, and the location that it names there.

    Raises:
        UsageError: it names none.
    """
    store = stores()[url.partition("://")[0]]
    return store, store.parse(url)


def home_of(url: str) -> tuple[Store, Location]:
    """Return the store of a registry, and where it lies; url: that of the registry, or of its index.

    Raises:
        UsageError: it names none.
    """
    return found(url.rstrip("/").removesuffix(f"/{INDEX}"))


class Buckets:
    """Reads objects."""

    network = True

    def takes(self, url: str) -> bool:
        """Return whether url names something in a bucket."""
        return schemes.known(url, schemes.BUCKETS)

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of an object; see Remote.read."""
        store, location = found(source.url)
        return store.stream(location / source.path, source.start)


class BucketRegistry:
    """A registry in a bucket: an index.json below a prefix."""

    def __init__(self, url: str) -> None:
        self._store, self._home = home_of(url)
        self.url = str(self._home)

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None; see copies.Place. Its states are called as the store does."""
        try:
            return self.part(INDEX, self.url, tag)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no registry at {self.url}", hint="`adapterhub push --create` makes one"
            ) from error

    def part(self, path: str, home: str, tag: str) -> State | None:
        """Return a file beside the index, or None; see copies.Sharing."""
        known = self._store.document(self._home / path, most=MOST, tag=tag)
        return None if known is None else State(tag=known.etag, home=home, data=known.data)
