"""Folders of PEFT on the disk: adapter_config.json with adapter_model.safetensors or adapter_model.bin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...errors import FormatError
from .. import json_text, safetensors_file
from ..disk import digest_of, sha256, write_atomic, write_folder
from ..files import Files, Folder, names_at, required
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
    """Return whether path is a folder, or a zip archive of one, with weights as only PEFT names them."""
    return bool(names_at(path) & set(WEIGHTS))


def read(path: Path) -> Parts:
    """Return the document, the tensors and the digest of a folder, or archive: that of the list of its files' digests.

    Raises:
        FormatError: a file is missing, malformed, hostile, or a link that leads out of the folder.
    """
    files = required(path)
    documents, digests, weights = _listed(files)
    loaded = files.weights(weights)
    digest = digest_of({**digests, weights: loaded.digest})
    return _parts(path, documents, loaded.tensors, loaded.metadata.get(NOTE), digest)


def outline(path: Path) -> Outline:
    """Return the document, and the tensors as outlines.

    Raises:
        FormatError: as read.
        NeedsValues: the tensors lie in a pickle, or in an archive.
    """
    files = required(path)
    documents, digests, weights = _listed(files)
    if not isinstance(files, Folder) or not weights.endswith(".safetensors"):
        raise NeedsValues
    file, tensors = outlined(path / weights, inside=path)
    parts = _parts(path, documents, tensors, file.header.metadata.get(NOTE), "")
    return Outline(parts, {weights: file}, digests)


def _listed(files: Files) -> tuple[dict[str, JSON], dict[str, str], str]:
    """Return name → document, name → its digest, and the file of the tensors.

    Raises:
        FormatError: a file is missing, or the document malformed, or a link that leads out of the folder.
    """
    names = files.names()
    found = [name for name in WEIGHTS if name in names]
    missing = [] if CONFIG in names else [f"{CONFIG} is missing"]
    missing += [] if found else [f"{' or '.join(WEIGHTS)} is missing"]
    if missing:
        raise FormatError(
            f"{files.path} holds no complete adapter", faults=missing, hint="fetch the whole folder again"
        )
    text = files.document(CONFIG, DOCUMENT_LIMIT)
    return {CONFIG: json_text.loads(text, str(files.path / CONFIG))}, {CONFIG: sha256(text)}, found[0]


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


def _name(path: Path) -> str:
    """Return what the folder is called; in the cache of huggingface_hub, the repository."""
    real = path if path.name not in ("", ".", "..") else path.resolve()
    real = real.with_suffix("") if real.is_file() else real
    if real.parent.name == "snapshots":
        return real.parent.parent.name.rpartition("--")[2]
    return real.name


def contents(documents: Mapping[str, JSON]) -> JSON:
    """Return adapter_config.json of what was read."""
    return documents.get(CONFIG)
