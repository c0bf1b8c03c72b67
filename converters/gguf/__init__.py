"""LoRA of llama.cpp: one GGUF file whose `general.type` is `adapter`.

Tensors are `<name of the map>.weight.lora_a` (r, inputs) and `.lora_b` (outputs, r). One alpha stands for all; divided
by the rank of each map it gives the scale, and an alpha of 0, or none, a scale of 1. Where rows of queries and keys
are in another order than in transformers (names.py), the number of heads is needed; a file that this package writes
says it in its metadata, for others it comes from the base model or from the caller.

Source: llama.cpp, src/llama-adapter.cpp and convert_lora_to_gguf.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapter import JSON, Adapter, Manifest
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError, UsageError
from .. import json_text
from ..disk import content, open_regular, write_atomic
from ..format import Format, KnownBase, Parts
from ..identity import hub_id
from ..low_rank import notes, one_scale, updates
from ..low_rank.dialect import GROUP, Dialect, Joined, Split, naming_of
from ..low_rank.updates import AGAIN, Means, Place, Sorting, Updates
from ..options import Option, told
from ..peft.families import Naming
from . import file, names

if TYPE_CHECKING:
    from torch import Tensor

NAME = "gguf"
METADATA = "metadata"

ARCH, TYPE = "general.architecture", "general.type"
ADAPTER_TYPE, ALPHA = "adapter.type", "adapter.lora.alpha"
INVOCATION = "adapter.alora.invocation_tokens"
URL = "general.base_model.0.repo_url"
HUB = "https://huggingface.co/"

LEAVES: Mapping[str, str] = {".weight.lora_a": "lora_A", ".weight.lora_b": "lora_B"}

OPTIONS: Mapping[str, Option] = {
    "heads": Option("how many heads the queries of the base model have (num_attention_heads)", "whole", writes=True),
    "kv_heads": Option("how many its keys have (num_key_value_heads), if they are not as many", "whole", writes=True),
}

MEANS = Means(library="llama.cpp")


def detect(path: Path) -> bool:
    """Return whether path is a file that begins like a GGUF file."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        return opened.read(4) == file.MAGIC


def read(path: Path) -> Parts:
    """Return metadata, tensors and digest of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is malformed or hostile.
        UnsupportedError: its version, or the type of a tensor, is not read.
    """
    with open_regular(path) as opened:
        data = content(opened, path)
    found = file.loads(data, str(path))
    documents: dict[str, JSON] = {METADATA: found.metadata}
    note = found.metadata.pop(notes.KEY, None)
    if note is not None:
        documents[notes.KEY] = json_text.loads(str(note[-1]).encode(), f"the note in {path}")
    return Parts(documents, {GROUP: found.tensors}, f"sha256:{hashlib.sha256(data).hexdigest()}", name=path.stem)


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write one file, whole or not at all, and return its path.

    Raises:
        StateError: the file exists and force is not set, or cannot be written.
        UnsupportedError: a tensor's dtype is none that llama.cpp takes.
    """
    metadata = dict(parts.documents[METADATA])
    if notes.KEY in parts.documents:
        metadata[notes.KEY] = ["string", json_text.canonical(parts.documents[notes.KEY], "the note")]
    # What cannot be written is told before anything is.
    chunks = list(file.chunks(metadata, parts.tensors[GROUP], str(path)))
    write_atomic(path, chunks, force=force)
    return path


def split(parts: Parts) -> Split:
    """Return what a file says.

    Raises:
        FormatError: it is no adapter, or names tensors that no adapter of its family has.
        UnsupportedError: its family or kind is not known, or the number of heads is needed and unknown.
    """
    metadata = parts.documents[METADATA]
    _check_kind(metadata)
    row, others = _family(_text(metadata, ARCH), parts.row)
    sorting = Sorting()
    for key, tensor in parts.tensors[GROUP].items():
        leaf = next((leaf for leaf in LEAVES if key.endswith(leaf)), None)
        path = None if leaf is None else names.ours(row, key.removesuffix(leaf))
        if path is None or leaf is None or tensor.ndim != 2:
            sorting.faults.append(f"key {key[:80]!r} is of no map of {row.name} that llama.cpp adapts{_hint(key)}")
        else:
            sorting.put(key, Place(path, LEAVES[leaf]), tensor)
    tensors = sorting.done("the file")
    heads = _heads(row, tensors, metadata, parts)
    tensors = {place: _ordered(place, tensor, row, heads, back=True) for place, tensor in tensors.items()}
    alpha = _alpha(metadata)
    ranks = updates.ranks_of(Updates(tensors, {}))
    found = Updates(tensors=tensors, alphas={path: alpha or float(r) for path, r in ranks.items()})
    url = metadata.get(URL, ["string", ""])[1]
    base = hub_id(url.removeprefix(HUB)) if isinstance(url, str) and url.startswith(HUB) else ""
    naming = dataclasses.replace(naming_of(row, ""), others=others)
    return Split(found, naming, base=base, kept={"options": _spoken(heads)} if heads else {})


def join(found: Updates, naming: Naming, manifest: Manifest, kept: Mapping[str, JSON]) -> Joined:
    """Return metadata and tensors.

    Raises:
        UnsupportedError: llama.cpp does not adapt a map, the scales differ, or the number of heads is unknown.
    """
    row = naming.row
    unknown = [path for path in found.paths if names.theirs(row, path) is None]
    if unknown:
        raise UnsupportedError(
            f"llama.cpp does not adapt {', '.join(unknown[:5])} of {row.name} models", hint=updates.NATIVE
        )
    found, alpha = _one_alpha(found)
    heads = _said_heads(kept)
    turned = _turned(row, found.tensors)
    if turned and heads is None:
        raise UnsupportedError(
            f"the rows of {turned[0]} are in another order in llama.cpp, which depends on the number of heads",
            hint="name the base model, or say it with the options heads and kv_heads",
        )
    tensors = {}
    for place, tensor in found.tensors.items():
        leaf = next(theirs for theirs, ours in LEAVES.items() if ours == place.leaf)
        tensors[f"{names.theirs(row, place.path)}{leaf}"] = _ordered(place, tensor, row, heads, back=False)
    arch = names.FAMILIES[row.name].arch
    metadata: dict[str, JSON] = {
        ARCH: ["string", arch],
        TYPE: ["string", "adapter"],
        ADAPTER_TYPE: ["string", "lora"],
        ALPHA: ["float32", alpha],
    }
    if turned and heads is not None:
        metadata |= {
            f"{arch}.attention.head_count{end}": ["uint32", n] for end, n in zip(("", "_kv"), heads, strict=True)
        }
    if manifest.base.id:
        metadata |= {"general.base_model.count": ["uint32", 1], URL: ["string", HUB + manifest.base.id]}
        metadata["general.base_model.0.name"] = ["string", manifest.base.id.rpartition("/")[2]]
    return Joined({METADATA: metadata}, tensors)


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same as a LoRA, and knows the heads of its base model where that is known."""
    adapter = one_scale.rewritten(adapter, base)
    row = adapter.manifest.base.architecture
    if base is None or not (row in names.FAMILIES and names.FAMILIES[row].turned):
        return adapter
    return told(adapter, NAME, _spoken(base.heads()))


def _naming(row: Architecture, kept: Mapping[str, JSON]) -> Naming:
    if row.name not in names.FAMILIES:
        raise UnsupportedError(
            f"llama.cpp has no models of the family {row.name}, or none that we name", hint=updates.NATIVE
        )
    return naming_of(row, "")


def _check_kind(metadata: file.Metadata) -> None:
    """Refuse what is no LoRA."""
    kind = _text(metadata, TYPE)
    if kind != "adapter":
        raise FormatError(
            f"the GGUF file holds a {kind[:40] or 'model'}, not an adapter", hint="give the file of a LoRA"
        )
    if _text(metadata, ADAPTER_TYPE) != "lora":
        raise UnsupportedError(f"the adapter is a {_text(metadata, ADAPTER_TYPE)[:40]!r}, and only lora is read")
    if INVOCATION in metadata:
        raise UnsupportedError("the adapter acts only behind certain tokens (aLoRA)", hint="use it with llama.cpp")


def _text(metadata: file.Metadata, key: str) -> str:
    value = metadata.get(key, ["string", ""])
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], str):
        raise FormatError(f"{key} in the metadata is no text", hint=AGAIN)
    return value[1]


def _hint(key: str) -> str:
    return "; llama.cpp does not use norms of adapters" if key.endswith("_norm.weight") else ""


def _family(arch: str, wanted: Architecture | None) -> tuple[Architecture, tuple[str, ...]]:
    """Return the row of a value of general.architecture, and others that it may be."""
    rows = names.rows_of(arch)
    if not rows:
        known = ", ".join(sorted({family.arch for family in names.FAMILIES.values()}))
        raise UnsupportedError(
            f"adapters for {arch[:40]!r} models of llama.cpp are not read", hint=f"known are {known}"
        )
    if wanted in rows and wanted is not None:
        return wanted, ()
    return rows[0], tuple(row.name for row in rows[1:] if row.layers == rows[0].layers)


def _alpha(metadata: file.Metadata) -> float:
    """Return alpha, 0 where there is none."""
    value = metadata.get(ALPHA, ["float32", 0.0])
    if value[0] != "float32":
        raise FormatError(f"{ALPHA} is a {value[0]}, expected a float32", hint=AGAIN)
    return float(value[1])


def _one_alpha(found: Updates) -> tuple[Updates, float]:
    """Return updates that have one alpha, and that: 0 where every scale is 1 and the ranks differ."""
    if len(set(found.alphas.values())) > 1:
        if updates.one_scale(found, MEANS) == 1:
            return found, 0.0
        found = updates.padded(found)
    alpha = next(iter(found.alphas.values()))
    (stored,) = struct.unpack("<f", struct.pack("<f", alpha))
    if stored == 0 or abs(stored) == float("inf"):
        raise UnsupportedError(f"llama.cpp cannot say an alpha of {alpha:g}", hint=updates.NATIVE)
    return found, stored


def _turned(row: Architecture, tensors: Mapping[Place, Tensor]) -> list[str]:
    """Return the maps whose rows are in another order in llama.cpp."""
    ends = names.FAMILIES[row.name].turned
    return [
        path for path, leaf in tensors if leaf == "lora_B" and (names.theirs(row, path) or "").endswith(ends or ("?",))
    ]


def _heads(
    row: Architecture, tensors: Mapping[Place, Tensor], metadata: file.Metadata, parts: Parts
) -> tuple[int, int] | None:
    """Return the number of heads of queries and of keys, None where it is not needed.

    Raises:
        UsageError: it is needed and unknown.
        FormatError: rows cannot be so many heads.
    """
    turned = _turned(row, tensors)
    if not turned:
        return None
    arch = names.FAMILIES[row.name].arch
    noted = [metadata.get(f"{arch}.attention.head_count{end}", [None, None])[-1] for end in ("", "_kv")]
    heads = _pair(*noted) or _pair(parts.options.get("heads"), parts.options.get("kv_heads"))
    if heads is None and parts.base is not None:
        heads = parts.base.heads()
    if heads is None:
        raise UsageError(
            f"the rows of {turned[0]} are in the order of llama.cpp, which depends on the number of heads",
            hint="load the adapter onto its base model, or say it with the options heads and kv_heads",
        )
    return heads


def _pair(heads: JSON, kv_heads: JSON) -> tuple[int, int] | None:
    """Return two numbers of heads, None where they are none."""
    kv_heads = heads if kv_heads is None else kv_heads
    if heads is None:
        return None
    if type(heads) is not int or type(kv_heads) is not int or heads < 1 or kv_heads < 1:
        raise UsageError(f"the numbers of heads are {heads!r} and {kv_heads!r}", hint="give whole numbers from 1 on")
    return heads, kv_heads


def _said_heads(kept: Mapping[str, JSON]) -> tuple[int, int] | None:
    """Return the heads that a source, the base model or the caller said."""
    options = kept.get("options", {})
    return _pair(options.get("heads"), options.get("kv_heads"))


def _spoken(heads: tuple[int, int]) -> dict[str, JSON]:
    """Return numbers of heads as options."""
    return {"heads": heads[0], "kv_heads": heads[1]}


def _ordered(place: Place, tensor: Tensor, row: Architecture, heads: tuple[int, int] | None, *, back: bool) -> Tensor:
    """Return a tensor with its rows in the order of llama.cpp, or back in that of transformers."""
    if heads is None or not _turned(row, {place: tensor}):
        return tensor
    count = heads[0] if (names.theirs(row, place.path) or "").endswith("attn_q") else heads[1]
    if tensor.shape[0] % (2 * count):
        raise FormatError(
            f"{place.path} has {tensor.shape[0]} outputs, which are no {count} heads",
            hint="correct the number of heads",
        )
    return (names.in_halves if back else names.in_pairs)(tensor, count)


DIALECT = Dialect(name=NAME, means=MEANS, split=split, join=join, naming=_naming)

FORMAT = Format(
    name=NAME,
    detect=detect,
    read=read,
    decode=DIALECT.decode,
    encode=DIALECT.encode,
    write=write,
    rewritten=rewritten,
    options=OPTIONS,
)
