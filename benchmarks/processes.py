"""The driver's side of processes: workers that are asked in turn, and the CPU time of whole commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

ENVIRONMENT = {
    # An installation has its modules compiled; the first sample of a command compiles those of this tree.
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT / ".src"),
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}


class Worker:
    """A process that answers the tasks of one library; see serve.py. Starts when it is first asked."""

    def __init__(self, python: Path | str, module: str, folder: Path) -> None:
        self._command = [str(python), "-P", "-m", f"adapterhub.benchmarks.{module}", str(folder)]
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def ask(self, task: str, **arguments: object) -> dict[str, Any]:
        """Return the worker's answer to one task.

        Raises:
            RuntimeError: the worker died; its last words are in the message.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} died at {task}:\n{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self._process

    @property
    def _log(self) -> Path:
        return self._folder / "stderr.txt"

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-8:])

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *args: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()


class Usage(NamedTuple):
    """What a command needed: CPU time, user and system, and the most memory that was resident."""

    seconds: float
    megabytes: float


def command_seconds(command: Sequence[str], environment: Mapping[str, str] | None = None, status: int = 0) -> float:
    """Return the CPU time, user and system, of a command from its start to its end; raises as command_usage."""
    return command_usage(command, environment, status).seconds


def command_usage(command: Sequence[str], environment: Mapping[str, str] | None = None, status: int = 0) -> Usage:
    """Return what a command needed from its start to its end.

    Raises:
        RuntimeError: it did not end with the exit status that it should end with.
    """
    launched = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, *command],
        env={**ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if launched.returncode:
        raise RuntimeError(f"{' '.join(command)} cannot be started: {launched.stderr[-2000:]}")
    ended, seconds, kilobytes = json.loads(launched.stdout)
    if ended != status:
        raise RuntimeError(f"{' '.join(command)} failed: {launched.stderr[-2000:]}")
    return Usage(seconds, kilobytes / 1024)


_LAUNCH = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, ended, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(ended)
print(json.dumps([child.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""Starts a command from a small process: the system counts what its parent had resident among what it had itself."""
