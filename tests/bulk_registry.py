"""A registry of real small adapters, for what is done with all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from cli_session import BASE_ID, type_command
from transformers import AutoModel

import adapterhub

METHODS = ("lora[r=2]", "loreft")


def make_registry(home: Path, base: Path, count: int, methods: tuple[str, ...] = METHODS) -> Path:
    """Make a registry with adapters a0, a1, … of two versions, their methods taken in turn, and return its folder."""
    adapters = adapterhub.attach(AutoModel.from_pretrained(base), base_id=BASE_ID)
    home.mkdir(parents=True)
    files = []
    for number in range(count):
        name = f"a{number}"
        adapters.add(name, methods[number % len(methods)])
        for version in ("1.0.0", "1.1.0"):
            torch.manual_seed(number)
            manifest = dataclasses.replace(adapters.manifest(name), license="MIT", version=version)
            path = adapters.save(name, home / f"{name}-{version}.safetensors", manifest=manifest)
            files.append(str(path))
        adapters.delete(name)
    typed = type_command("index", "add", *files, "--index", str(home / "index.json"), "--published", "2026-01-01")
    assert typed.status == 0, typed.err
    return home
