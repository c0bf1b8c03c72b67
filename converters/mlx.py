"""Adapters of MLX-LM: a folder with adapters.safetensors and adapter_config.json.

Keys are `<module path>.lora_a` (inputs, r) and `.lora_b` (r, outputs), the paths those of the model's class in MLX-LM,
and `.m` is DoRA's magnitude. The document has one rank and one scale for all; the scale is the factor itself. `keys`
there names what is adapted, inside the last `num_layers` layers, or anywhere by a whole path.

Source: MLX-LM 0.32.2, tuner/lora.py, tuner/dora.py and tuner/utils.py (`linear_to_lora_layers`, `load_adapters`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Manifest
from ..architectures import Architecture
from ..errors import FormatError, UnsupportedError
from . import json_text, safetensors_file
from .disk import digest_of, read_bounded, sha256, write_atomic, write_folder
from .format import Format, Parts
from .identity import hub_id
from .low_rank import notes, updates
from .low_rank.dialect import GROUP, Dialect, Joined, Split, naming_of
from .low_rank.one_scale import rewritten
from .low_rank.updates import AGAIN, Means, Place, Sorting, Updates
from .peft.families import Naming, layers_of, naming
from .peft.folder import DOCUMENT_LIMIT
from .peft.targets import alike

if TYPE_CHECKING:
    from torch import Tensor

NAME = "mlx"
CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"

PREFIXES: Mapping[str, str] = {
    "llama": "model",
    "mistral": "model",
    "qwen2": "model",
    "qwen3": "model",
    "gemma2": "model",
    "gemma3_text": "model",
    "phi": "model",
    "gpt2": "model",
}
"""Family → the word in front of its module paths in MLX-LM, for those whose paths there are those of transformers."""

LEAVES: Mapping[str, str] = {"lora_a": "lora_A", "lora_b": "lora_B", "m": "lora_magnitude"}
"""Leaf of a key → name of the parameter in ours."""

MEANS = Means(library="MLX-LM", dora=True)
_INDEX = re.compile(r"(?:\A|\.)[0-9]+(?:\.|\Z)")


def detect(path: Path) -> bool:
    """Return whether path is a folder with weights as only MLX-LM names them."""
    return path.is_dir() and os.path.lexists(path / WEIGHTS)


def read(path: Path) -> Parts:
    """Return the document, the tensors and the digest of a folder: that of the list of its files' digests.

    Raises:
        FormatError: a file is missing, malformed, hostile, or a link that leads out of the folder.
    """
    missing = [f"{name} is missing" for name in (CONFIG, WEIGHTS) if not os.path.lexists(path / name)]
    if missing:
        raise FormatError(f"{path} holds no complete adapter of MLX-LM", faults=missing, hint="fetch the whole folder")
    text = read_bounded(path / CONFIG, DOCUMENT_LIMIT, inside=path)
    loaded = safetensors_file.load(path / WEIGHTS, digest=True, inside=path)
    documents = {CONFIG: json_text.loads(text, str(path / CONFIG))}
    if notes.KEY in loaded.header.metadata:
        note = loaded.header.metadata[notes.KEY]
        documents[notes.KEY] = json_text.loads(note.encode("utf-8", "surrogatepass"), f"the note in {path / WEIGHTS}")
    digest = digest_of({CONFIG: sha256(text), WEIGHTS: loaded.digest})
    return Parts(documents, {GROUP: loaded.tensors}, digest, name=path.name or path.resolve().name)


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write a folder and return its path.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    return write_folder(path, partial(_fill, parts), force=force)


def _fill(parts: Parts, folder: Path) -> None:
    metadata = {"format": "mlx"}
    if notes.KEY in parts.documents:
        metadata[notes.KEY] = json_text.canonical(parts.documents[notes.KEY], "the note")
    safetensors_file.write(folder / WEIGHTS, parts.tensors[GROUP], metadata, force=True)
    write_atomic(folder / CONFIG, [json_text.file(parts.documents[CONFIG], CONFIG)], force=True)


def split(parts: Parts) -> Split:
    """Return what a folder says.

    Raises:
        FormatError: document and tensors do not belong together, or one of them is wrong.
        UnsupportedError: the model family or what was trained is not known.
    """
    document = parts.documents[CONFIG]
    rank, scale, dropout = _parameters(document)
    sorting = Sorting()
    for key, tensor in parts.tensors[GROUP].items():
        path, _, leaf = key.rpartition(".")
        if path and leaf in LEAVES and tensor.ndim == (1 if leaf == "m" else 2):
            sorting.put(key, Place(path, LEAVES[leaf]), tensor)
        else:
            sorting.faults.append(f"key {key!r} is of no lora_a (inputs, r), lora_b (r, outputs) or m (outputs,)")
    found = sorting.done("the file")
    names = _family(found, document, parts.row)
    tensors = {place: _turned(tensor) for place, tensor in found.items()}
    paths = list(dict.fromkeys(path for path, _ in tensors))
    _check_embeddings(names, paths)
    faults = [
        f"{path} has rank {tensor.shape[0]}, lora_parameters says {rank}"
        for (path, leaf), tensor in tensors.items()
        if leaf.endswith("_A") and tensor.shape[0] != rank
    ]
    faults += _misplaced(document, names, paths)
    if faults:
        raise FormatError(f"{CONFIG} does not belong to the tensors", faults=faults[:50], hint=AGAIN)
    said = _type(document)
    held = Updates(
        tensors=tensors,
        alphas=dict.fromkeys(paths, scale * rank),
        dropout=dropout,
        magnitude="dora" if said == "dora" else "none",
        every=_layers(document) <= 0 and not any(map(_INDEX.search, _keys(document) or ["0"])),
    )
    return Split(held, names, base=hub_id(document.get("model")))


def join(found: Updates, names: Naming, manifest: Manifest, kept: Mapping[str, JSON]) -> Joined:
    """Return the folder's document and tensors.

    Raises:
        UnsupportedError: the maps have several scales.
    """
    scale = updates.one_scale(found, MEANS)
    found = updates.padded(found)
    rank = next(iter(updates.ranks_of(found).values()))
    keys, layers = _said_keys(found, names)
    document = {
        "fine_tune_type": "dora" if found.magnitude == "dora" else "lora",
        "model": manifest.base.id,
        "num_layers": layers,
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": found.dropout, "keys": keys},
    }
    back = {ours: theirs for theirs, ours in LEAVES.items()}
    tensors = {f"{path}.{back[leaf]}": _turned(tensor) for (path, leaf), tensor in found.tensors.items()}
    return Joined({CONFIG: document}, tensors)


def _naming(row: Architecture, kept: Mapping[str, JSON]) -> Naming:
    if row.name not in PREFIXES:
        raise UnsupportedError(
            f"MLX-LM has no models of the family {row.name}, or calls their modules otherwise", hint=updates.NATIVE
        )
    return naming_of(row, PREFIXES[row.name])


def _family(found: Mapping[Place, Tensor], document: Mapping[str, JSON], wanted: Architecture | None) -> Naming:
    """Return the family that has these module paths, in the words of transformers."""
    inside = [path.removeprefix("model.") for path, _ in found]
    says = {"base_model_name_or_path": document.get("model")}
    # Some have other words in front of their paths in transformers, so that the word is taken off first.
    told = naming([path for path in inside if path != "lm_head"] or inside, says, wanted)
    if told.row.name not in PREFIXES:
        raise UnsupportedError(f"the module paths are those of {told.row.name}, which MLX-LM has not", hint=AGAIN)
    made = naming_of(told.row, PREFIXES[told.row.name])
    others = tuple(name for name in told.others if name in PREFIXES)
    return Naming(made.row, made.prefix, others=others, outer=made.outer)


def _check_embeddings(names: Naming, paths: Sequence[str]) -> None:
    """Refuse updates of embeddings, which act in output embeddings of the same weight too, and ours do not."""
    tables = {embedding.tokens for embedding in names.row.embeddings}
    if any(names.ours(path) in tables for path in paths):
        raise UnsupportedError(
            "the adapter has an update of the embeddings, which MLX-LM also applies in output embeddings of the same "
            "weight",
            hint="train it again without",
        )


def _turned(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 1 else tensor.t().contiguous()


def _type(document: JSON) -> JSON:
    """Return what was trained.

    Raises:
        FormatError: the document is none.
        UnsupportedError: it is no update of low rank.
    """
    if not isinstance(document, dict) or not isinstance(document.get("lora_parameters", {}), dict):
        raise FormatError(f"{CONFIG} is no configuration of MLX-LM", hint=AGAIN)
    said = document.get("fine_tune_type", "lora")
    if said not in ("lora", "dora"):
        raise UnsupportedError(
            f"{CONFIG}: fine_tune_type is {said!r}, and only lora and dora are adapters",
            hint="fuse it with mlx_lm.fuse",
        )
    return said


def _parameters(document: JSON) -> tuple[int, float, float]:
    """Return rank, scale and dropout."""
    _type(document)
    said = document.get("lora_parameters", {})
    faults = []
    rank, scale, dropout = said.get("rank"), said.get("scale"), said.get("dropout", 0.0)
    if type(rank) is not int or rank < 1:
        faults.append(f"rank is {rank!r}, expected a whole number from 1 on")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        old = ", and alpha is not used by MLX-LM" if "alpha" in said else ""
        faults.append(f"scale is {scale!r}, expected a number{old}")
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
        faults.append(f"dropout is {dropout!r}, expected a number")
    if type(document.get("num_layers")) is not int:
        faults.append(f"num_layers is {document.get('num_layers')!r}, expected a whole number")
    if faults:
        raise FormatError(f"lora_parameters in {CONFIG} cannot be used", faults=faults, hint=AGAIN)
    return rank, scale, float(dropout)


def _keys(document: Mapping[str, JSON]) -> list[str] | None:
    """Return what `keys` names, None where it is left out and every linear map and embedding is meant."""
    keys = document["lora_parameters"].get("keys")
    if keys is None:
        return None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError(f"keys in {CONFIG} is no list of module paths", hint=AGAIN)
    return keys


def _layers(document: Mapping[str, JSON]) -> int:
    found: int = document["num_layers"]
    return found


def _misplaced(document: Mapping[str, JSON], names: Naming, paths: Sequence[str]) -> list[str]:
    """Return where tensors and document disagree, one sentence each."""
    keys, layers = _keys(document), _layers(document)
    inner = [path for path in paths if path not in (keys or ()) and _index(names, path) >= 0]
    first = min((_index(names, path) for path in inner), default=0)
    count = max((_index(names, path) for path in inner), default=-1) + 1 - first
    faults = [f"the tensors are of {count} layers, num_layers is {layers}"] if 0 < layers < count else []
    if keys is None:
        return faults
    faults += [
        f"the file has tensors of {path}, which keys does not name"
        for path in paths
        if path not in keys and _inside(names, path) not in keys
    ]
    known = {names.theirs(path) for path in alike(names.row, {names.ours(path) for path in inner})}
    behind = (path for path in known - set(paths) if _index(names, path) >= first)
    return faults + [f"keys names {path}, the file has no tensor of it" for path in sorted(behind)]


def _index(names: Naming, path: str) -> int:
    """Return the number of the layer that a path lies in, -1 where it lies in none."""
    place = layers_of(names.row, names.ours(path))
    return -1 if place is None else place[1][-1]


def _inside(names: Naming, path: str) -> str:
    """Return a path inside its layer, or as it is where it lies in none."""
    ours = names.ours(path)
    place = layers_of(names.row, ours)
    return path if place is None else ours.removeprefix(f"{place[0].layer(place[1])}.")


def _said_keys(found: Updates, names: Naming) -> tuple[list[str], int]:
    """Return `keys` and `num_layers`: paths inside a layer where every layer is adapted, else whole paths."""
    if not found.every:
        return list(found.paths), -1
    return list(dict.fromkeys(_inside(names, path) for path in found.paths)), -1


DIALECT = Dialect(name=NAME, means=MEANS, split=split, join=join, naming=_naming)

FORMAT = Format(
    name=NAME,
    detect=detect,
    read=read,
    decode=DIALECT.decode,
    encode=DIALECT.encode,
    write=write,
    rewritten=rewritten,
)
