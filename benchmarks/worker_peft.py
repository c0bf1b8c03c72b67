"""The peer PEFT. It has no bottleneck adapters; LoRA of rank 8 on query and value stands in for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter

from . import models
from .library import Forward, Library, Way
from .passes import Passes
from .serve import serve

HOST = "host"
"""PEFT wraps a model together with a first adapter; this one is never counted."""


class PeftAttached:
    """One base model in a PeftModel."""

    def __init__(self, model: Any) -> None:
        self.model: PeftModel = get_peft_model(model, self._config(), adapter_name=HOST).eval()
        self.enabled = True

    @staticmethod
    def _config() -> LoraConfig:
        return LoraConfig(r=models.LORA_RANK, target_modules=["query", "value"])

    def add(self, name: str, method: str) -> None:
        """Add an adapter, not active."""
        self.model.add_adapter(name, self._config())
        self.model.eval()

    def save(self, name: str, folder: Path) -> str:
        """Save an adapter as a folder."""
        self.model.save_pretrained(str(folder), selected_adapters=[name])
        return str(folder / name)

    def load(self, saved: str, name: str) -> None:
        """Load a folder under a name."""
        self.model.load_adapter(saved, adapter_name=name)

    def replace(self, saved: str, name: str) -> None:
        """Put the weights of a folder in place of those of the active adapter."""
        hotswap_adapter(self.model, saved, adapter_name=name)

    def forget(self) -> None:
        """Do nothing: no digest is checked."""

    def delete(self, name: str) -> None:
        """Remove an adapter."""
        self.model.delete_adapter(name)

    def activate(self, name: str | None) -> None:
        """Make one adapter active, or none."""
        if (name is None) == self.enabled:
            self.enabled = not self.enabled
            switch = self.model.base_model
            (switch.enable_adapter_layers if self.enabled else switch.disable_adapter_layers)()
        if name is not None:
            self.model.set_adapter(name)

    def arrange(self, way: Way, names: Sequence[str | None]) -> Forward:
        """Let adapters work together, as far as there are ways to."""
        if way == "rows":
            return partial(self.model, adapter_names=["__base__" if name is None else name for name in names])
        self.activate({"alone": names[0], "none": None}[way])
        forward: Forward = self.model
        return forward


if __name__ == "__main__":
    serve({**Library(PeftAttached, "lora", Path(sys.argv[1])).tasks(), **Passes(PeftAttached).tasks()})
