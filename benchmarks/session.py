"""Session: the workers of one run, and how samples are taken in turn."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from .processes import ROOT, Worker

Sample = Callable[[], Mapping[str, float]]


class Session:
    """One run of the benchmarks.

    Attributes:
        folder: an empty folder for everything that is written.
        rounds: how many samples of each figure.
        python: the interpreter of this environment, with adapterhub.
        adapters_python: that of the environment with `adapters`; $ADAPTERHUB_BENCH_ADAPTERS_PYTHON.
        peft_python: that of the environment with PEFT; $ADAPTERHUB_BENCH_PEFT_PYTHON.
        ours, adapters, peft: the workers.
    """

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder = folder
        self.rounds = rounds
        self.python = sys.executable
        self.adapters_python = os.environ.get(
            "ADAPTERHUB_BENCH_ADAPTERS_PYTHON", str(ROOT / ".venv-adapters" / "bin" / "python")
        )
        self.peft_python = os.environ.get("ADAPTERHUB_BENCH_PEFT_PYTHON", sys.executable)
        self.ours = Worker(self.python, "worker_ours", folder / "ours")
        self.adapters = Worker(self.adapters_python, "worker_adapters", folder / "adapters")
        self.peft = Worker(self.peft_python, "worker_peft", folder / "peft")
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        for worker in (self.ours, self.adapters, self.peft):
            self._stack.enter_context(worker)
        return self

    def __exit__(self, *args: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def medians(self, samples: Mapping[str, Sample], rounds: int | None = None) -> dict[str, dict[str, float]]:
        """Return source → figure → median, every source asked once in each round, after a round that is thrown away.

        The order turns round by round, so that none is always first.
        """
        names = list(samples)
        taken: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
        for number in range((rounds or self.rounds) + 1):
            for name in names if number % 2 else reversed(names):
                sample = samples[name]()
                if number:
                    taken[name].append(sample)
        return {
            name: {key: statistics.median(sample[key] for sample in found) for key in found[0]}
            for name, found in taken.items()
        }
