"""The remote of files that come with the package: `bundled:<file>`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import FormatError
from . import paths
from .remote import Source, read_within

FOLDER = Path(__file__).with_name("bundled")
"""Where the files lie."""


class Bundled:
    """Reads the files in registry/bundled/."""

    network = False

    def takes(self, url: str) -> bool:
        """Return whether url is a bundled one."""
        return url.startswith("bundled:")

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of one bundled file; see Remote.read."""
        path = "/".join(filter(None, [source.url.removeprefix("bundled:"), source.path]))
        if fault := paths.fault(path):
            raise FormatError(f"url {source.url!r} {fault}")
        yield from read_within(FOLDER, path, source)
