"""A local Ray cluster of real node processes, each of which can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start"]
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore", "NO_PROXY": "*"}
START_SECONDS = 60.0


@dataclass
class Cluster:
    """A cluster.

    Attributes:
        address: what `--ray` takes.
        folder: where Ray writes; its path is short, because it holds sockets.
        nodes: its node processes, each the leader of a group; the first is the head.
    """

    address: str
    folder: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str) -> None:
        """Start a node with one processor, and wait until it has joined."""
        log = self.folder / f"node-{len(self.nodes)}.log"
        command = [*RAY, *options, "--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", "--block"]
        own = {"ADAPTERHUB_CACHE": str(self.folder / "cache"), "XDG_CONFIG_HOME": str(self.folder / "config")}
        environment = {**os.environ, **ENVIRONMENT, **own}
        with log.open("wb") as out:
            node = subprocess.Popen(
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.nodes.append(node)
        limit = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"a node of Ray did not start:\n{log.read_text()}")
            time.sleep(0.05)

    def complete(self) -> None:
        """Start another node where there is none but the head."""
        if self.nodes[-1] is self.nodes[0] or self.nodes[-1].poll() is not None:
            self.start(f"--address={self.address}")

    def kill(self) -> None:
        """Kill the last node with all its processes, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.nodes[-1].pid, signal.SIGKILL)
        self.nodes[-1].wait()


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a cluster of a head alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        found = Cluster(address, Path(folder))
        try:
            port = address.rpartition(":")[2]
            found.start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
            yield found
        finally:
            while found.nodes:
                found.kill()
                found.nodes.pop()
