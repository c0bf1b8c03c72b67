"""What the tests of remotes share: a registry of a few small files, as a mapping from path to bytes."""

from __future__ import annotations

import hashlib
import os

from adapterhub.registry import Artifact, ArtifactBase, ArtifactFile, Index

BASE = ArtifactBase(id="google-bert/bert-base-uncased", architecture="bert")
BIG = os.urandom(300_000)
FOLDER = {"adapter_config.json": b"{}", "adapter_model.safetensors": os.urandom(50_000), "sub dir/ä.bin": b"abc"}


def sha(data: bytes) -> str:
    """Return the digest of data."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def a_file(url: str, data: bytes) -> Artifact:
    """Return the record of a single file."""
    return Artifact(base=BASE, method="seq_bn", format="native", url=url, digest=sha(data), size=len(data))


def a_folder(url: str, files: dict[str, bytes]) -> Artifact:
    """Return the record of a folder."""
    listed = tuple(ArtifactFile(path=path, digest=sha(data), size=len(data)) for path, data in files.items())
    return Artifact(base=BASE, method="lora", format="peft", url=url, files=listed)


def an_index() -> Index:
    """Return an index with a file and a folder."""
    index = Index().add("big", "1.0.0", a_file("files/big-öne.safetensors", BIG), published="2026-01-01")
    return index.add("lora", "0.1.0", a_folder("lora", FOLDER), published="2026-01-01")


def a_registry() -> dict[str, bytes]:
    """Return the files of a registry."""
    folder = {f"lora/{path}": data for path, data in FOLDER.items()}
    return {"index.json": an_index().dumps(), "files/big-öne.safetensors": BIG, **folder}
