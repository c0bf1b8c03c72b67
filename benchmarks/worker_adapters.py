"""The peer `adapters`, in an environment of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import adapters
from adapters import AdapterConfig
from adapters.composition import BatchSplit, Fuse, Stack

from .library import Forward, Library, Way
from .passes import Passes
from .serve import serve


class AdaptersModel:
    """One base model under `adapters.init`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        adapters.init(model)

    def add(self, name: str, method: str) -> None:
        """Add an adapter, not active."""
        self.model.add_adapter(name, AdapterConfig.load(method))
        self.model.eval()

    def save(self, name: str, folder: Path) -> str:
        """Save an adapter as a folder."""
        self.model.save_adapter(str(folder / name), name)
        return str(folder / name)

    def load(self, saved: str, name: str) -> None:
        """Load a folder under a name."""
        self.model.load_adapter(saved, load_as=name)

    def replace(self, saved: str, name: str) -> None:
        """Load a folder over the adapter of this name."""
        self.model.load_adapter(saved, load_as=name, overwrite_ok=True, set_active=True)

    def forget(self) -> None:
        """Do nothing: no digest is checked."""

    def delete(self, name: str) -> None:
        """Remove an adapter."""
        self.model.delete_adapter(name)

    def activate(self, name: str | None) -> None:
        """Make one adapter active, or none."""
        self.model.set_active_adapters(name)

    def arrange(self, way: Way, names: Sequence[str | None]) -> Forward:
        """Let adapters work together; every row needs one."""
        if way == "fuse":
            self.model.add_adapter_fusion(Fuse(*names), "dynamic")
            self.model.eval()
        ways: dict[Way, Callable[[], Any]] = {
            "alone": lambda: names[0],
            "none": lambda: None,
            "stack": lambda: Stack(*names),
            "fuse": lambda: Fuse(*names),
            "rows": lambda: BatchSplit(*names, batch_sizes=[1] * len(names)),
        }
        self.model.set_active_adapters(ways[way]())
        forward: Forward = self.model
        return forward


if __name__ == "__main__":
    serve({**Library(AdaptersModel, "seq_bn", Path(sys.argv[1])).tasks(), **Passes(AdaptersModel).tasks()})
