"""Azurite in a test: the emulator of Azure Blob Storage by those who make it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bucket_places import BUCKET, Shop, put_by
from local_server import free_port, wait_for

ACCOUNT = "testers"
KEY = "a2V5IG9mIHRoZSB0ZXN0ZXJz"
OTHER_KEY = "bm90IHRoZWlyIGtleQ=="


@contextlib.contextmanager
def azurite() -> Iterator[str]:
    """Yield the address of a new store, until the block ends."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed (npm: azurite)")
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder:
        port = free_port()
        command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--location", folder]
        options = ("--disableTelemetry", "--skipApiVersionCheck")
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)
        try:
            wait_for(port, seconds=60.0)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def empty_container(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield a place where nothing lies, with nothing of the person who tests."""
    from adapterhub.registry import azure_client

    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(azure_client, "identity", lambda: None)

    def come(place: str, rest: str) -> None:
        text = f"BlobEndpoint={place}/{ACCOUNT};AccountName={ACCOUNT};{rest}"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        azure_client.account.cache_clear()

    def with_key(key: str) -> str:
        come(address, f"AccountKey={key}")
        return key

    def to_read() -> str:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        found = generate_container_sas(
            account_name=ACCOUNT,
            container_name=BUCKET,
            account_key=KEY,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        come(address, f"SharedAccessSignature={found}")
        return str(re.findall("sig=([^&]*)", found)[0])

    def as_nobody() -> str:
        come(address, "")
        return KEY

    come(address, f"AccountKey={KEY}")
    service = azure_client.client(azure_client.account(""))
    with contextlib.suppress(Exception):
        service.create_container(BUCKET)
    try:
        yield Shop(
            store=azure_client,
            url=f"az://{BUCKET}/{os.urandom(8).hex()}",
            address=address,
            at=lambda place: come(place, f"AccountKey={KEY}"),
            without_rights=(to_read, lambda: with_key(OTHER_KEY), as_nobody),
            written=put_by,
        )
    finally:
        for known in (azure_client.account, azure_client.client):
            known.cache_clear()
