"""Row 19: ten LoRAs of a model with a billion parameters into one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from adapterhub import merge, read
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.converters import native
from adapterhub.methods import LoraConfig

from .measure import cpu_seconds
from .processes import command_usage
from .report import Row
from .session import Sample, Session
from .startup import program

COUNT, RANK, LAYERS = 10, 16, 16
SIZES = {
    "self_attn.q_proj": (2048, 2048),
    "self_attn.k_proj": (2048, 512),
    "self_attn.v_proj": (2048, 512),
    "self_attn.o_proj": (2048, 2048),
    "mlp.gate_proj": (2048, 8192),
    "mlp.up_proj": (2048, 8192),
    "mlp.down_proj": (8192, 2048),
}
"""Linear maps of a layer of the shape of Llama 3.2 1B: inputs and outputs."""

LAYER = sum(inputs * outputs for inputs, outputs in SIZES.values()) * 4 / 2**20
"""Megabytes of the maps of a layer, in float32."""

SUMS: tuple[tuple[str, ...], ...] = (("linear",), ("svd",))
ENTRIES: tuple[tuple[str, ...], ...] = (
    ("magnitude_prune", "--density", "0.2", "--rank", "16"),
    ("ties", "--density", "0.2", "--rank", "16"),
    ("dare_linear", "--density", "0.2", "--rank", "16", "--seed", "1"),
    ("dare_ties", "--density", "0.2", "--rank", "16", "--seed", "1"),
)
"""Methods that act on factors, and those that act on entries, with their options on the command line."""


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of merging, digests of the parents included, against reading the same files."""
    files = {kind: session.ours.ask("merge_files", kind=kind)["paths"] for kind in ("all", "one", "small")}
    for method, *_ in SUMS:
        found = session.medians({"ours": partial(session.ours.ask, "merge", method=method)})
        yield _times(method, found["ours"])
    out = session.folder / "merged.safetensors"
    commands = {
        **{method: (files["all"], (method, *options)) for method, *options in SUMS},
        **{method: (files["one"], (method, *options)) for method, *options in ENTRIES},
        "small": (files["small"], ("linear",)),
    }
    samples = {name: _sample(session.python, paths, way, out) for name, (paths, way) in commands.items()}
    found = session.medians(samples, rounds=1)
    for name, usage in found.items():
        if name != "small":
            yield from _usage(name, usage, found["small"])


def _times(method: str, found: Mapping[str, float]) -> Row:
    return Row(
        number=19,
        what=f"merge 10 LoRAs of a 1 B model by {method}, digests taken",
        ours=found["merge"],
        unit="ms",
        peers={"reading the files": found["read"]},
        value=found["merge"] / found["read"],
        limit=4,
        bound="≤ 4 × reading the files",
    )


def _usage(method: str, usage: Mapping[str, float], small: Mapping[str, float]) -> Iterator[Row]:
    """Yield what the command needs, with the file written: for methods that act on entries, at one map."""
    by_entries = method in [one for one, *_ in ENTRIES]
    where = "at one map 8192 × 2048" if by_entries else "of all maps"
    if by_entries:
        yield Row(
            number=19,
            what=f"the command, by {method}, {where}",
            ours=usage["seconds"],
            unit="s",
            peers={"a small merge": small["seconds"]},
            value=usage["seconds"],
            limit=math.inf,
            bound="–",
        )
    layers = 2 if by_entries else 1
    yield Row(
        number=19,
        what=f"its memory by {method}, {where}, MB",
        ours=usage["megabytes"],
        unit="",
        peers={"a small merge": small["megabytes"]},
        value=usage["megabytes"] - small["megabytes"],
        limit=layers * LAYER,
        bound=f"≤ {layers * LAYER:,.0f} MB more: {layers} layer{'s' if layers > 1 else ''} in float32",
    )


def _sample(python: str, files: Sequence[str], way: Sequence[str], out: Path) -> Sample:
    command = [program(python, "adapterhub"), "merge", *files, "--out", str(out), "--force", "-q", "--method", *way]

    def sample() -> Mapping[str, float]:
        usage = command_usage(command)
        return {"seconds": usage.seconds, "megabytes": usage.megabytes}

    return sample


class Merging:
    """The files, and what is measured with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self, kind: str) -> dict[str, list[str]]:
        """Return the paths of files with a LoRA at all maps, at one large one, or at a small one."""
        paths = [self.folder / f"merge-{kind}-{number}.safetensors" for number in range(COUNT)]
        if not paths[0].exists():
            for number, path in enumerate(paths):
                native.write(native.encode(lora(number, kind)), path)
        return {"paths": list(map(str, paths))}

    def merge(self, method: str) -> dict[str, float]:
        """Return the times to read all files, and to merge them."""
        files = [Path(path) for path in self.files("all")["paths"]]
        merge([Path(path) for path in self.files("small")["paths"]], method=method)
        return {
            "read": cpu_seconds(lambda: [read(path) for path in files]),
            "merge": cpu_seconds(lambda: merge(files, method=method)),
        }


def lora(seed: int, kind: str = "all") -> Adapter:
    """Return a random LoRA."""
    maps = {
        "all": {f"layers.{layer}.{path}": size for layer in range(LAYERS) for path, size in SIZES.items()},
        "one": {"layers.0.mlp.up_proj": SIZES["mlp.up_proj"]},
        "small": {"layers.0.self_attn.k_proj": (64, 64)},
    }[kind]
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, (inputs, outputs) in maps.items():
        tensors[f"{path}.lora_A"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"{path}.lora_B"] = torch.randn(outputs, RANK, generator=generator)
    config = LoraConfig(targets=("all-linear",) if kind == "all" else tuple(maps), r=RANK, alpha=32.0)
    return Adapter((config,), tensors, Manifest(name=f"lora-{seed}", base=Base(architecture="llama")))
