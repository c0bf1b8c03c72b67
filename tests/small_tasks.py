"""Functions of tasks for the tests, which other processes can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from adapterhub.errors import DigestError


def square(number: int) -> int:
    return number * number


def failing(number: int) -> int:
    if number % 3 == 0:
        raise DigestError(f"file {number}", expected="sha256:a", actual="sha256:b", hint="look")
    if number % 3 == 1:
        raise KeyError(number)
    return number


def noted(folder: Path, number: int) -> int:
    """Leave a file for each time that a task is begun."""
    (folder / f"{number}-{os.urandom(4).hex()}").touch()
    return number


def deadly(folder: Path, number: int) -> int:
    noted(folder, number)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
