"""What is asked of registries of OCI, in the words of its distribution specification; errors are ours.

Source: OCI Distribution Specification 1.1 (end-1 to end-10) and Image Specification 1.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from ..errors import AdapterHubError, DigestError, FormatError, NotFoundError, UsageError
from . import digest, streaming
from .oci import SCHEME
from .oci_transport import Repository, ask, headers_for, named_errors

JSON: TypeAlias = Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


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
        yield from streaming.stream(url, start=start, headers=headers_for(repository, "pull"))


def small_blob(repository: Repository, wanted: str, *, most: int) -> bytes:
    """Return a blob of at most so many bytes.

    Raises:
        DigestError: it is not what its digest says.
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had, or is larger.
    """
    what = f"a document of {repository}"
    data = streaming.bounded(blob(repository, wanted), most, what)
    if (actual := digest.of_bytes(data)) != wanted:
        raise DigestError(what, expected=wanted, actual=actual)
    return data


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
