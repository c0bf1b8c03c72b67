"""The kinds of buckets that tests run against: where a store lies, who comes, and what its requests look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from local_server import Answer, Request
from remote_cases import a_registry

from adapterhub.registry.bucket import Location, Store

BUCKET = "adapters"
BUSY = Answer(b"<Error><Code>SlowDown</Code></Error>", 503)


@dataclass(frozen=True)
class Shop:
    """A store that runs, and an empty place in it.

    Attributes:
        store: our client of it.
        url: the empty place.
        address: where the store lies.
        at: lets it lie at another address, such as that of a proxy.
        without_rights: each lets somebody come who may not write; returns what must not be shown.
        written: returns the name of the object that a request writes, or "".
    """

    store: Store
    url: str
    address: str
    at: Callable[[str], None]
    without_rights: tuple[Callable[[], str], ...]
    written: Callable[[Request], str]

    @property
    def home(self) -> Location:
        """The empty place."""
        return self.store.parse(self.url)

    def put(self, path: str, body: bytes | Path) -> str:
        """Write an object at a path from there."""
        return self.store.put(self.home / path, body)

    def data(self, path: str) -> bytes:
        """Return the bytes of an object at a path from there."""
        found = self.store.document(self.home / path, most=1 << 20)
        assert found is not None
        return found.data

    def paths(self, beginning: str = "") -> set[str]:
        """Return the paths of the objects that begin so."""
        there = self.store.listed(self.home / f"{beginning}/" if beginning else self.home)
        return {found.key.removeprefix(f"{self.home.key}/") for found in there}

    def fill(self) -> None:
        """Make it a registry of a few files."""
        for path, data in a_registry().items():
            self.put(path, data)


def put_by(request: Request) -> str:
    """Return the name of the object that a PUT writes, or ""."""
    return unquote(request.path).partition(f"/{BUCKET}/")[2] if request.method == "PUT" else ""
