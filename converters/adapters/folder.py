"""Folders of `adapters` on the disk: which files there are, and how they are read and written."""

from __future__ import annotations

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
from .documents import CONFIG, FUSION_CONFIG, HEAD_CONFIG

if TYPE_CHECKING:
    import torch

PAIRS = (
    (CONFIG, "adapter", ("adapter.safetensors", "pytorch_adapter.bin")),
    (
        FUSION_CONFIG,
        "fusion",
        ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"),
    ),
    (HEAD_CONFIG, "head", ("model_head.safetensors", "pytorch_model_head.bin")),
)
"""Document, its group of tensors, and the files that may hold them, the preferred one first."""

METADATA = {"format": "pt"}

DOCUMENT_LIMIT = 4 * 2**20
"""Largest JSON document, in bytes."""


def detect(path: Path) -> bool:
    """Return whether path is a folder with a file that only this format has, or with its documents and none of PEFT.

    A zip archive of such a folder counts as one.
    """
    names = names_at(path)
    weights = {name for _, _, files in PAIRS for name in files}
    return bool(names & weights) or (
        bool(names & {CONFIG, FUSION_CONFIG, HEAD_CONFIG})
        and not names & {"adapter_model.safetensors", "adapter_model.bin"}
    )


def read(path: Path) -> Parts:
    """Return documents, tensors and the digest of a folder, or archive: that of the list of its files' digests.

    Raises:
        FormatError: a file is missing, malformed, hostile, or a link that leads out of the folder.
    """
    files = required(path)
    documents, digests, weights = _listed(files)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for group, file in weights.items():
        loaded = files.weights(file)
        tensors[group], digests[file] = loaded.tensors, loaded.digest
    return Parts(documents, tensors, digest_of(digests))


def outline(path: Path) -> Outline:
    """Return documents, and tensors as outlines.

    Raises:
        FormatError: as read.
        NeedsValues: the tensors lie in pickles, or in an archive.
    """
    files = required(path)
    documents, digests, weights = _listed(files)
    if not isinstance(files, Folder) or not all(file.endswith(".safetensors") for file in weights.values()):
        raise NeedsValues
    found = {group: outlined(path / file, inside=path) for group, file in weights.items()}
    parts = Parts(documents, {group: tensors for group, (_, tensors) in found.items()})
    return Outline(parts, {weights[group]: file for group, (file, _) in found.items()}, digests)


def _listed(files: Files) -> tuple[dict[str, JSON], dict[str, str], dict[str, str]]:
    """Return name → document, name → its digest, and group → file of its tensors.

    Raises:
        FormatError: a document is missing, malformed, hostile, or a link that leads out of the folder.
    """
    names = files.names()
    documents: dict[str, JSON] = {}
    digests: dict[str, str] = {}
    chosen: dict[str, str] = {}
    faults: list[str] = []
    for name, group, weights in PAIRS:
        found = [file for file in weights if file in names]
        if name in names and found:
            text = files.document(name, DOCUMENT_LIMIT)
            documents[name] = json_text.loads(text, str(files.path / name))
            digests[name] = sha256(text)
            chosen[group] = found[0]
        elif found:
            faults.append(f"{name} is missing beside {found[0]}")
        elif name in names:
            faults.append(f"{' or '.join(weights)} is missing beside {name}")
    if faults or not documents:
        faults = faults or [f"there is neither {CONFIG} nor {HEAD_CONFIG}"]
        raise FormatError(f"{files.path} holds no complete adapter", faults=faults, hint="fetch the whole folder again")
    return documents, digests, chosen


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write a folder and return its path; with force into one that is there, with files of other kinds left in it.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    owned = [name for document, _, weights in PAIRS for name in (document, *weights)]
    return write_folder(path, partial(_fill, parts), force=force, owned=owned)


def files(parts: Parts) -> dict[str, int]:
    """Return the files that write writes, with their sizes in bytes."""
    found = {}
    for name, group, weights in PAIRS:
        if name in parts.documents:
            found[weights[0]] = safetensors_file.size(parts.tensors[group], METADATA)
            found[name] = len(json_text.file(parts.documents[name], name))
    return found


def _fill(parts: Parts, folder: Path) -> None:
    """Write the files of this adapter."""
    for name, group, weights in PAIRS:
        if name in parts.documents:
            safetensors_file.write(folder / weights[0], parts.tensors[group], METADATA, force=True)
            write_atomic(folder / name, [json_text.file(parts.documents[name], name)], force=True)
