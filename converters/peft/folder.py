"""Folders of PEFT on the disk: adapter_config.json with adapter_model.safetensors or adapter_model.bin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...errors import FormatError
from .. import json_text, safetensors_file, torch_file
from ..disk import digest_of, read_bounded, sha256, write_atomic, write_folder
from ..format import Parts
from ..outline import NeedsValues, Outline, outlined
from .documents import CONFIG, NOTE

if TYPE_CHECKING:
    import torch

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Files that may hold the tensors, the preferred one first."""

OTHERS = ("adapter.safetensors", "pytorch_adapter.bin")
"""Weights of the library `adapters`, whose document has the same name."""

GROUP = "adapter"

DOCUMENT_LIMIT = 4 * 2**20
"""Largest JSON document, in bytes."""


def detect(path: Path) -> bool:
    """Return whether path is a folder with weights as only PEFT names them."""
    return path.is_dir() and any(os.path.lexists(path / name) for name in WEIGHTS)


def read(path: Path) -> Parts:
    """Return the document, the tensors and the digest of a folder: that of the list of its files' digests.

    Raises:
        FormatError: a file is missing, malformed, hostile, or a link that leads out of the folder.
    """
    documents, digests, weights = _listed(path)
    tensors, digest, note = _weights(path, weights)
    return _parts(path, documents, tensors, note, digest_of({**digests, weights: digest}))


def outline(path: Path) -> Outline:
    """Return the document, and the tensors as outlines.

    Raises:
        FormatError: as read.
        NeedsValues: the tensors lie in a pickle.
    """
    documents, digests, weights = _listed(path)
    if not weights.endswith(".safetensors"):
        raise NeedsValues
    file, tensors = outlined(path / weights, inside=path)
    parts = _parts(path, documents, tensors, file.header.metadata.get(NOTE), "")
    return Outline(parts, {weights: file}, digests)


def _listed(path: Path) -> tuple[dict[str, JSON], dict[str, str], str]:
    """Return name → document, name → its digest, and the file of the tensors.

    Raises:
        FormatError: a file is missing, or the document malformed, or a link that leads out of the folder.
    """
    found = [name for name in WEIGHTS if os.path.lexists(path / name)]
    missing = [] if os.path.lexists(path / CONFIG) else [f"{CONFIG} is missing"]
    missing += [] if found else [f"{' or '.join(WEIGHTS)} is missing"]
    if missing:
        raise FormatError(f"{path} holds no complete adapter", faults=missing, hint="fetch the whole folder again")
    text = read_bounded(path / CONFIG, DOCUMENT_LIMIT, inside=path)
    return {CONFIG: json_text.loads(text, str(path / CONFIG))}, {CONFIG: sha256(text)}, found[0]


def _parts(
    path: Path, documents: dict[str, JSON], tensors: Mapping[str, torch.Tensor], note: str | None, digest: str
) -> Parts:
    """Return what a folder holds; note is that in the metadata of its weights."""
    if note is not None:
        documents[NOTE] = json_text.loads(note.encode("utf-8", "surrogatepass"), f"the note in the weights of {path}")
    return Parts(documents, {GROUP: tensors}, digest, name=_name(path))


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write a folder and return its path; with force into one that is there, with files of other kinds left in it.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    return write_folder(path, partial(_fill, parts), force=force, owned=(*WEIGHTS, *OTHERS, CONFIG))


def files(parts: Parts) -> dict[str, int]:
    """Return the files that write writes, with their sizes in bytes."""
    weights = safetensors_file.size(parts.tensors[GROUP], _metadata(parts))
    return {WEIGHTS[0]: weights, CONFIG: len(json_text.file(parts.documents[CONFIG], CONFIG))}


def _metadata(parts: Parts) -> dict[str, str]:
    note = {NOTE: json_text.canonical(parts.documents[NOTE], "the note")} if NOTE in parts.documents else {}
    return {"format": "pt", **note}


def _fill(parts: Parts, folder: Path) -> None:
    """Write the files."""
    safetensors_file.write(folder / WEIGHTS[0], parts.tensors[GROUP], _metadata(parts), force=True)
    write_atomic(folder / CONFIG, [json_text.file(parts.documents[CONFIG], CONFIG)], force=True)


def _weights(folder: Path, name: str) -> tuple[Mapping[str, torch.Tensor], str, str | None]:
    """Return tensors, digest and our note of a file of weights."""
    if name.endswith(".safetensors"):
        loaded = safetensors_file.load(folder / name, digest=True, inside=folder)
        return loaded.tensors, loaded.digest, loaded.header.metadata.get(NOTE)
    tensors, digest = torch_file.load(folder / name, inside=folder)
    return tensors, digest, None


def _name(path: Path) -> str:
    """Return what the folder is called; in the cache of huggingface_hub, the repository."""
    real = path if path.name not in ("", ".", "..") else path.resolve()
    if real.parent.name == "snapshots":
        return real.parent.parent.name.rpartition("--")[2]
    return real.name


def contents(documents: Mapping[str, JSON]) -> JSON:
    """Return adapter_config.json of what was read."""
    return documents.get(CONFIG)
