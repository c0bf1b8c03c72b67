"""How registries of OCI are asked: one request after another, with what lets in, and errors that name places."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import AuthenticationError, NotFoundError
from . import oci_credentials, requesting, streaming
from .oci import SCHEME
from .oci_credentials import Ticket
from .requesting import Reply

MOST_MANIFEST = 4 << 20
"""Bytes that a manifest may have, as the specification says."""
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
        sent = {**(headers or {}), **headers_for(repository, actions, url)}
        return streaming.trying(lambda: _once(method, url, body, sent))


def _once(method: str, url: str, body: Path | bytes | None, headers: Mapping[str, str]) -> Reply:
    """Return the answer to a request; see requesting.once."""
    with streaming.sent_body(body) as content:
        return requesting.once(method, url, content, headers, most=MOST_MANIFEST)


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


tickets: dict[tuple[str, str], Ticket] = {}
_lock = threading.Lock()


def headers_for(repository: Repository, actions: str, url: str = "") -> dict[str, str]:
    """Return what lets in to a repository; nothing for an address of another host."""
    if url and not url.startswith(f"{repository.base}/"):
        return {}
    scope = f"repository:{repository.name}:{actions}"
    with _lock:
        known = tickets.get((repository.base, scope))
        if known is None or known.end < time.monotonic():
            challenge = streaming.trying(lambda: _challenge(repository))
            known = oci_credentials.ticket(challenge, repository.base, repository.host, scope)
            tickets[repository.base, scope] = known
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
