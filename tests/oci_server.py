"""docker-registry in a test: a real registry of OCI, with a password and without."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_server import free_port, wait_for

USER, PASSWORD = "tester", "sesame-open"
# Its bcrypt, of the lowest cost.
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuR0KC3k3.wb6.D.0bk8fdpTS7zapWW8a\n"
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/usr/local/bin"])


@dataclass(frozen=True)
class OciServer:
    """A registry that runs.

    Attributes:
        host: its name and port.
        root: the folder in which it keeps everything.
    """

    host: str
    root: Path

    def blob(self, digest: str) -> Path:
        """Return the file of a blob."""
        name = digest.removeprefix("sha256:")
        return self.root / "docker" / "registry" / "v2" / "blobs" / "sha256" / name[:2] / name / "data"


@contextlib.contextmanager
def docker_registry(*, password: bool = False, removes: bool = True) -> Iterator[OciServer]:
    """Yield a new registry until the block ends.

    password: whether it wants one. removes: whether it removes what it is asked to.
    """
    program = shutil.which("docker-registry", path=PLACES)
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: docker-registry)")
    with tempfile.TemporaryDirectory(prefix="docker-registry-") as folder:
        root, port = Path(folder) / "data", free_port()
        (Path(folder) / "htpasswd").write_text(HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n" if password else ""
        (Path(folder) / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n{auth}"
            f"storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: {str(removes).lower()}}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([program, "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
        try:
            wait_for(port)
            yield OciServer(f"127.0.0.1:{port}", root)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
