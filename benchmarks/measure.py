"""Clocks and counters that every worker shares.

Counts are exact and the same on every machine; times are CPU times of the process, to be compared only within one run.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Action = Callable[[], object]


def cpu_seconds(action: Action, times: int = 1) -> float:
    """Return the CPU time of one call, measured over several, with the garbage collector off."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.process_time()
        for _ in range(times):
            action()
        return (time.process_time() - start) / times
    finally:
        if collecting:
            gc.enable()


class _Counter(TorchDispatchMode):
    """Counts the aten operations that are not views: what launches a kernel on a GPU."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += 0 if func.is_view else 1
        return func(*args, **(kwargs or {}))


def operations(action: Action) -> int:
    """Return how many aten operations other than views one call of action runs."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), counter:
        action()
    return counter.count


def python_calls(action: Action) -> int:
    """Return how many Python functions one call of action calls."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    with torch.inference_mode():
        sys.setprofile(profile)
        try:
            action()
        finally:
            sys.setprofile(None)
    return count
