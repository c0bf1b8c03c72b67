"""What is asked of registries of OCI, in the words of its distribution specification; errors are ours.

Source: OCI Distribution Specification 1.1 (end-1 to end-10) and Image Specification 1.1.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from ..errors import AdapterHubError, AuthenticationError, DigestError, FormatError, NotFoundError, UsageError
from . import digest, oci_credentials, streaming
from .oci_credentials import Ticket

JSON: TypeAlias = Any

SCHEME = "oci://"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MOST_MANIFEST = 4 << 20
"""Bytes that a manifest may have, as the specification says."""

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts that speak HTTP without TLS, as all programs of containers agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository in a registry."""

    host: str
    name: str

    @property
    def base(self) -> str:
        """The address that all of it lies below."""
        bare = self.host.partition(":")[0] if not self.host.startswith("[") else self.host.partition("]")[0] + "]"
        return f"{'http' if bare in _HERE else 'https'}://{self.host}/v2"

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer to a request, with what it says of itself."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def parse(url: str) -> tuple[Repository, str, str]:
    """Return repository, tag or digest, and path within; the latter two are "" where they are not named.

    Raises:
        UsageError: it is no place in a registry of OCI.

    >>> parse("oci://localhost:5000/me/sst2:1.0.0")
    (Repository(host='localhost:5000', name='me/sst2'), '1.0.0', '')
    """
    host, _, rest = url.removeprefix(SCHEME).partition("/")
    name, mark, reference = rest.partition("@")
    path = ""
    if mark:
        reference, _, path = reference.partition("/")
    else:
        name, mark, reference = rest.partition(":")
    known = not mark or _DIGEST.fullmatch(reference) or _TAG.fullmatch(reference)
    if not (url.startswith(SCHEME) and _HOST.fullmatch(host) and _NAME.fullmatch(name.rstrip("/")) and known):
        raise UsageError(
            f"{url} is no repository of a registry of OCI", hint="write oci://host/name, in lower-case letters"
        )
    return Repository(host=host, name=name.rstrip("/")), reference, path


def tags(repository: Repository, *, actions: str = "pull") -> list[str]:
    """Return all tags of a repository.

    Raises:
        NotFoundError: there is no such repository.
        AuthenticationError, OfflineError, AdapterHubError: the registry does not tell.
    """
    found: list[str] = []
    url = f"{repository.base}/{repository.name}/tags/list"
    while url:
        reply = ask(repository, "GET", url, actions=actions)
        try:
            found += map(str, json.loads(reply.data).get("tags") or ())
        except (ValueError, AttributeError, TypeError) as error:
            raise FormatError(f"the tags of {repository} are not a list") from error
        match = _NEXT.search(reply.headers.get("Link", ""))
        following = urljoin(url, match[1]) if match else ""
        url = following if following.startswith(f"{repository.base}/") and following != url else ""
    return found


def manifest(repository: Repository, reference: str, *, actions: str = "pull") -> tuple[str, JSON]:
    """Return digest and content of the manifest that a tag or digest names.

    Raises:
        NotFoundError: there is none.
        DigestError: it is not what its digest says.
        FormatError: it is not a manifest.
        AuthenticationError, OfflineError, AdapterHubError: it cannot be had.
    """
    url = f"{repository.base}/{repository.name}/manifests/{reference}"
    reply = ask(repository, "GET", url, headers={"Accept": MANIFEST}, actions=actions)
    actual = digest.of_bytes(reply.data)
    if _DIGEST.fullmatch(reference) and actual != reference:
        raise DigestError(f"the manifest of {repository}", expected=reference, actual=actual)
    try:
        content = json.loads(reply.data)
        if not all(isinstance(row["digest"], str) for row in [content["config"], *content["layers"]]):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{repository} has something else than a manifest at {reference}") from error
    return actual, content


def blob(repository: Repository, wanted: str, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a blob from start on; nothing of them is checked.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: they cannot be had.
    """
    url = f"{repository.base}/{repository.name}/blobs/{digest_of(wanted)}"
    with named_errors(repository):
        yield from streaming.stream(url, start=start, headers=_headers(repository, "pull"))


def small_blob(repository: Repository, wanted: str, *, most: int) -> bytes:
    """Return a blob of at most so many bytes.

    Raises:
        DigestError: it is not what its digest says.
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had, or is larger.
    """
    data = bytearray()
    for block in blob(repository, wanted):
        data += block
        if len(data) > most:
            raise AdapterHubError(f"{repository} has a document of more than {most:,} bytes")
    if (actual := digest.of_bytes(bytes(data))) != wanted:
        raise DigestError(f"a document of {repository}", expected=wanted, actual=actual)
    return bytes(data)


def digest_of(text: str) -> str:
    """Return a digest that comes from outside, if it is one.

    Raises:
        FormatError: it is not.
    """
    if not _DIGEST.fullmatch(text):
        raise FormatError(f"{text[:80]!r} is not a SHA-256 digest")
    return text


def upload(repository: Repository, body: Path | bytes, known: str) -> None:
    """Bring a blob there, unless it is there; the registry holds it to its digest.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: it is not taken.
    """
    home = f"{repository.base}/{repository.name}/blobs"
    try:
        ask(repository, "HEAD", f"{home}/{known}", actions="pull,push")
        return
    except NotFoundError:
        begun = ask(repository, "POST", f"{home}/uploads/", actions="pull,push")
    place = urljoin(f"{home}/uploads/", begun.headers.get("Location", ""))
    target = f"{place}{'&' if urlsplit(place).query else '?'}digest={quote(known, safe='')}"
    ask(repository, "PUT", target, body=body, headers={"Content-Type": "application/octet-stream"}, actions="pull,push")


def put_manifest(repository: Repository, reference: str, data: bytes) -> None:
    """Let a tag name a manifest, whatever it named before.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: it is not taken.
    """
    url = f"{repository.base}/{repository.name}/manifests/{reference}"
    ask(repository, "PUT", url, body=data, headers={"Content-Type": MANIFEST}, actions="pull,push")


def forget(repository: Repository, known: str) -> bool:
    """Remove a manifest with all its tags, and return whether the registry does such things."""
    url = f"{repository.base}/{repository.name}/manifests/{known}"
    try:
        ask(repository, "DELETE", url, actions="pull,push,delete")
    except NotFoundError:
        return True
    except AdapterHubError:
        return False
    return True


def ask(
    repository: Repository,
    method: str,
    url: str,
    *,
    body: Path | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    actions: str,
) -> Reply:
    """Return the answer to a request, a small one; what may pass by itself is tried again.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it is none of success.
    """
    with named_errors(repository):
        sent = {**(headers or {}), **_headers(repository, actions, url)}
        return streaming.trying(lambda: _once(method, url, body, sent))


def _once(method: str, url: str, body: Path | bytes | None, headers: Mapping[str, str]) -> Reply:
    """Return the answer to a request.

    Raises:
        Passing: the registry cannot be reached now, or says so.
        NotFoundError, AuthenticationError, AdapterHubError: it refuses.
    """
    with streaming.passing_errors(url), _opened(body) as content:
        request = streaming.client().build_request(method, url, content=content, headers=dict(headers))
        response = streaming.client().send(request, stream=True)
        try:
            if response.status_code not in {201, 202, 204}:
                streaming.refuse(response.status_code, response.headers, url)
            data = bytearray()
            for block in response.iter_bytes():
                data += block
                if len(data) > MOST_MANIFEST:
                    raise AdapterHubError(f"{streaming.shown(url)} is larger than {MOST_MANIFEST:,} bytes")
            return Reply(status=response.status_code, headers=response.headers, data=bytes(data))
        finally:
            response.close()


@contextmanager
def _opened(body: Path | bytes | None) -> Iterator[Any]:
    """Yield a body as the client takes it, from its beginning."""
    if not isinstance(body, Path):
        yield body
        return
    with body.open("rb") as file:
        yield file


@contextmanager
def named_errors(repository: Repository) -> Iterator[None]:
    """Let errors call a repository as the user does.

    Raises:
        NotFoundError, AuthenticationError: in place of those of the web.
    """
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no such thing in {repository}: {error.message}", hint=oci_credentials.hint(repository.host)
        ) from error
    except AuthenticationError as error:
        raise AuthenticationError(
            f"{repository} refuses the credentials, or asks for some", hint=oci_credentials.hint(repository.host)
        ) from error


_tickets: dict[tuple[str, str], Ticket] = {}
_lock = threading.Lock()


def _headers(repository: Repository, actions: str, url: str = "") -> dict[str, str]:
    """Return what lets in to a repository; nothing for an address of another host."""
    if url and not url.startswith(f"{repository.base}/"):
        return {}
    scope = f"repository:{repository.name}:{actions}"
    with _lock:
        known = _tickets.get((repository.base, scope))
        if known is None or known.end < time.monotonic():
            challenge = streaming.trying(lambda: _challenge(repository))
            known = oci_credentials.ticket(challenge, repository.base, repository.host, scope)
            _tickets[repository.base, scope] = known
    return {"Authorization": known.header} if known.header else {}


def _challenge(repository: Repository) -> str:
    """Return how a registry asks who is there: its header WWW-Authenticate, or "".

    Raises:
        Passing, AdapterHubError: it does not answer.
    """
    url = f"{repository.base}/"
    with streaming.passing_errors(url):
        response = streaming.client().get(url)
    if response.status_code == 401:
        return str(response.headers.get("WWW-Authenticate", ""))
    streaming.refuse(response.status_code, response.headers, url)
    return ""
