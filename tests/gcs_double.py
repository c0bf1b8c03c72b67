"""A double of Google Cloud Storage: the few requests of its JSON API that we make, generations and conditions included.

It is no emulator, and knows nothing else. What it answers was held against Google's own, googleapis/storage-testbench,
by running the same tests on both: GCS_TESTBENCH=http://127.0.0.1:9000 lets them run on a server that is there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from bucket_places import BUCKET, Shop
from local_server import Answer, Application, Request, ranged, running

WRITER, READER = "a-token-to-write", "a-token-to-read"


@dataclass(frozen=True)
class Blob:
    """An object: its bytes, and which of its states it is."""

    data: bytes
    generation: int
    updated: str


class GcsDouble(Application):
    """The store.

    Attributes:
        blobs: what was written, by bucket and name.
        heeds: whether conditions are looked at.
        closed: whether requests need a token.
        page: names that are told at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, dict[str, Blob]] = {BUCKET: {}}
        self.heeds = True
        self.closed = False
        self.page = 1000
        self._lock = threading.Lock()

    def proper(self, request: Request) -> Answer:
        """Read, write, list or remove, or give a token."""
        if request.path == "/token":
            return _json({"access_token": WRITER, "expires_in": 3600, "token_type": "Bearer"})
        if refusal := self._refusal(request):
            return refusal
        match = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", request.path)
        if match is None or match[2] not in self.blobs:
            return _error(404, "The specified bucket does not exist.")
        blobs = self.blobs[match[2]]
        with self._lock:
            if match[1]:
                return self._write(request, blobs)
            if match[3] is None:
                return self._list(request, blobs)
            return self._one(request, blobs, unquote(match[3]))

    def _refusal(self, request: Request) -> Answer | None:
        """Return the answer to somebody who may not do that, or None."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.closed or token == WRITER or (token == READER and request.method == "GET"):
            return None
        return _error(403 if token == READER else 401, "Caller does not have access.")

    def _write(self, request: Request, blobs: dict[str, Blob]) -> Answer:
        said, data = _parts(request)
        known = blobs.get(said["name"])
        wanted = request.query.get("ifGenerationMatch")
        if wanted and self.heeds and int(wanted[0]) != (known.generation if known else 0):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if said["md5Hash"] != base64.b64encode(hashlib.md5(data).digest()).decode():
            return _error(400, "Provided MD5 hash does not match calculated MD5 hash.")
        generation = max(time.time_ns() // 1000, known.generation + 1 if known else 0)
        blobs[said["name"]] = Blob(data, generation, datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        return _json({"kind": "storage#object", "name": said["name"], "generation": str(generation)})

    def _list(self, request: Request, blobs: dict[str, Blob]) -> Answer:
        beginning, after = request.query.get("prefix", [""])[0], request.query.get("pageToken", [""])[0]
        names = sorted(name for name in blobs if name.startswith(beginning) and name > after)
        rows = [{"name": name, "updated": blobs[name].updated} for name in names[: self.page]]
        more = {"nextPageToken": names[self.page - 1]} if len(names) > self.page else {}
        return _json({**({"items": rows} if rows else {}), **more})

    def _one(self, request: Request, blobs: dict[str, Blob], name: str) -> Answer:
        blob = blobs.get(name)
        if blob is None:
            return _error(404, f"No such object: {name}")
        if request.method == "DELETE":
            del blobs[name]
            return Answer(status=204)
        if request.query.get("ifGenerationNotMatch") == [str(blob.generation)]:
            return Answer(status=304)
        headers = {"x-goog-generation": str(blob.generation), "ETag": f'"{blob.generation}"'}
        fresh = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
        return ranged(blob.data, headers, request.headers.get("range", "") if fresh else "")


def _parts(request: Request) -> tuple[dict[str, str], bytes]:
    """Return what an upload says of an object, and its bytes."""
    mark = request.headers["content-type"].partition("boundary=")[2].encode()
    _, said, data, end = request.body.split(b"--" + mark)
    assert end == b"--\r\n"
    return json.loads(said.partition(b"\r\n\r\n")[2]), data.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _json(data: object, status: int = 200) -> Answer:
    return Answer(json.dumps(data).encode(), status, {"Content-Type": "application/json"})


def _error(status: int, message: str) -> Answer:
    return _json({"error": {"code": status, "message": message}}, status)


@contextlib.contextmanager
def google_storage() -> Iterator[str]:
    """Yield the address of a double, or of the emulator that the environment names."""
    if address := os.environ.get("GCS_TESTBENCH"):
        yield address
        return
    with running(GcsDouble()) as double:
        yield double.url


@contextlib.contextmanager
def empty_place(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield a place where nothing lies, with nothing of the person who tests."""
    from adapterhub.registry import gcs_client, streaming

    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    gcs_client.credentials.cache_clear()
    body = json.dumps({"name": BUCKET}).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("GCS_TESTBENCH"):
        streaming.client().post(f"{address}/storage/v1/b?project=tests", content=body, headers=headers)

    try:
        yield Shop(
            store=gcs_client,
            url=f"gs://{BUCKET}/{os.urandom(8).hex()}",
            address=address,
            at=lambda place: monkeypatch.setenv("STORAGE_EMULATOR_HOST", place),
            without_rights=(),
            written=written,
        )
    finally:
        gcs_client.credentials.cache_clear()


def written(request: Request) -> str:
    """Return the name of the object that a request writes, or ""."""
    return _parts(request)[0]["name"] if request.path.startswith("/upload/") else ""


def use_token(double: GcsDouble, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a service account come, whose tokens the double gives."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    from adapterhub.registry import gcs_client

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    account = {
        "type": "service_account",
        "client_email": "tests@example.org",
        "token_uri": f"{double.url}/token",
        "private_key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
    }
    (folder / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(gcs_client, "HOST", double.url)
    gcs_client.credentials.cache_clear()
