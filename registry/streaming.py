"""Streaming: bytes over HTTP, bounded in time and size, gone on with where a connection broke.

A request waits so long and no longer; what may pass by itself (a broken connection, 429, 5xx) is tried again a few
times, later each time and never at the same moment as others; what arrives too slowly is given up. Redirects are
followed a few times, never from https to http, and credentials stay with the host that they are for.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..errors import AdapterHubError, AuthenticationError, NotFoundError, OfflineError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
"""Longest wait for the next bytes."""

PACE = (1024, 60.0)
"""At least so many bytes have to come in so many seconds, or it is given up."""

TRIES = 5
"""Times that a request is sent, if nothing comes of it."""

WAIT_SECONDS = 0.5
"""Wait before the second try; it doubles with each further one."""

LONGEST_WAIT_SECONDS = 60.0
REDIRECTS = 5
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others in a while."""

UNREACHABLE = "check the connection, or use --offline for what is on this machine"


class Passing(Exception):  # noqa: N818 (not an error yet: it is tried again)
    """Something that may pass by itself.

    Attributes:
        error: what to raise if it does not.
        wait: seconds that the server asks to wait, or 0.
    """

    def __init__(self, error: AdapterHubError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A small file that was fetched as a whole.

    Attributes:
        data: its bytes.
        etag: what the server calls this state of it, or "".
    """

    data: bytes
    etag: str


@functools.cache
def client() -> httpx2.Client:
    """Return the client of this process, which keeps connections open."""
    import atexit

    import httpx2

    from . import redaction

    redaction.redact_logs()
    timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    made = httpx2.Client(timeout=timeout, follow_redirects=False, headers={"User-Agent": "adapterhub"})
    atexit.register(made.close)
    return made


def stream(url: str, *, start: int = 0, headers: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """Yield the bytes at a URL from start on.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: they cannot be had.
    """
    body = _Body(url, headers or {})
    yield from unbroken(body.read, start)


def unbroken(read: Callable[[int], Iterator[bytes]], start: int) -> Iterator[bytes]:
    """Yield the bytes that read gives from a position on; where it raises Passing, it goes on from there, a few times.

    Raises:
        AdapterHubError: what did not pass, or what read raises.
    """
    position, failures = start, 0
    while True:
        before = position
        try:
            for block in read(position):
                position += len(block)
                yield block
        except Passing as passing:
            failures = 1 if position > before else failures + 1
            if failures >= TRIES:
                raise passing.error from passing
            pause(failures, passing.wait)
        else:
            return


def document(
    url: str, *, most: int, etag: str = "", headers: Mapping[str, str] | None = None, named_by: str = "ETag"
) -> Document | None:
    """Return the file at a URL, or None where it is still the state called etag.

    Args:
        url: where it lies.
        most: bytes that it may have.
        etag: the state that is known, or "".
        headers: sent along.
        named_by: the header of the answer that names its state.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had, or is larger.
    """
    sent = {**(headers or {}), "Accept-Encoding": "gzip"}
    return trying(lambda: _document(url, most, {**sent, "If-None-Match": etag} if etag else sent, named_by))


def asked(function: Callable[[], T], errors: Callable[[], AbstractContextManager[None]]) -> T:
    """Return what a function of a client's library returns, its errors turned into ours; what may pass is tried again.

    errors: returns a context that turns them, such as hf_client.our_errors.

    Raises:
        AdapterHubError: in place of its errors.
    """

    def once() -> T:
        with errors():
            return function()

    return trying(once)


def trying(function: Callable[[], T]) -> T:
    """Return what a function returns; where it raises Passing, it is called again, a few times.

    Raises:
        AdapterHubError: what did not pass.
    """
    for failures in range(1, TRIES):
        try:
            return function()
        except Passing as passing:
            pause(failures, passing.wait)
    try:
        return function()
    except Passing as passing:
        raise passing.error from passing


def pause(failures: int, wait: float = 0.0) -> None:
    """Wait after so many failures: as long as the server asks, or twice as long each time, give or take a half."""
    own = WAIT_SECONDS * 2 ** (failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311 (spreads clients, hides nothing)
    time.sleep(min(max(wait, own), LONGEST_WAIT_SECONDS))


class _Body:
    """What lies at one URL, read over as many connections as it takes."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._etag = ""
        self._pace = Pace(url)

    def read(self, position: int) -> Iterator[bytes]:
        """Yield the bytes from a position on, as far as one connection gives them.

        Raises:
            Passing: it broke.
        """
        with opened(self.url, self._ranged(position)) as response:
            if response.status_code == 416:
                return
            skip = 0 if response.status_code == 206 else position
            self._remember(response, position)
            for block in response.iter_raw():
                self._pace.count(len(block))
                fresh = block[skip:]
                skip = max(0, skip - len(block))
                if fresh:
                    yield fresh

    def _ranged(self, position: int) -> dict[str, str]:
        """Return the headers that ask for what is missing, if the file is still the one that was begun."""
        if not position:
            return self._headers
        condition = {"If-Range": self._etag} if self._etag else {}
        return {**self._headers, "Range": f"bytes={position}-", **condition}

    def _remember(self, response: httpx2.Response, position: int) -> None:
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag
        if response.status_code == 206 and not _begins_at(response, position):
            raise AdapterHubError(f"{shown(self.url)} answers with another range than asked for")


class Pace:
    """Watches that bytes come fast enough."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._begun = time.monotonic()
        self._counted = 0

    def count(self, size: int) -> None:
        """Count bytes.

        Raises:
            OfflineError: too few came in a while.
        """
        self._counted += size
        least, seconds = PACE
        if self._counted >= least:
            self._begun, self._counted = time.monotonic(), 0
        elif time.monotonic() - self._begun > seconds:
            raise OfflineError(f"{shown(self.url)} comes in too slowly, and is given up", hint="try again later")


@contextmanager
def opened(url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """Yield the answer to a GET, its body not yet read: 200, 206, 304 or 416, after redirects.

    Raises:
        Passing: the server cannot be reached now, or says so.
        NotFoundError, AuthenticationError, AdapterHubError: it refuses.
    """
    import httpx2

    target, sent = url, dict(headers)
    with passing_errors(url):
        for _ in range(REDIRECTS + 1):
            try:
                request = client().build_request("GET", target, headers=sent)
            except httpx2.InvalidURL as error:
                raise NotFoundError(f"{shown(url)} is not a URL: {error}") from error
            response = client().send(request, stream=True)
            try:
                if response.has_redirect_location:
                    target, sent = _redirected(response, url, target, sent)
                    continue
                refuse(response.status_code, response.headers, url)
                yield response
                return
            finally:
                response.close()
    raise AdapterHubError(f"{shown(url)} redirects more than {REDIRECTS} times")


@contextmanager
def sent_body(body: Path | bytes | None) -> Iterator[IO[bytes] | bytes | None]:
    """Yield a body as clients take it: a file from its beginning, bytes as they are."""
    if not isinstance(body, Path):
        yield body
        return
    with body.open("rb") as file:
        yield file


@contextmanager
def passing_errors(url: str) -> Iterator[None]:
    """Turn the errors of connections into Passing.

    Raises:
        Passing: a connection could not be made, broke, or was silent for too long.
        AdapterHubError: the server does not speak HTTP, or what it sends cannot be decoded.
    """
    import httpx2

    try:
        yield
    except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError) as error:
        reason = str(error) or type(error).__name__
        raise Passing(OfflineError(f"{shown(url)} cannot be reached: {reason}", hint=UNREACHABLE)) from error
    except httpx2.RequestError as error:
        raise AdapterHubError(f"{shown(url)} cannot be read: {error}") from error


def refuse(status: int, headers: Mapping[str, str], url: str) -> None:
    """Raise unless a status is one of success.

    Raises:
        Passing: it may be another one in a while.
        NotFoundError, AuthenticationError, AdapterHubError: it will not.
    """
    place = shown(url)
    if status in {200, 206, 304, 416}:
        return
    if status in PASSING:
        raise Passing(
            AdapterHubError(f"{place} answers {status}, {TRIES} times", hint="try again later"),
            _seconds(headers.get("Retry-After", "")),
        )
    missing = headers.get("X-Error-Code") in {"RepoNotFound", "RevisionNotFound", "EntryNotFound"}
    if missing or status in {404, 410}:
        raise NotFoundError(f"there is no {place}", hint="check the address, and that you may read it")
    closed = headers.get("x-ms-error-code") == "PublicAccessNotPermitted"
    if closed or status in {401, 403, 407}:
        raise AuthenticationError(
            f"{place} asks for {'other ' if status == 403 else ''}credentials (status {status})",
            hint="for the Hugging Face Hub set HF_TOKEN, or `hf auth login`",
        )
    raise AdapterHubError(f"{place} answers with status {status}")


def shown(url: str) -> str:
    """Return a URL as errors show it: without what may be secret.

    >>> shown("https://me:secret@host/a?signature=x")
    'https://host/a'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _document(url: str, most: int, headers: Mapping[str, str], named_by: str) -> Document | None:
    with opened(url, headers) as response:
        if response.status_code == 304:
            return None
        data = bounded(_paced(response, url), most, shown(url))
        return Document(data=data, etag=response.headers.get(named_by, ""))


def _paced(response: httpx2.Response, url: str) -> Iterator[bytes]:
    """Yield what an answer holds, as long as it comes fast enough."""
    pace = Pace(url)
    for block in response.iter_bytes():
        pace.count(len(block))
        yield block


def bounded(blocks: Iterable[bytes], most: int, what: str) -> bytes:
    """Return blocks as a whole.

    Raises:
        AdapterHubError: they have more bytes than allowed.
    """
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > most:
            raise AdapterHubError(f"{what} is larger than {most:,} bytes")
    return bytes(data)


def _redirected(
    response: httpx2.Response, url: str, target: str, headers: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Return where an answer leads, and the headers to send there: credentials to the same host only.

    Raises:
        AdapterHubError: it leads from https to anything else, or out of the web.
    """
    found = urljoin(target, response.headers["Location"])
    old, new = urlsplit(target), urlsplit(found)
    if new.scheme not in {"http", "https"} or (old.scheme == "https" and new.scheme == "http"):
        raise AdapterHubError(f"{shown(url)} redirects to {shown(found)}, which is not safe")
    if (old.scheme, old.netloc) == (new.scheme, new.netloc):
        return found, dict(headers)
    return found, {name: value for name, value in headers.items() if name.lower() not in {"authorization", "cookie"}}


def _begins_at(response: httpx2.Response, start: int) -> bool:
    return bool(response.headers.get("Content-Range", "").startswith(f"bytes {start}-"))


def _seconds(text: str) -> float:
    """Return what Retry-After asks for; of a date nothing is taken."""
    return float(text) if text.isdecimal() else 0.0
