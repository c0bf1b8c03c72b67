"""Bucket: the one contract between registries and stores of objects, whose clients are a file each.

A store has no locks and no commits. What it has are conditions: an object is written only if it is in a certain state,
which the store has a name for (an ETag, a generation), or only if there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..errors import AdapterHubError, AuthenticationError, NotFoundError, UnsupportedError, UsageError
from . import paths, streaming
from .streaming import Document, Passing

NEW = ""
"""In place of a tag: there is no such object yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """An object, or the beginning of the names of some, in a bucket.

    Attributes:
        scheme: of the URL: s3, az, gs.
        bucket: what the store calls its buckets or containers.
        key: name of the object, or the beginning of some.
    """

    scheme: str
    bucket: str
    key: str

    def __truediv__(self, path: str) -> Location:
        """Return what lies below, at a path."""
        return replace(self, key="/".join(filter(None, [self.key, path])))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")


class Store(Protocol):
    """A kind of store; a module is one.

    Everything raises AuthenticationError, OfflineError or AdapterHubError where the store cannot be reached or refuses.
    """

    OTHER: str
    """A tag that no object has."""

    def parse(self, url: str) -> Location:
        """Return the location that a URL names.

        Raises:
            UsageError: it is none of this store.
        """
        ...

    def stream(self, location: Location, start: int) -> Iterator[bytes]:
        """Yield the bytes of an object from start on.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def document(self, location: Location, *, most: int, tag: str = "") -> Document | None:
        """Return an object as a whole, or None where it is still in the state called tag.

        most: bytes that it may have.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def put(self, location: Location, body: Path | bytes, *, match: str | None = None) -> str:
        """Write an object as a whole, and return the tag of its state.

        match: NEW, or the tag that the object has to have; None is whatever is there.

        Raises:
            Stale: it is not what match says; nothing was changed.
        """
        ...

    def listed(self, beginning: Location, *, older: float = 0.0) -> list[Location]:
        """Return the objects whose names begin so, and that were written so many seconds ago."""
        ...

    def remove(self, locations: Iterable[Location]) -> None:
        """Remove objects; one that is not there is no error."""
        ...


def parse(url: str, scheme: str, buckets: re.Pattern[str], written: str) -> Location:
    """Return the location that a URL names.

    Args:
        url: the URL.
        scheme: how it has to begin.
        buckets: what the names of buckets look like.
        written: how such URLs are written, for people.

    Raises:
        UsageError: it is none of that scheme.
    """
    begun, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    key = key.strip("/")
    if begun != scheme or not buckets.fullmatch(bucket) or (key and paths.fault(key)):
        raise UsageError(f"{url} is no place in a bucket", hint=f"write {written}")
    return Location(scheme=scheme, bucket=bucket, key=key)


@contextmanager
def named_errors(location: Location, credentials: str) -> Iterator[None]:
    """Let errors of the web call an object as the user does; credentials: what to do about those."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no {location}", hint="check bucket and path, and that you may read it"
        ) from error
    except AuthenticationError as error:
        raise AuthenticationError(f"{location} asks for credentials, or for other ones", hint=credentials) from error


def refused(place: str, status: int, code: str, headers: Mapping[str, str], credentials: str) -> Exception:
    """Return our error for an answer with a status of failure.

    Args:
        place: what was asked for.
        status: the status.
        code: the word that the store has for it.
        headers: of the answer.
        credentials: what to do about credentials that are refused.
    """
    if status == 501 or code == "NotImplemented":
        return UnsupportedError(f"{place} does not know the request ({code})")
    try:
        streaming.refuse(status, headers, place)
    except AuthenticationError:
        return AuthenticationError(f"{place} refuses the credentials ({code})", hint=credentials)
    except (AdapterHubError, Passing) as ours:
        return ours
    return AdapterHubError(f"{place} cannot be read: {code}")
