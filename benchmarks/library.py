"""What a worker can be asked of loading and swapping, written once; a library says only how it does each step."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from . import models
from .measure import cpu_seconds
from .serve import Task

Way = Literal["alone", "none", "stack", "fuse", "rows"]
"""How adapters work together: one alone; loaded and none active; or several at once, `rows` one for each row."""

Forward = Callable[..., Any]
"""Model inputs → an answer whose first item are the hidden states."""


class Attached(Protocol):
    """One base model with a library's adapters on it."""

    def add(self, name: str, method: str) -> None:
        """Add an adapter with random weights, not active."""

    def save(self, name: str, folder: Path) -> str:
        """Save an adapter and return what `load` wants."""

    def load(self, saved: str, name: str) -> None:
        """Load a saved adapter under a name, not active."""

    def replace(self, saved: str, name: str) -> None:
        """Load a saved adapter in place of the active one of this name, and leave it active."""

    def forget(self) -> None:
        """Drop what the library remembers of the saved file, so that the next load does all its checks."""

    def delete(self, name: str) -> None:
        """Remove an adapter."""

    def activate(self, name: str | None) -> None:
        """Make one adapter active, or none."""

    def arrange(self, way: Way, names: Sequence[str | None]) -> Forward:
        """Let adapters work together, and return the model's forward; None is a row of the base model."""


Attach = Callable[[torch.nn.Module], Attached]


class Library:
    """The tasks of loading and swapping.

    Attributes:
        attach: puts the library onto a fresh base model.
        method: the method of the tasks that name none.
        folder: an empty folder for saved adapters.
    """

    def __init__(self, attach: Attach, method: str, folder: Path) -> None:
        self.attach = attach
        self.method = method
        self.folder = folder
        self._saved: dict[str, str] = {}
        self._full: dict[str, tuple[Attached, list[str]]] = {}

    def tasks(self) -> Mapping[str, Task]:
        """Return request name → what answers it."""
        return {
            "attach": self.attach_once,
            "hot_swap": self.hot_swap,
            "load": self.load,
            "load_many": self.load_many,
            "swap": self.swap,
        }

    @cached_property
    def _base(self) -> torch.nn.Module:
        return models.bert_base()

    @cached_property
    def _loading(self) -> Attached:
        """A BERT-base with the library on it."""
        return self.attach(copy.deepcopy(self._base))

    def saved(self, method: str | None = None) -> str:
        """Return an adapter of a method, saved once, loaded and deleted again."""
        method = method or self.method
        if method not in self._saved:
            attached, name = self._loading, f"saved-{method}"
            attached.add(name, method)
            self._saved[method] = attached.save(name, self.folder)
            attached.delete(name)
            attached.load(self._saved[method], "warm")
            attached.delete("warm")
        return self._saved[method]

    def attach_once(self) -> dict[str, float]:
        """Return the time to put the library onto a BERT-base."""
        model = copy.deepcopy(self._base)
        return {"seconds": cpu_seconds(lambda: self.attach(model))}

    def load(self, method: str | None = None) -> dict[str, float]:
        """Return the time to load one saved adapter."""
        attached, saved = self._loading, self.saved(method)
        attached.forget()
        seconds = cpu_seconds(lambda: attached.load(saved, "one"))
        attached.delete("one")
        return {"seconds": seconds}

    def load_many(self, count: int) -> dict[str, float]:
        """Return the times of the first and of the last of `count` loads that all stay, each a median of three."""
        attached, saved = self._loading, self.saved()
        names = [f"a{i}" for i in range(count)]
        seconds = []
        for name in names:
            attached.forget()
            seconds.append(cpu_seconds(partial(attached.load, saved, name)))
        for name in names:
            attached.delete(name)
        return {"first": statistics.median(seconds[:3]), "last": statistics.median(seconds[-3:])}

    def _filled(self, loaded: int, method: str) -> tuple[Attached, list[str]]:
        """Return a BERT-base with at least so many adapters of a method, and their names."""
        if method not in self._full:
            self._full[method] = self.attach(copy.deepcopy(self._base)), []
        attached, names = self._full[method]
        while len(names) < loaded:
            names.append(f"a{len(names)}")
            attached.add(names[-1], method)
        return attached, names

    def swap(self, loaded: int, times: int) -> dict[str, float]:
        """Return the time of one change from an active adapter to another, with `loaded` adapters loaded."""
        attached, names = self._filled(loaded, self.method)
        first, last = names[0], names[loaded - 1]

        def there_and_back() -> None:
            attached.activate(last)
            attached.activate(first)

        there_and_back()
        return {"seconds": cpu_seconds(there_and_back, times) / 2}

    def hot_swap(self, loaded: int, method: str) -> dict[str, float]:
        """Return the time to put a saved adapter in place of the active one, with `loaded` adapters loaded."""
        saved = self.saved(method)
        attached, names = self._filled(loaded, method)
        attached.delete(names[0])
        attached.load(saved, names[0])
        attached.activate(names[0])
        return {"seconds": cpu_seconds(lambda: attached.replace(saved, names[0]))}
