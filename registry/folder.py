"""The remote of files beside an index: relative urls."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import FormatError
from . import paths
from .remote import Source, read_within


class Folder:
    """Reads the files in the folder that the index lies in."""

    network = False

    def takes(self, url: str) -> bool:
        """Return whether url is relative."""
        return not paths.is_url(url)

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of one file of the registry's folder; see Remote.read."""
        url = "" if source.url == paths.HERE else source.url
        path = "/".join(filter(None, [url, source.path]))
        if fault := paths.fault(path):
            raise FormatError(f"url {source.url!r} {fault}")
        yield from read_within(source.registry, path, source)
