"""Remote: the one contract between the registry and the places where bytes lie.

A remote takes the url of an artifact, or of one file of it, and yields its bytes. It checks nothing: the store does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import AdapterHubError, NotFoundError
from . import paths

BLOCK = 1 << 20
"""Bytes read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file to read.

    Attributes:
        url: url of the artifact, as in the index.
        path: path within the artifact where it is a folder, else "".
        registry: folder that the index lies in; relative urls begin there.
        start: number of bytes at the beginning that are known already and are not to be given again.
    """

    url: str
    path: str
    registry: Path
    start: int = 0

    def __str__(self) -> str:
        if self.url == paths.HERE:
            return self.path
        return f"{self.url}/{self.path}" if self.path else self.url


class Remote(Protocol):
    """A kind of place."""

    @property
    def network(self) -> bool:
        """Whether reading needs the network."""
        ...

    def takes(self, url: str) -> bool:
        """Return whether this kind of place has urls like this one."""
        ...

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of one file from source.start on, in pieces.

        Raises:
            NotFoundError: it is not there.
            OfflineError, AuthenticationError, AdapterHubError: it cannot be reached or read.
        """
        ...


def read_within(folder: Path, path: str, source: Source) -> Iterator[bytes]:
    """Yield the bytes of a regular file inside folder from source.start on, in pieces.

    A link that leads out of folder is refused.

    Raises:
        NotFoundError: there is no such file inside folder.
        AdapterHubError: it cannot be read.
    """
    place = folder / path
    try:
        if not place.resolve(strict=True).is_relative_to(folder.resolve()):
            raise NotFoundError(f"{source} leads out of {folder}", hint="a registry's files lie in its own folder")
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotFoundError(f"{source} in {folder} is not a file")
            file.seek(source.start)
            while block := file.read(BLOCK):
                yield block
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no {source} in {folder}", hint="the registry is incomplete") from error
    except OSError as error:
        raise AdapterHubError(f"cannot read {place}: {error.strerror or error}") from error
