"""What is asked of Google Cloud Storage, in its JSON API; google-auth finds the credentials, errors are ours.

Credentials are those of every program of Google Cloud: the file that GOOGLE_APPLICATION_CREDENTIALS names, what `gcloud
auth application-default login` keeps, or the machine's service account. Without any, public buckets are read. The state
of an object is its generation, a number.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ..errors import AuthenticationError, NotFoundError, OfflineError, UnsupportedError
from . import bucket, digest, remote, requesting, streaming
from .bucket import NEW, Location
from .streaming import Document, Passing

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

OTHER = "1"
"""A generation that no object has: they are microseconds since 1970."""

HOST = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
CREDENTIALS = (
    "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS; "
    "what you may not list looks forbidden"
)
MOST = 64 << 20
"""Bytes that an answer may have which is no object: a page of names."""

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]+[a-z0-9]")
_GENERATION = "x-goog-generation"


def parse(url: str) -> Location:
    """Return the location that a URL names; see Store.parse.

    >>> str(parse("gs://bucket/some/prefix/"))
    'gs://bucket/some/prefix'
    """
    return bucket.parse(url, "gs", _BUCKET, "gs://bucket/prefix")


@functools.cache
def credentials() -> Credentials | None:
    """Return the credentials of this process, or None where there are none.

    Raises:
        UnsupportedError: google-auth is not installed.
        AuthenticationError: those that are named cannot be used.
    """
    try:
        from google import auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport import requests  # noqa: F401 (asks for tokens later)
    except ImportError as error:
        raise UnsupportedError("gs:// needs google-auth", hint="pip install 'adapterhub[gcs]'") from error
    # What it has to say goes to those who listen, and not to the terminal of all others.
    logging.getLogger("google").addHandler(logging.NullHandler())
    try:
        found, _ = auth.default(scopes=[_SCOPE])
    except DefaultCredentialsError as error:
        if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            return None
        raise AuthenticationError(f"the credentials for gs:// cannot be used: {error.args[0]}") from error
    return found


def stream(location: Location, start: int) -> Iterator[bytes]:
    """Yield the bytes of an object from start on; see Store.stream."""
    url = _of(location, alt="media")
    headers = _headers("GET", url, location)
    with bucket.named_errors(location, CREDENTIALS):
        yield from streaming.stream(url, start=start, headers=headers)


def document(location: Location, *, most: int, tag: str = "") -> Document | None:
    """Return an object as a whole, or None where it is still the generation tag; see Store.document."""
    unless = {"ifGenerationNotMatch": tag} if tag else {}
    url = _of(location, alt="media", **unless)
    headers = _headers("GET", url, location)
    with bucket.named_errors(location, CREDENTIALS):
        return streaming.document(url, most=most, headers=headers, named_by=_GENERATION)


def put(location: Location, body: Path | bytes, *, match: str | None = None) -> str:
    """Write an object as a whole, and return its generation; see Store.put.

    What is written is not kept by caches on the way, as public objects would be for an hour.
    """
    condition = {} if match is None else {"ifGenerationMatch": "0" if match == NEW else match}
    said = {
        "name": location.key,
        "md5Hash": digest.md5(body),
        "cacheControl": "no-cache",
        "contentType": "application/octet-stream",
    }
    url = f"{_host()}/upload/storage/v1/b/{location.bucket}/o?" + urlencode({"uploadType": "multipart", **condition})
    who = _headers("POST", url, location)

    def send() -> str:
        with streaming.sent_body(body) as data:
            parts = _Parts(said, data or b"")
            done = requesting.once("POST", url, parts, {**who, **parts.headers}, most=MOST, conditional=True)
            return str(json.loads(done.data)["generation"])

    with bucket.named_errors(location, CREDENTIALS):
        return streaming.trying(send)


class _Parts:
    """The body of an upload: what is said of the object, and then its bytes, each behind its own header."""

    def __init__(self, said: Mapping[str, str], data: IO[bytes] | bytes) -> None:
        mark = os.urandom(16).hex()
        first = f"--{mark}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(said)}\r\n"
        self._before = f"{first}--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        self._data = data
        self._behind = f"\r\n--{mark}--\r\n".encode()
        size = len(data) if isinstance(data, bytes) else os.fstat(data.fileno()).st_size
        length = len(self._before) + size + len(self._behind)
        self.headers = {"Content-Type": f"multipart/related; boundary={mark}", "Content-Length": str(length)}

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        if isinstance(self._data, bytes):
            yield self._data
        else:
            yield from iter(functools.partial(self._data.read, remote.BLOCK), b"")
        yield self._behind


def listed(beginning: Location, *, older: float = 0.0) -> list[Location]:
    """Return the objects whose names begin so, and that were written so many seconds ago; see Store.listed."""
    limit = time.time() - older
    return [
        Location(scheme=beginning.scheme, bucket=beginning.bucket, key=row["name"])
        for row in _rows(beginning)
        if datetime.fromisoformat(row["updated"]).timestamp() <= limit
    ]


def _rows(beginning: Location) -> Iterator[Mapping[str, Any]]:
    """Yield what the store says of the objects whose names begin so, page by page."""
    asked = {"prefix": beginning.key, "fields": "items(name,updated),nextPageToken"}
    page: dict[str, str] = {}
    while True:
        url = f"{_host()}/storage/v1/b/{beginning.bucket}/o?{urlencode({**asked, **page})}"
        found = json.loads(_asked("GET", url, beginning))
        yield from found.get("items", ())
        if not (token := found.get("nextPageToken")):
            return
        page = {"pageToken": token}


def remove(locations: Iterable[Location]) -> None:
    """Remove objects; one that is not there is no error; see Store.remove."""
    for location in locations:
        with suppress(NotFoundError):
            _asked("DELETE", _of(location), location)


def _asked(method: str, url: str, location: Location) -> bytes:
    """Return the answer to a request; what may pass by itself is tried again."""
    headers = _headers(method, url, location)
    with bucket.named_errors(location, CREDENTIALS):
        return streaming.trying(lambda: requesting.once(method, url, None, headers, most=MOST)).data


def _host() -> str:
    """Return what the addresses of all requests begin with."""
    other = os.environ.get(EMULATOR, "").rstrip("/")
    return HOST if not other else other if "://" in other else f"http://{other}"


def _of(location: Location, **query: str) -> str:
    """Return the address of an object."""
    path = f"{_host()}/storage/v1/b/{location.bucket}/o/{quote(location.key, safe='')}"
    return f"{path}?{urlencode(query)}" if query else path


def _headers(method: str, url: str, location: Location) -> dict[str, str]:
    """Return what lets in.

    Raises:
        AuthenticationError: the credentials cannot be renewed.
        OfflineError: who renews them cannot be reached.
    """
    # An emulator is another host, and gets none.
    known = None if os.environ.get(EMULATOR) else credentials()
    if known is None:
        return {}

    def renewed() -> dict[str, str]:
        from google.auth.transport.requests import Request

        headers: dict[str, str] = {}
        with _our_errors(location):
            known.before_request(Request(), method, url, headers)
        return headers

    return streaming.trying(renewed)


@contextmanager
def _our_errors(location: Location) -> Iterator[None]:
    """Turn the errors of google-auth into ours.

    Raises:
        Passing: who renews the credentials cannot be reached now.
        AuthenticationError: they cannot be renewed.
    """
    from google.auth import exceptions

    try:
        yield
    except exceptions.TransportError as error:
        offline = OfflineError(f"the credentials for {location} cannot be renewed: {error}", hint=streaming.UNREACHABLE)
        raise Passing(offline) from error
    except exceptions.GoogleAuthError as error:
        raise AuthenticationError(
            f"the credentials for {location} cannot be used: {error.args[0]}", hint=CREDENTIALS
        ) from error
