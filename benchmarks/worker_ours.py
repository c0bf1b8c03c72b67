"""adapterhub itself. Adapters are loaded by name from a registry in a folder, their digests checked."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jsonschema import Draft202012Validator

import adapterhub
from adapterhub import Adapter, Fuse, Manifest, Stack, schemas
from adapterhub.adapter import Base
from adapterhub.loader.fingerprint import check_fingerprint, fingerprint
from adapterhub.loader.layout import Ground, survey
from adapterhub.methods import LoraConfig
from adapterhub.registry import Artifact, ArtifactBase, Index

from . import models
from .library import Forward, Library, Way
from .measure import cpu_seconds
from .merging import Merging
from .passes import Passes
from .serve import Task, serve

BASE = "benchmark/bert-base"


class OursAttached:
    """One base model under `adapterhub.attach`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.adapters = adapterhub.attach(model, base_id=BASE)
        self.cache = Path()
        self.index = Index()
        self.rows = ExitStack()

    def add(self, name: str, method: str) -> None:
        """Add an adapter, not active."""
        self.adapters.add(name, method)

    def save(self, name: str, folder: Path) -> str:
        """Save an adapter into the registry of the model, which becomes the default one."""
        path = self.adapters.save(name, folder / f"{name}.safetensors")
        content = path.read_bytes()
        artifact = Artifact(
            base=ArtifactBase(id=BASE, architecture="bert"),
            method=self.adapters.adapter(name).config[0].method,
            format="native",
            url=path.name,
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            size=len(content),
        )
        self.index = self.index.add(name, "1.0.0", artifact, published="2026-01-01T00:00:00Z")
        self.index.write(folder / "index.json")
        os.environ["ADAPTERHUB_REGISTRY"] = str(folder)
        self.cache = folder / "cache"
        os.environ["ADAPTERHUB_CACHE"] = str(self.cache)
        return name

    def load(self, saved: str, name: str) -> None:
        """Load the adapter of the registry under a name."""
        self.adapters.load(saved, name=name)

    def replace(self, saved: str, name: str) -> None:
        """Load the adapter of the registry over the one of this name."""
        self.adapters.load(saved, name=name, overwrite_ok=True, set_active=True)

    def forget(self) -> None:
        """Touch the stored file: digests are remembered only as long as nothing about a file changes."""
        for stored in (self.cache / "artifacts").rglob("*.safetensors"):
            stored.touch()

    def delete(self, name: str) -> None:
        """Remove an adapter."""
        self.adapters.delete(name)

    def activate(self, name: str | None) -> None:
        """Make one adapter active, or none."""
        self.adapters.activate(name)

    def arrange(self, way: Way, names: Sequence[str | None]) -> Forward:
        """Let adapters work together."""
        forward: Forward = self.model
        if way == "rows":
            self.rows.enter_context(self.adapters.per_row(names))
            return forward
        present = [name for name in names if name is not None]
        if way == "fuse":
            self.adapters.add(Fuse(*present).key, "fusion")
        setups = {"alone": present[0], "none": None, "stack": Stack(*present), "fuse": Fuse(*present)}
        self.adapters.activate(setups[way])
        return forward


class OursLibrary(Library):
    """The tasks of all libraries, and the fingerprint."""

    def tasks(self) -> Mapping[str, Task]:
        """Return request name → what answers it."""
        return {
            **super().tasks(),
            "artifact": self.artifact,
            "fingerprint": self.fingerprint,
            "lora_file": self.lora_file,
            "merge": Merging(self.folder).merge,
            "merge_files": Merging(self.folder).files,
            "validate": validate,
            "validate_slowly": validate_slowly,
        }

    def artifact(self) -> dict[str, str]:
        """Return the path of a native file."""
        return {"path": str(self.folder / f"{self.saved()}.safetensors")}

    def lora_file(self, rank: int) -> dict[str, str]:
        """Return the path of a native file of a LoRA with 2 MiB for each rank."""
        path = self.folder / f"lora-{rank}.safetensors"
        tensors = {
            f"encoder.layer.{layer}.attention.self.{role}.{name}": torch.rand(shape)
            for layer in range(32)
            for role in ("query", "value")
            for name, shape in (("lora_A", (rank, 4096)), ("lora_B", (4096, rank)))
        }
        config = LoraConfig(r=rank, alpha=float(rank))
        manifest = Manifest(name="large", base=Base(architecture="bert"))
        return {"path": str(adapterhub.write(Adapter((config,), tensors, manifest), path, force=True))}

    @cached_property
    def _ground(self) -> Ground:
        return survey(models.bert_base(), None)

    def fingerprint(self) -> dict[str, float]:
        """Return the times to make a fingerprint, to check one, and to hash all weights with MD5 instead."""
        ground = self._ground
        made = fingerprint(ground)
        weights = [parameter.detach().numpy() for parameter in ground.bare.parameters()]

        def md5() -> str:
            whole = hashlib.md5(usedforsecurity=False)
            for weight in weights:
                whole.update(weight.data.cast("B"))
            return whole.hexdigest()

        return {
            "make": cpu_seconds(lambda: fingerprint(ground)),
            "check": cpu_seconds(lambda: check_fingerprint(made, ground, "benchmark")),
            "md5": cpu_seconds(md5),
        }


def validate(path: str) -> dict[str, float]:
    """Return the time to check an index against its schema."""
    document = json.loads(Path(path).read_bytes())
    return {"seconds": cpu_seconds(lambda: schemas.check(document, "index"))}


def validate_slowly(path: str) -> dict[str, float]:
    """Return the time that the jsonschema package takes for the same."""
    document = json.loads(Path(path).read_bytes())
    validator = Draft202012Validator(schemas.load("index"))
    return {"seconds": cpu_seconds(lambda: validator.validate(document))}


if __name__ == "__main__":
    serve({**OursLibrary(OursAttached, "seq_bn", Path(sys.argv[1])).tasks(), **Passes(OursAttached).tasks()})
