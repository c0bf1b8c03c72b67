"""What is asked of S3, and of stores that speak like it, by botocore with the user's credentials; errors are ours.

Credentials, region and address are those of every program of AWS: the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL_S3, …), the files in ~/.aws, or the machine's role. Without any, public buckets are read.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import AuthenticationError, OfflineError, UnsupportedError, UsageError
from . import bucket, digest, streaming
from .bucket import NEW, Location
from .contention import Stale
from .streaming import Document, Passing

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.exceptions import ClientError

T = TypeVar("T")

OTHER = f'"{"0" * 32}"'
"""An ETag that no object has."""

LARGEST = 5 << 30
"""Bytes that one request may bring."""

CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; what you may not list looks forbidden"
_ADDRESS_SECONDS = 3600
_BUCKET = re.compile(r"[^/]+")
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})


def parse(url: str) -> Location:
    """Return the location that a URL names; see Store.parse.

    >>> str(parse("s3://bucket/some/prefix/"))
    's3://bucket/some/prefix'
    """
    return bucket.parse(url, "s3", _BUCKET, "s3://bucket/prefix")


@functools.cache
def client() -> BaseClient:
    """Return the client of this process.

    Raises:
        UnsupportedError: botocore is not installed.
        AuthenticationError, UsageError: the settings of AWS cannot be used.
    """
    import atexit

    try:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError as error:
        raise UnsupportedError("s3:// needs botocore", hint="pip install 'adapterhub[s3]'") from error
    with our_errors("the settings of AWS"):
        session = botocore.session.get_session()
        config = Config(
            connect_timeout=streaming.CONNECT_SECONDS,
            read_timeout=streaming.READ_SECONDS,
            # What may pass is tried again here, as it is everywhere.
            retries={"total_max_attempts": 1},
            # Other stores do not know the checksums that came later.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4" if session.get_credentials() else UNSIGNED,
            user_agent_extra="adapterhub",
        )
        region = session.get_config_variable("region") or "us-east-1"
        made = session.create_client("s3", region_name=region, config=config)
    atexit.register(made.close)
    return made


def stream(location: Location, start: int) -> Iterator[bytes]:
    """Yield the bytes of an object from start on.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: they cannot be had.
    """
    address = _address(location)
    with bucket.named_errors(location, CREDENTIALS):
        yield from streaming.stream(address, start=start)


def document(location: Location, *, most: int, tag: str = "") -> Document | None:
    """Return an object as a whole, or None where it is still the state called etag.

    most: bytes that it may have.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had, or is larger.
    """
    address = _address(location)
    with bucket.named_errors(location, CREDENTIALS):
        return streaming.document(address, most=most, etag=tag)


def _address(location: Location) -> str:
    """Return the URL at which an object can be read for an hour, like any file of a web server."""
    with our_errors(str(location)):
        named = _named(location)
        return str(client().generate_presigned_url("get_object", Params=named, ExpiresIn=_ADDRESS_SECONDS))


def put(location: Location, body: Path | bytes, *, match: str | None = None) -> str:
    """Write an object as a whole, and return its ETag.

    match: NEW, or the ETag that the object has to have; None is whatever is there.

    Raises:
        Stale: it is not what match says; nothing was changed.
        AuthenticationError, OfflineError, AdapterHubError: it cannot be written.
    """
    size = len(body) if isinstance(body, bytes) else body.stat().st_size
    if size > LARGEST:
        raise UnsupportedError(f"{location} would have {size:,} bytes, and at most {LARGEST:,} are written to S3")
    checksum = digest.md5(body)
    condition = {} if match is None else {"IfNoneMatch": "*"} if match == NEW else {"IfMatch": match}

    def send() -> str:
        with streaming.sent_body(body) as data:
            written = client().put_object(**_named(location), Body=data, ContentMD5=checksum, **condition)
            return str(written.get("ETag", ""))

    return asked(send, str(location))


def listed(beginning: Location, *, older: float = 0.0) -> list[Location]:
    """Return the objects whose names begin so, and that were written so many seconds ago.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: the store does not tell.
    """

    def ask() -> list[Location]:
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=beginning.bucket, Prefix=beginning.key)
        rows = [row for page in pages for row in page.get("Contents", ())]
        limit = time.time() - older
        return [replace(beginning, key=row["Key"]) for row in rows if row["LastModified"].timestamp() <= limit]

    return asked(ask, str(beginning))


def remove(locations: Iterable[Location]) -> None:
    """Remove objects; one that is not there is no error.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: the store does not take it.
    """
    for location in locations:
        asked(functools.partial(client().delete_object, **_named(location)), str(location))


def asked(function: Callable[[], T], place: str) -> T:
    """Return what a function of botocore returns; what may pass by itself is tried again.

    Raises:
        Stale: a condition does not hold.
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: in place of its errors.
    """
    return streaming.asked(function, functools.partial(our_errors, place))


@contextmanager
def our_errors(place: str) -> Iterator[None]:
    """Turn the errors of botocore into ours.

    Raises:
        Stale: a condition does not hold.
        NotFoundError: there is no such bucket or object.
        AuthenticationError: the store wants credentials, or other ones; or those here cannot be used.
        UnsupportedError: the store does not know the request.
        streaming.Passing: the store cannot be reached now.
        AdapterHubError: it refuses.
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error, place) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise Passing(OfflineError(f"{place} cannot be reached: {error}", hint=streaming.UNREACHABLE)) from error
    except exceptions.ParamValidationError as error:
        raise UsageError(f"{place} cannot be meant: {error}", hint="write s3://bucket/prefix") from error
    except exceptions.BotoCoreError as error:
        # Everything else that it raises by itself is about profiles, roles and regions.
        raise AuthenticationError(f"{place} cannot be used: {error}", hint=CREDENTIALS) from error


def _refused(error: ClientError, place: str) -> Exception:
    """Return our error for an answer with a status of failure."""
    status, code = _status(error), error.response["Error"].get("Code", "")
    if status in {409, 412}:
        return Stale(place)
    if code in _EXPIRED:
        return AuthenticationError(f"{place} refuses the credentials: they have expired", hint=CREDENTIALS)
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    return bucket.refused(place, status, code, headers, CREDENTIALS)


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _named(location: Location) -> dict[str, str]:
    return {"Bucket": location.bucket, "Key": location.key}
