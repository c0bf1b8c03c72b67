"""What finding, publishing, searching and mirroring move, for registries of many sizes and both layouts of an index.

    python -m adapterhub.benchmarks.registries 300 10000 100000

Requests, bytes over the network, and bytes that a process reads and writes are exact; seconds are CPU time. Each
operation is a process of its own. Linux only: bytes of files are those of /proc/self/io.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from . import synthetic
from .processes import ENVIRONMENT

LAYOUTS = ("one file", "shards")
ARTIFACT = b"x" * 1000


@dataclass(slots=True)
class Host:
    """A static host of a folder that counts what it sends."""

    folder: Path
    url: str = ""
    requests: int = 0
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(folder: Path) -> Iterator[Host]:
    """Yield a host of a folder, with ETags."""
    host = Host(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = host.folder / unquote(self.path).lstrip("/")
            status = path.stat() if path.is_file() else None
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"' if status else ""
            code = 404 if status is None else 304 if self.headers.get("If-None-Match") == etag else 200
            size = status.st_size if status and code == 200 else 0
            with host.lock:
                host.requests += 1
                host.sent += size
            self.send_response(code)
            for name, value in (("Content-Length", str(size)), ("ETag", etag)):
                self.send_header(name, value)
            self.end_headers()
            if size:
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        self.wfile.write(block)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[300, 10_000])
    parser.add_argument("--operations", default="", help="only those that begin so, such as resolve,publish")
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(*options.one)))
        return 0
    print("| entries | layout | operation | requests | over the network | read | written | CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for count in options.counts:
        for layout in options.layouts.split(","):
            with tempfile.TemporaryDirectory(prefix="adapterhub-scale-") as folder:
                for row in measured(Path(folder), count, layout, options.operations):
                    print(f"| {count:,} | {layout} | {' | '.join(row)} |", flush=True)
    return 0


def measured(folder: Path, count: int, layout: str, wanted: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one registry."""
    home = folder / "hub"
    make(home, count, layout)
    middle = synthetic.name(count // 2)
    key = str(make_key(folder))
    with serving(home) as host:
        operations = (
            ("resolve from a host", "resolve", (host.url, middle), "a"),
            ("resolve from a host again", "resolve", (host.url, middle), "a"),
            ("resolve in a folder, one time", "resolve", (str(home), middle), "b"),
            ("publish to a folder", "publish", (str(home), "new-1"), "b"),
            ("search in a folder, first time", "search", (str(home), synthetic.WORD), "c"),
            ("search in a folder again", "search", (str(home), synthetic.WORD), "c"),
            ("publish to a folder, another", "publish", (str(home), "new-2"), "b"),
            ("search in a folder, after a publish", "search", (str(home), "new-2"), "c"),
            ("mirror the index of a host", "mirror", (host.url, str(folder / "mirror")), "d"),
            ("mirror it again", "mirror", (host.url, str(folder / "mirror")), "d"),
            ("sign a folder", "sign", (str(home), key), "e"),
            ("trust a host", "resolve", (host.url, middle), "f"),
            ("trust a host again", "resolve", (host.url, middle), "f"),
            ("sign with a publish", "publish", (str(home), "new-3", key), "e"),
            ("trust a host after a publish", "resolve", (host.url, middle), "f"),
        )
        (folder / "adapterhub.toml").write_text(f'[trust]\n"{host.url}" = "key.pub"\n', "utf-8")
        for what, operation, arguments, cache in operations:
            if what.startswith(tuple(wanted.split(","))):
                if operation == "search":
                    time.sleep(2.1)  # What is newer is read again by design.
                trusting = folder if cache == "f" else None
                yield what, *_measured(host, operation, arguments, folder / cache, trusting)


def make(home: Path, count: int, layout: str) -> None:
    """Write a registry; the artifacts lie elsewhere."""
    from adapterhub.registry import Index, shards
    from adapterhub.registry.index import Entries

    home.mkdir(parents=True)
    entries = ((synthetic.name(number), _entry(number)) for number in range(count))
    if layout == "one file":
        (home / "index.json").write_bytes(Index(adapters=Entries(dict(entries))).dumps())
        return
    (home / "index.json").write_bytes(shards.MARKER.dumps())
    for group in range(256):
        (home / shards.FOLDER / f"{group:02x}").mkdir(parents=True)
    for name, entry in entries:
        document = {"format": 1, "adapters": {name: entry}}
        (home / shards.path_of(name)).write_text(json.dumps(document, indent=2), "utf-8")
    from adapterhub.registry import sharding

    sharding.pack(home)


def _entry(number: int) -> dict[str, Any]:
    """Return an entry whose artifacts lie elsewhere."""
    entry = synthetic.entry(number)
    for release in entry["versions"].values():
        for artifact in release["artifacts"]:
            artifact["url"] = f"https://files.example.org/{artifact['url']}"
    return entry


def make_key(folder: Path) -> Path:
    """Write a pair of keys, key.pem and key.pub, and return the first."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder / "key.pem"


def _measured(
    host: Host, operation: str, arguments: tuple[str, ...], cache: Path, project: Path | None
) -> tuple[str, ...]:
    """Return the cells of an operation that runs in a process of its own, in the folder of a project."""
    host.requests = host.sent = 0
    command = [sys.executable, "-P", "-m", "adapterhub.benchmarks.registries", "--one", operation, *arguments]
    environment = {**ENVIRONMENT, "ADAPTERHUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=project)
    if done.returncode:
        return ("failed: " + done.stderr.strip().splitlines()[-1][:100], "", "", "", "")
    found = json.loads(done.stdout)
    network = (f"{host.requests:,}", _size(host.sent)) if host.requests else ("", "")
    return (*network, _size(found["read"]), _size(found["written"]), f"{found['seconds']:.2f} s")


def _one(operation: str, *arguments: str) -> Mapping[str, float]:
    """Do one operation in this process, and return what it cost: bytes read and written, and CPU seconds."""
    from adapterhub.registry import streaming

    run = {"resolve": _resolve, "publish": _publish, "search": _search, "mirror": _mirror, "sign": _sign}[operation]
    with tempfile.TemporaryDirectory() as folder:
        # What is imported is not counted.
        run(*_warm(operation, Path(folder)))
        if arguments[0].startswith("http"):
            streaming.client()
    before, started = _io(), time.process_time()
    run(*arguments)
    after, seconds = _io(), time.process_time() - started
    return {"read": after[0] - before[0], "written": after[1] - before[1], "seconds": seconds}


def _warm(operation: str, folder: Path) -> tuple[str, ...]:
    """Return the arguments for an operation on a tiny registry."""
    make(folder / "hub", 3, "one file")
    if operation == "mirror":
        return str(folder / "hub"), str(folder / "mirror")
    if operation == "sign":
        return str(folder / "hub"), str(make_key(folder))
    return str(folder / "hub"), {"resolve": synthetic.name(1), "publish": "warm"}.get(operation, "word")


def _resolve(place: str, name: str) -> None:
    from adapterhub.registry import open_registry

    open_registry(place).index.resolve(name)


def _search(place: str, word: str) -> None:
    from adapterhub.registry import open_registry

    list(open_registry(place).index.search([word]))


def _mirror(source: str, folder: str) -> None:
    from adapterhub.registry import open_registry
    from adapterhub.registry.local_runner import Threads
    from adapterhub.registry.mirroring import Mirror

    report = Mirror(open_registry(source), Path(folder), keep_urls=True).run(Threads(8))
    if report.failed:
        raise next(iter(report.failed.values()))


def _sign(place: str, key: str) -> None:
    from adapterhub.registry import Settings, desks, signing

    signing.sign(desks.desk_at(place, Settings.load()), Path(key))


def _publish(place: str, name: str, key: str = "") -> None:
    from adapterhub.registry import ArtifactBase, Offer, Publication, Settings, publisher_at
    from adapterhub.registry.signing import Seal

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(ARTIFACT)
        offer = Offer(
            base=ArtifactBase(id="acme/base", architecture="bert"), method="lora", format="native", files={"": file}
        )
        publication = Publication(
            name=name, version="1.0.0", published="2026-11-25", offers=(offer,), card=lambda old: old or b""
        )
        publisher = publisher_at(place, settings=Settings.load())
        publisher.publish(publication, seal=Seal.of(Path(key)) if key else None)


def _io() -> tuple[int, int]:
    """Return how many bytes this process has read and written."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


def _size(count: int) -> str:
    """Return a number of bytes, short.

    >>> _size(512), _size(79_000_000)
    ('512 B', '79 MB')
    """
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}" if count < 10 * length else f"{count / length:.0f} {unit}"
    return f"{count} B"


if __name__ == "__main__":
    sys.exit(main())
