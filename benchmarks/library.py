"""What a worker can be asked, written once; a library says only how it does each step."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch

from . import models
from .measure import cpu_seconds, operations, python_calls
from .serve import Task

FORWARDS = 20


class Attached(Protocol):
    """One base model with a library's adapters on it.

    Attributes:
        model: what is called for a forward pass; its answer's first item are the hidden states.
    """

    model: Any

    def add(self, name: str, method: str) -> None:
        """Add an adapter with random weights, not active."""

    def save(self, name: str, folder: Path) -> str:
        """Save an adapter and return what `load` wants."""

    def load(self, saved: str, name: str) -> None:
        """Load a saved adapter under a name, not active."""

    def forget(self) -> None:
        """Drop what the library remembers of the saved file, so that the next load does all its checks."""

    def delete(self, name: str) -> None:
        """Remove an adapter."""

    def activate(self, name: str | None) -> None:
        """Make one adapter active, or none."""


Attach = Callable[[torch.nn.Module], Attached]


class Library:
    """The tasks of one worker.

    Attributes:
        attach: puts the library onto a fresh base model.
        method: the method of the loading and swapping tasks.
        folder: an empty folder for saved adapters.
    """

    def __init__(self, attach: Attach, method: str, folder: Path) -> None:
        self.attach = attach
        self.method = method
        self.folder = folder

    def tasks(self) -> Mapping[str, Task]:
        """Return request name → what answers it."""
        return {
            "attach": self.attach_once,
            "counts": self.counts,
            "load": self.load,
            "load_many": self.load_many,
            "swap": self.swap,
            "times": self.times,
        }

    @cached_property
    def _base(self) -> torch.nn.Module:
        return models.bert_base()

    @cached_property
    def _loading(self) -> tuple[Attached, str]:
        """A BERT-base with the library on it, and a saved adapter for it."""
        attached = self.attach(copy.deepcopy(self._base))
        attached.add("saved", self.method)
        saved = attached.save("saved", self.folder)
        attached.delete("saved")
        attached.load(saved, "warm")
        attached.delete("warm")
        return attached, saved

    def attach_once(self) -> dict[str, float]:
        """Return the time to put the library onto a BERT-base."""
        model = copy.deepcopy(self._base)
        return {"seconds": cpu_seconds(lambda: self.attach(model))}

    def load(self) -> dict[str, float]:
        """Return the time to load one saved adapter."""
        attached, saved = self._loading
        attached.forget()
        seconds = cpu_seconds(lambda: attached.load(saved, "one"))
        attached.delete("one")
        return {"seconds": seconds}

    def load_many(self, count: int) -> dict[str, float]:
        """Return the times of the first and of the last of `count` loads that all stay, each a median of three."""
        attached, saved = self._loading
        names = [f"a{i}" for i in range(count)]
        seconds = []
        for name in names:
            attached.forget()
            seconds.append(cpu_seconds(partial(attached.load, saved, name)))
        for name in names:
            attached.delete(name)
        return {"first": statistics.median(seconds[:3]), "last": statistics.median(seconds[-3:])}

    @cached_property
    def _swapping(self) -> tuple[Attached, list[str]]:
        attached = self.attach(copy.deepcopy(self._base))
        return attached, []

    def swap(self, loaded: int, times: int) -> dict[str, float]:
        """Return the time of one change from an active adapter to another, with `loaded` adapters loaded."""
        attached, names = self._swapping
        while len(names) < loaded:
            names.append(f"a{len(names)}")
            attached.add(names[-1], self.method)
        first, last = names[0], names[loaded - 1]

        def there_and_back() -> None:
            attached.activate(last)
            attached.activate(first)

        there_and_back()
        return {"seconds": cpu_seconds(there_and_back, times) / 2}

    @cached_property
    def _forwards(self) -> tuple[torch.nn.Module, Attached, dict[str, torch.Tensor]]:
        """The bare overhead model, one with the library on it and an adapter of each method, and inputs."""
        base = models.overhead_model()
        attached = self.attach(copy.deepcopy(base))
        for method in self.methods():
            attached.add(method, method)
        return base, attached, models.overhead_inputs()

    def methods(self) -> tuple[str, ...]:
        """Return the methods whose forward pass is measured."""
        return models.METHODS if self.method in models.METHODS else (self.method,)

    def counts(self, method: str | None) -> dict[str, Any]:
        """Return what a forward costs more than the base's, in operations and in Python calls."""
        base, attached, inputs = self._forwards
        attached.activate(method)
        model = attached.model
        with torch.inference_mode():
            expected, actual = base(**inputs)[0], model(**inputs)[0]
        return {
            "operations": operations(lambda: model(**inputs)) - operations(lambda: base(**inputs)),
            "calls": python_calls(lambda: model(**inputs)) - python_calls(lambda: base(**inputs)),
            "identical": torch.equal(expected, actual),
        }

    def times(self, method: str | None) -> dict[str, float]:
        """Return the times of a forward of the base and of the model with an adapter active, taken in turn."""
        base, attached, inputs = self._forwards
        attached.activate(method)
        model = attached.model
        total = {"base": 0.0, "with": 0.0}
        with torch.inference_mode():
            for _ in range(FORWARDS):
                total["base"] += cpu_seconds(lambda: base(**inputs))
                total["with"] += cpu_seconds(lambda: model(**inputs))
        return total
