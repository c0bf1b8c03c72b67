"""The remote of S3 and of stores that speak like it: `s3://bucket/prefix`."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import NotFoundError
from .copies import INDEX, MOST, State
from .remote import Source

SCHEME = "s3://"


class S3:
    """Reads objects."""

    network = True

    def takes(self, url: str) -> bool:
        """Return whether url names something in a bucket."""
        return url.startswith(SCHEME)

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of an object; see Remote.read."""
        from .s3_client import parse, stream

        return stream(parse(source.url) / source.path, source.start)


class S3Registry:
    """A registry in a bucket: an index.json below a prefix."""

    def __init__(self, url: str) -> None:
        from .s3_client import parse

        self.home = parse(url.rstrip("/").removesuffix(f"/{INDEX}"))
        self.url = str(self.home)

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None; see copies.Place. Its states are called by their ETags."""
        from .s3_client import document

        try:
            found = document(self.home / INDEX, most=MOST, etag=tag)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no registry at {self.url}", hint="`adapterhub push --create` makes one"
            ) from error
        return None if found is None else State(tag=found.etag, home=self.url, data=found.data)

    def part(self, path: str, home: str, tag: str) -> State | None:
        """Return a file beside the index, or None; see copies.Sharing."""
        from .s3_client import document

        found = document(self.home / path, most=MOST, etag=tag)
        return None if found is None else State(tag=found.etag, home=home, data=found.data)
