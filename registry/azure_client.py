"""What is asked of Azure Blob Storage, by azure-storage-blob with the user's credentials; errors are ours.

Account and credentials are those of every program of Azure: the account is in the URL or in the environment, and lets
in whom the environment names (azure_accounts.py) or azure-identity finds: `az login`, a service principal, the machine.
Without any, public containers are read.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import AdapterHubError, AuthenticationError, NotFoundError, OfflineError, UnsupportedError
from . import azure_accounts, bucket, redaction, streaming
from .azure_accounts import CREDENTIALS, WRITTEN, Account
from .bucket import NEW, Location
from .contention import Stale
from .streaming import Document, Passing

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobServiceClient

OTHER = '"0x0"'
"""An ETag that no object has."""

PIECE = 64 << 20
"""Bytes that one request brings of a larger object, which is put together when all are there."""

_CLOUDS = r"core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)"
_CONTAINER = re.compile(rf"(?:\$root|[a-z0-9][a-z0-9-]*)(?:@[a-z0-9]+\.blob\.{_CLOUDS})?")
_SCOPE = "https://storage.azure.com/.default"
_VERSION = "2021-08-06"
"""Of the protocol, where a token is sent without the library."""

_ADDRESS_SECONDS = 3600


def parse(url: str) -> Location:
    """Return the location that a URL names; see Store.parse.

    >>> str(parse("az://container/some/prefix/"))
    'az://container/some/prefix'
    """
    return bucket.parse(url, "az", _CONTAINER, f"az://container/prefix or {WRITTEN}")


@functools.cache
def account(host: str) -> Account:
    """Return the account at a host, or that of the environment where it is ""; see azure_accounts.account_at."""
    return azure_accounts.account_at(host)


@functools.cache
def identity() -> TokenCredential | None:
    """Return who azure-identity finds that we are, or None where that is nobody."""
    try:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return None
    _calm_logs()
    found = DefaultAzureCredential()
    try:
        found.get_token(_SCOPE)
    except ClientAuthenticationError:
        return None
    return found


def _calm_logs() -> None:
    """Let what the libraries log not be shown where nobody asked for it, and go without signatures."""
    logging.getLogger("azure").addHandler(logging.NullHandler())
    redaction.redact_logs()


def _library() -> ModuleType:
    """Return azure-storage-blob.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import azure.storage.blob as library
    except ImportError as error:
        raise UnsupportedError("az:// needs azure-storage-blob", hint="pip install 'adapterhub[azure]'") from error
    found: ModuleType = library
    return found


@functools.cache
def client(known: Account) -> BlobServiceClient:
    """Return the client of this process for an account.

    Raises:
        UnsupportedError: azure-storage-blob is not installed, or a token would be sent without TLS.
    """
    import atexit

    library = _library()
    _calm_logs()
    made: BlobServiceClient = library.BlobServiceClient(
        known.url,
        credential=_credential(known),
        connection_timeout=streaming.CONNECT_SECONDS,
        read_timeout=streaming.READ_SECONDS,
        # What may pass is tried again here, as it is everywhere; nothing leads elsewhere.
        retry_total=0,
        permit_redirects=False,
        max_single_put_size=PIECE,
        max_block_size=PIECE,
        user_agent="adapterhub",
    )
    atexit.register(made.close)
    return made


def _credential(known: Account) -> AzureNamedKeyCredential | AzureSasCredential | TokenCredential | None:
    """Return what lets in to an account, as the library takes it."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    if known.key:
        return AzureNamedKeyCredential(known.name, known.key)
    return AzureSasCredential(known.token) if known.token else _who(known)


def _who(known: Account) -> TokenCredential | None:
    """Return who azure-identity finds that we are, for an account without key and token; None is nobody.

    Raises:
        UnsupportedError: a token would be sent without TLS.
    """
    who = identity()
    if who is not None and not known.url.startswith("https://"):
        raise UnsupportedError(
            f"{streaming.shown(known.url)} is not asked over TLS, and gets no token", hint="use a key of the account"
        )
    return who


def stream(location: Location, start: int) -> Iterator[bytes]:
    """Yield the bytes of an object from start on; see Store.stream."""
    address, headers = _address(location)
    with bucket.named_errors(location, CREDENTIALS):
        yield from streaming.stream(address, start=start, headers=headers)


def document(location: Location, *, most: int, tag: str = "") -> Document | None:
    """Return an object as a whole, or None where it is still the state called tag; see Store.document."""
    address, headers = _address(location)
    with bucket.named_errors(location, CREDENTIALS):
        return streaming.document(address, most=most, etag=tag, headers=headers)


def _address(location: Location) -> tuple[str, dict[str, str]]:
    """Return the URL at which an object can be read like any file of a web server, and the headers that let in."""
    container, known = _of(location)
    url = f"{known.url}/{container}/{quote(location.key)}"
    if known.key:
        return f"{url}?{_signature(known, container, location.key)}", {}
    if known.token:
        return f"{url}?{known.token}", {}
    who = _who(known)
    if who is None:
        return url, {}
    with our_errors(str(location)):
        return url, {"Authorization": f"Bearer {who.get_token(_SCOPE).token}", "x-ms-version": _VERSION}


def _signature(known: Account, container: str, key: str) -> str:
    """Return the query that lets an object be read for an hour."""
    library = _library()
    signed = library.generate_blob_sas(
        account_name=known.name,
        account_key=known.key,
        container_name=container,
        blob_name=key,
        permission=library.BlobSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(seconds=_ADDRESS_SECONDS),
    )
    return str(signed)


def _of(location: Location) -> tuple[str, Account]:
    """Return the container of a location, and its account."""
    container, _, host = location.bucket.partition("@")
    return container, account(host)


def put(location: Location, body: Path | bytes, *, match: str | None = None) -> str:
    """Write an object as a whole, and return its ETag; see Store.put."""
    container, known = _of(location)
    blob = client(known).get_blob_client(container, location.key)
    size = len(body) if isinstance(body, bytes) else body.stat().st_size

    def send() -> str:
        with streaming.sent_body(body) as data:
            written = blob.upload_blob(data or b"", length=size, validate_content=True, **_condition(match))
            return str(written["etag"])

    return streaming.asked(send, functools.partial(our_errors, str(location)))


def _condition(match: str | None) -> dict[str, Any]:
    """Return the arguments that say what an object has to be, to be written."""
    from azure.core import MatchConditions

    if match is None:
        return {"overwrite": True}
    if match == NEW:
        return {"overwrite": False}
    return {"overwrite": True, "etag": match, "match_condition": MatchConditions.IfNotModified}


def listed(beginning: Location, *, older: float = 0.0) -> list[Location]:
    """Return the objects whose names begin so, and that were written so many seconds ago; see Store.listed.

    Accounts with folders list those, too; they are left out.
    """
    container, known = _of(beginning)
    limit = time.time() - older

    def ask() -> list[Location]:
        rows = client(known).get_container_client(container).list_blobs(beginning.key, include=["metadata"])
        return [
            Location(scheme=beginning.scheme, bucket=beginning.bucket, key=row.name)
            for row in rows
            if row.last_modified.timestamp() <= limit and (row.metadata or {}).get("hdi_isfolder") != "true"
        ]

    return streaming.asked(ask, functools.partial(our_errors, str(beginning)))


def remove(locations: Iterable[Location]) -> None:
    """Remove objects; one that is not there is no error; see Store.remove."""
    for location in locations:
        container, known = _of(location)
        blob = client(known).get_blob_client(container, location.key)
        with suppress(NotFoundError):
            streaming.asked(blob.delete_blob, functools.partial(our_errors, str(location)))


@contextmanager
def our_errors(place: str) -> Iterator[None]:
    """Turn the errors of azure-core into ours.

    Raises:
        Stale: a condition does not hold.
        NotFoundError: there is no such container or object.
        AuthenticationError: the store wants credentials, or other ones; or those here cannot be used.
        UnsupportedError: the store does not know the request.
        streaming.Passing: the store cannot be reached now.
        AdapterHubError: it refuses.
    """
    from azure.core import exceptions

    try:
        yield
    except exceptions.HttpResponseError as error:
        raise _refused(error, place) from error
    except (exceptions.ServiceRequestError, exceptions.ServiceResponseError) as error:
        # What it says itself has the whole address in it, and that may have a signature.
        reason = redaction.redacted(str(error))
        raise Passing(OfflineError(f"{place} cannot be reached: {reason}", hint=streaming.UNREACHABLE)) from None
    except exceptions.AzureError as error:
        raise AdapterHubError(f"{place} cannot be used: {redaction.redacted(str(error))}") from None


def _refused(error: HttpResponseError, place: str) -> Exception:
    """Return our error for an answer with a status of failure, or for credentials that cannot be had."""
    if error.response is None or error.status_code is None:
        reason = error.message.partition("\n")[0]
        return AuthenticationError(f"the credentials for {place} cannot be used: {reason}", hint=CREDENTIALS)
    headers = error.response.headers
    code = headers.get("x-ms-error-code", "")
    if error.status_code == 412 or code == "BlobAlreadyExists":
        return Stale(place)
    return bucket.refused(place, error.status_code, code, headers, CREDENTIALS)
