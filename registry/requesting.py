"""Requesting: one request over HTTP with whatever method and body, its answer a small one, and its failures ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from . import streaming
from .contention import Stale

DONE = frozenset({201, 202, 204})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer to a request, with what it says of itself."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def once(
    method: str,
    url: str,
    content: IO[bytes] | Iterable[bytes] | bytes | None,
    headers: Mapping[str, str],
    *,
    most: int,
    conditional: bool = False,
) -> Reply:
    """Return the answer to a request; redirects are not followed.

    Args:
        method: of the request.
        url: whom it goes to.
        content: what is sent.
        headers: sent along.
        most: bytes that the answer may have.
        conditional: the request has a condition.

    Raises:
        Passing: the server cannot be reached now, or says so.
        Stale: a condition does not hold.
        NotFoundError, AuthenticationError, AdapterHubError: it refuses.
    """
    with streaming.passing_errors(url):
        request = streaming.client().build_request(method, url, content=content, headers=dict(headers))
        response = streaming.client().send(request, stream=True)
        try:
            if conditional and response.status_code == 412:
                raise Stale(streaming.shown(url))
            if response.status_code not in DONE:
                streaming.refuse(response.status_code, response.headers, url)
            data = streaming.bounded(response.iter_bytes(), most, streaming.shown(url))
            return Reply(status=response.status_code, headers=response.headers, data=data)
        finally:
            response.close()
