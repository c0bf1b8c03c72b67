"""Row 19: ten LoRAs of a model with a billion parameters into one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from adapterhub import merge, read
from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.converters import native
from adapterhub.methods import LoraConfig

from .measure import cpu_seconds
from .report import Row
from .session import Session

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


def rows(session: Session) -> Iterator[Row]:
    """Yield the row of merging, digests of the parents included, against reading the same files."""
    found = session.medians({"ours": lambda: session.ours.ask("merge")})["ours"]
    yield Row(
        number=19,
        what="merge 10 LoRAs of a 1 B model, digests taken",
        ours=found["merge"],
        unit="ms",
        peers={"reading the files": found["read"]},
        value=found["merge"] / found["read"],
        limit=4,
        bound="≤ 4 × reading the files",
    )


class Merging:
    """The files, and what is measured with them."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / f"merge-{number}.safetensors" for number in range(COUNT)]

    def merge(self) -> dict[str, float]:
        """Return the times to read all files, and to merge them."""
        if not self.files[0].exists():
            for number, path in enumerate(self.files):
                native.write(native.encode(lora(number)), path)
            merge(self.files[:2])
        return {
            "read": cpu_seconds(lambda: [read(path) for path in self.files]),
            "merge": cpu_seconds(lambda: merge(self.files)),
        }


def lora(seed: int) -> Adapter:
    """Return a random LoRA at every linear map."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for path, (inputs, outputs) in SIZES.items():
            tensors[f"layers.{layer}.{path}.lora_A"] = torch.randn(RANK, inputs, generator=generator)
            tensors[f"layers.{layer}.{path}.lora_B"] = torch.randn(outputs, RANK, generator=generator)
    config = LoraConfig(targets=("all-linear",), r=RANK, alpha=32.0)
    return Adapter((config,), tensors, Manifest(name=f"lora-{seed}", base=Base(architecture="llama")))
