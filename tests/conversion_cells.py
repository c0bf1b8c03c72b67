"""The cells of docs/conversions.json, worked out: what becomes of an example of each row in each column."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from families import make
from torch import nn

import adapterhub
from adapterhub.architectures import by_name
from adapterhub.converters import detect, report, write
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader.comparing import compare
from adapterhub.methods import parse_method

COLUMNS = ("native", "adapters", "peft", "lora", "raw", "mlx", "gguf", "vllm", "kohya", "diffusers")
"""Formats, and the approximation by LoRA in the native format."""

FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("mlx", "gguf", "vllm"), "llama"),
    **dict.fromkeys(("kohya", "diffusers"), "clip_text_model"),
}
"""Column → a family that the format has, for rows whose own it has not."""

FIXED = ("original", "reft_base", ".base")
"""Parts of names of tensors that are not free: they stand for rotations."""


def base_of(row: Mapping[str, Any]) -> nn.Module:
    """Return the tiny base model of a row's example."""
    return _base(row["family"], row.get("model"))


@lru_cache(maxsize=4)
def _base(family: str, model: str | None) -> nn.Module:
    """Return a base model; whatever is done with it leaves it as it was."""
    made: nn.Module = make(family, model)
    return made


def fitted(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Return a row with the family that its example in a column is of: one that the format has, if that can be."""
    wanted = FAMILIES.get(column)
    general = not any(word in row["method"] for word in ("embeddings.", "layer.", "layers.")) and "model" not in row
    if wanted is None or not general or row["family"] not in ("bert", "roberta"):
        return dict(row)
    return {**row, "family": wanted}


def example(row: Mapping[str, Any], base: nn.Module, path: Path) -> Path:
    """Return the native file of a row's example, an adapter with random values."""
    adapters = adapterhub.attach(base)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = adapters.add("example", parse_method(row["method"]))
            adapter = adapters.adapter(name)
    finally:
        adapters.detach()
    generator = torch.Generator().manual_seed(3)
    tensors = {
        key: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and not any(word in key for word in FIXED)
        else tensor
        for key, tensor in adapter.tensors.items()
    }
    bare = dataclasses.replace(adapter.manifest.base, fingerprint=None)
    manifest = dataclasses.replace(adapter.manifest, base=bare)
    return write(dataclasses.replace(adapter, tensors=tensors, manifest=manifest), path)


def verdict(row: Mapping[str, Any], column: str, folder: Path) -> tuple[str, str]:
    """Return what becomes of a row's example in a column, and why it is refused if it is.

    `exact`, `exact with the base model`, `approximate`, `approximate with the base model` or `refused`.
    """
    row = fitted(row, column)
    base = base_of(row)
    try:
        source = example(row, base, folder / "example.safetensors")
    except (UnsupportedError, UsageError) as error:
        return "refused", f"there is none for {row['family']}: {error.message}"
    words: dict[str, Any] = {"to": column}
    if column == "lora":
        words = {"to": "native", "approximate": "lora", "energy": 1.0}
    kind = "approximate" if column == "lora" else "exact"
    try:
        adapterhub.convert(source, folder / "alone", **words)
    except UnsupportedError as error:
        return _with_base(source, folder / "based", base, words, kind, error.message)
    check(source, folder / "alone", base)
    return kind, ""


def _with_base(
    source: Path, out: Path, base: nn.Module, words: dict[str, Any], kind: str, reason: str
) -> tuple[str, str]:
    try:
        adapterhub.convert(source, out, base=base, **words)
    except UnsupportedError:
        return "refused", reason
    check(source, out, base)
    return f"{kind} with the base model", ""


def check(source: Path, out: Path, base: nn.Module) -> None:
    """Hold what was written, as other programs read it, against its source on the base model."""
    first = adapterhub.read(source)
    if any(config.method == "fusion" for config in first.config):
        return  # does nothing alone; its tensors are compared bit for bit elsewhere
    chosen = detect(out)
    parts = chosen.read(out)
    # The native format has no note; what stands under its key there is everything.
    parts = parts if chosen.name == "native" else report.without_note(parts)
    options = {"part": "text_encoder"} if "part" in chosen.options else {}
    parts = dataclasses.replace(parts, row=by_name(first.manifest.base.architecture), options=options)
    second = chosen.decode(parts)
    found = compare(base, first, second)
    assert found.difference <= 2e-4 * max(1.0, found.largest), (found, out)
