"""Journal: what was done, one line of JSON for each task, in a file that the next run goes on from.

    {"name": …, "mark": …, "result": …}

One process writes it. A line that was cut by a machine that went off is not read, and a task counts as done only if its
mark is still the same: the digest of all that its outcome depends on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeAlias, TypeVar

from ..errors import StateError
from . import atomic
from .tasks import Task

V = TypeVar("V")
T = TypeVar("T")
JSON: TypeAlias = Any


@dataclass(slots=True)
class Journal(Generic[V, T]):
    """An open journal; as the memory of a list of tasks, see tasks.Memory.

    Attributes:
        path: the file.
        mark: task → its mark.
        to_json: what came of a task → JSON.
        from_json: and back.
    """

    path: Path
    mark: Callable[[Task[V]], str]
    to_json: Callable[[T], JSON]
    from_json: Callable[[JSON], T]
    _known: dict[str, tuple[str, JSON]] = field(default_factory=dict)
    _file: IO[bytes] | None = None

    def recall(self, task: Task[V]) -> T | None:
        """Return what came of a task that was done before, or None."""
        mark, result = self._known.get(task.name, ("", None))
        return self.from_json(result) if mark and mark == self.mark(task) else None

    def keep(self, task: Task[V], result: T) -> None:
        """Note what came of a task.

        Raises:
            AdapterHubError: the file cannot be written.
        """
        line = {"name": task.name, "mark": self.mark(task), "result": self.to_json(result)}
        try:
            if self._file is not None:
                self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                self._file.flush()
        except OSError as error:
            raise atomic.unwritable(self.path, error) from error

    @contextlib.contextmanager
    def opened(self, *, afresh: bool = False) -> Iterator[None]:
        """Read what is noted, and hold the file against other processes; afresh forgets it.

        Raises:
            StateError: another process holds it.
            AdapterHubError: it cannot be read or written.
        """
        from filelock import FileLock, Timeout

        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0))
                file = stack.enter_context(self.path.open("ab+"))
                file.truncate(0 if afresh else self._read(file))
            except Timeout as error:
                raise StateError(f"another process writes {self.path}", hint="wait for it to end") from error
            except OSError as error:
                raise atomic.unwritable(self.path, error) from error
            self._file = file
            yield
        self._file = None

    def close(self) -> None:
        """Forget everything: all tasks are done, and the next list of them begins anew."""
        self.path.unlink(missing_ok=True)

    def _read(self, file: IO[bytes]) -> int:
        """Read the lines that are whole, and return where they end."""
        file.seek(0)
        end = 0
        for line in file:
            try:
                said = json.loads(line)
                self._known[said["name"]] = (said["mark"], said["result"])
            except (ValueError, TypeError, KeyError):
                break
            end += len(line)
        return end
