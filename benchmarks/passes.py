"""What a worker can be asked of forward passes: operations, calls and times, of adapters alone and together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from . import models
from .library import Attach, Attached, Forward, Way
from .measure import cpu_seconds, operations, python_calls
from .serve import Task

FORWARDS = 20

Arrangement = tuple[Way, Sequence[str | None]]
"""A way and names of adapters, such as `lora-3`: the method and a number."""


class Passes:
    """The tasks of forward passes. Every arrangement gets a model of its own, which nothing else is loaded on.

    Attributes:
        attach: puts the library onto a fresh base model.
    """

    def __init__(self, attach: Attach) -> None:
        self.attach = attach
        self._bases: dict[str, torch.nn.Module] = {}
        self._forwards: dict[str, tuple[Attached, Forward]] = {}

    def tasks(self) -> Mapping[str, Task]:
        """Return request name → what answers it."""
        return {"counts": self.counts, "times": self.times}

    def counts(self, way: Way, names: Sequence[str | None], model: str = "overhead") -> dict[str, Any]:
        """Return what a forward costs more than the base's, in operations and in Python calls.

        That is what each further forward costs; `first` are the extra operations of the very first one.
        """
        base, inputs = self._base(model), models.INPUTS[model]()
        forward = self._forward(model, way, names)
        first = operations(lambda: forward(**inputs))
        with torch.inference_mode():
            expected, actual = base(**inputs)[0], forward(**inputs)[0]
        least = operations(lambda: base(**inputs))
        return {
            "operations": operations(lambda: forward(**inputs)) - least,
            "first": first - least,
            "calls": python_calls(lambda: forward(**inputs)) - python_calls(lambda: base(**inputs)),
            "identical": torch.equal(expected, actual),
        }

    def times(self, arrangements: Mapping[str, Arrangement], model: str = "overhead") -> dict[str, float]:
        """Return the time of a forward of the base, and that with each arrangement, all taken in turn."""
        inputs = models.INPUTS[model]()
        forwards = {"base": self._base(model)} | {
            key: self._forward(model, way, names) for key, (way, names) in arrangements.items()
        }
        total = dict.fromkeys(forwards, 0.0)
        with torch.inference_mode():
            for _ in range(FORWARDS):
                for key, forward in forwards.items():
                    total[key] += cpu_seconds(partial(forward, **inputs))
        return total

    def _base(self, model: str) -> torch.nn.Module:
        if model not in self._bases:
            self._bases[model] = models.BASES[model]()
        return self._bases[model]

    def _forward(self, model: str, way: Way, names: Sequence[str | None]) -> Forward:
        key = f"{model} {way} {names}"
        if key not in self._forwards:
            attached = self.attach(copy.deepcopy(self._base(model)))
            for name in dict.fromkeys(name for name in names if name is not None):
                attached.add(name, name.rpartition("-")[0])
            # Kept, because an arrangement may last only as long as what made it.
            self._forwards[key] = attached, attached.arrange(way, names)
        return self._forwards[key][1]
