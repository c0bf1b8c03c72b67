"""The remote of static hosts: `https://host/path` and `http://host/path`, read only."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from ..errors import NotFoundError
from .copies import INDEX, MOST, State
from .remote import Source


class Http:
    """Reads files from web servers."""

    network = True

    def takes(self, url: str) -> bool:
        """Return whether url is one of the web."""
        return url.startswith(("https://", "http://"))

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes at a URL; see Remote.read."""
        from . import streaming

        url = f"{source.url.rstrip('/')}/{quote(source.path)}" if source.path else source.url
        return streaming.stream(url, start=source.start)


class HttpRegistry:
    """A registry on a static host: a folder with an index.json."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix(f"/{INDEX}")

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None; see copies.Place."""
        from . import streaming

        try:
            found = streaming.document(f"{self.url}/{INDEX}", most=MOST, etag=tag)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no registry at {self.url}", hint=f"name a folder of a web server with an {INDEX}"
            ) from error
        return None if found is None else State(tag=found.etag, home=self.url, data=found.data)

    def part(self, path: str, home: str, tag: str) -> State | None:
        """Return a file beside the index, or None; see copies.Sharing."""
        from . import streaming

        found = streaming.document(f"{home}/{quote(path)}", most=MOST, etag=tag)
        return None if found is None else State(tag=found.etag, home=home, data=found.data)
