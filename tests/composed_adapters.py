"""What the tests of compositions share: small adapters with heads for the tiny base model, and their answers."""

from __future__ import annotations

from pathlib import Path

import torch
from cli_session import BASE_ID
from torch import Tensor

from adapterhub import hub
from adapterhub.adapter import Base, Manifest
from adapterhub.composition import Node
from adapterhub.loader import AdapterSet
from adapterhub.registry import digest

TEXTS = ["the film was superb", "the plot was dull"]


def write_adapter(
    folder: Path, base: Path, name: str, version: str = "1.0.0", method: str = "seq_bn", **about: str
) -> Path:
    """Write an adapter with random weights and a head of two classes."""
    loaded = hub.load_base(str(base))
    adapters = hub.attach(loaded.model, base_id=about.get("base_id", BASE_ID))
    seed = int(digest.of_bytes(f"{name} {version}".encode())[7:15], 16)
    torch.manual_seed(seed)
    adapters.add(name, method, labels=("negative", "positive"))
    for parameter in adapters.model.get_submodule("adapterhub").parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    manifest = Manifest(
        name=name,
        base=Base(architecture="bert", id=about.get("base_id", BASE_ID)),
        version=version,
        labels=("negative", "positive"),
    )
    return adapters.save(name, folder / f"{name}-{version}.safetensors", manifest=manifest)


def answers(adapters: AdapterSet, setup: str | Node) -> Tensor:
    inputs = {"input_ids": torch.tensor([[2, 5, 7, 17, 3], [2, 5, 8, 22, 3]])}
    with torch.no_grad(), adapters.using(setup):
        found: Tensor = adapters.model(**inputs).logits
    return found


def attached(base: Path) -> AdapterSet:
    return hub.attach(hub.load_base(str(base)).model, base_id=BASE_ID)
