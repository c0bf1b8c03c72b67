"""Folders of `adapters` and of adapter-transformers, of every era: bottlenecks, unions of them, classification heads.

A folder holds adapter_config.json with adapter.safetensors or pytorch_adapter.bin, or head_config.json with
model_head.safetensors or pytorch_model_head.bin, or both pairs. The rules are in adapters_config.py (methods),
adapters_keys.py (tensors), adapters_heads.py and adapters_documents.py (what stands around them); this file puts them
together. What we do not have stays in `manifest.extra["adapters"]` and is written back.

Source: adapters 1.3.0, loading.py; FORMATS §1, §2 and §3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..adapter import JSON, Adapter, Manifest, MethodConfig, to_json
from ..architectures import Architecture, by_model_type, by_name
from ..errors import FormatError, UnsupportedError
from ..methods import BottleneckConfig, ClassificationHeadConfig
from . import accounting, adapters_config, adapters_documents, adapters_folder, adapters_heads, adapters_keys
from .adapters_documents import CONFIG, HEAD_CONFIG, NAME, OURS, Meaning, kept_version, old
from .adapters_keys import CONTAINERS, Naming
from .format import Format, Parts

if TYPE_CHECKING:
    import torch


def decode(parts: Parts) -> Adapter:
    """Return the adapter that the files of a folder describe.

    Raises:
        FormatError: a document or the account of the tensors is wrong; every fault is listed.
        UnsupportedError: the method, head or model family is not one that this version runs.
    """
    first = adapters_documents.check(parts.documents)
    row = by_model_type(first["model_type"])
    bottlenecks, names, tensors, faults = _decode_adapter(parts, row)
    config: tuple[MethodConfig, ...] = bottlenecks
    labels: tuple[str, ...] = ()
    fixed = ""
    if HEAD_CONFIG in parts.documents:
        head = adapters_heads.decode(parts.documents[HEAD_CONFIG], parts.tensors["head"], row)
        config, labels, fixed = (*config, head.config), head.labels, head.fixed
        tensors |= head.tensors
        faults += head.faults
    faults += accounting.faults(config, tensors, row) + _width_faults(parts, tensors)
    if faults:
        raise FormatError(
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=_AGAIN
        )
    extra = _names_kept(names, fixed, row)
    bare = adapters_documents.manifest(first, row, labels, parts.digest, {})
    built = _documents(Adapter(config, tensors, bare), row, fixed, old_activations=old(first))
    for file, document in parts.documents.items():
        spelling = adapters_documents.spelling(document, built[file])
        extra |= {file: spelling} if spelling else {}
    return Adapter(config, tensors, adapters_documents.manifest(first, row, labels, parts.digest, extra))


def encode(adapter: Adapter) -> Parts:
    """Return what the files of a folder hold for an adapter: in its source's spelling, or that of adapters 1.3.0.

    Raises:
        UnsupportedError: the format has no word for a method, a head or the model family.
        FormatError: the adapter's tensors are not those of its configuration.
    """
    row = by_name(adapter.manifest.base.architecture)
    faults = accounting.faults(adapter.config, adapter.tensors, row)
    if faults:
        raise FormatError(f"adapter {adapter.manifest.name!r} is not whole", faults=faults)
    extra = adapters_documents.kept_of(adapter.manifest)
    spellings = {file: extra.get(file, {}) for file in (CONFIG, HEAD_CONFIG)}
    old_activations = kept_version(spellings[CONFIG]) is None
    built = _documents(adapter, row, extra.get("fixed_head", ""), old_activations=old_activations)
    meanings: dict[str, Meaning] = {
        CONFIG: partial(adapters_config.meaning, old_activations=old_activations),
        HEAD_CONFIG: adapters_heads.meaning_or_nothing,
    }
    documents = {
        file: adapters_documents.respelled(document, spellings[file], meanings[file])
        for file, document in built.items()
    }
    return _with_rest(adapter.manifest, Parts(documents, _tensors(adapter, row, documents, extra)))


FORMAT = Format(
    name=NAME,
    detect=adapters_folder.detect,
    read=adapters_folder.read,
    decode=decode,
    encode=encode,
    write=adapters_folder.write,
)

_AGAIN = "fetch the adapter again, or save it again with the library that made it"


def _decode_adapter(
    parts: Parts, row: Architecture
) -> tuple[tuple[BottleneckConfig, ...], Naming | None, dict[str, torch.Tensor], list[str]]:
    """Return configurations, the naming of the keys, canonical tensors and faults of the adapter without its head."""
    if CONFIG not in parts.documents:
        return (), None, {}, []
    document, foreign = parts.documents[CONFIG], parts.tensors["adapter"]
    unused = document.get("type") == "text_task" and not any("invertible" in key for key in foreign)
    config = adapters_config.decode(document.get("config"), old_activations=old(document), unused_inverse=unused)
    names = adapters_keys.naming(list(foreign), row, document["name"])
    tensors, faults = adapters_keys.decode(foreign, row, names)
    return config, names, tensors, faults


def _width_faults(parts: Parts, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    width = _width(tensors)
    return [
        f"{file}: hidden_size is {document['hidden_size']}, the tensors have {width}"
        for file, document in parts.documents.items()
        if document.get("hidden_size") not in (None, width)
    ]


def _width(tensors: Mapping[str, torch.Tensor]) -> int:
    return accounting.width({key: tuple(tensor.shape) for key, tensor in tensors.items()})


def _names_kept(names: Naming | None, fixed: str, row: Architecture) -> dict[str, JSON]:
    """Return what is unusual in the names of a file."""
    extra: dict[str, JSON] = {"fixed_head": fixed} if fixed else {}
    if names is not None and names.prefix != _usual_prefix(row):
        extra["prefix"] = names.prefix
    if names is not None and names.container != CONTAINERS[0]:
        extra["container"] = names.container.feed_forward
    return extra


def _usual_prefix(row: Architecture) -> str:
    return row.prefixes[0] if row.prefixes else ""


def _documents(adapter: Adapter, row: Architecture, fixed: str, *, old_activations: bool) -> dict[str, dict[str, JSON]]:
    """Return the documents in the current spelling, but for the names of activations.

    Raises:
        UnsupportedError: the format has no word for a method or head.
    """
    heads = [part for part in adapter.config if isinstance(part, ClassificationHeadConfig)]
    others = [part for part in adapter.config if not isinstance(part, ClassificationHeadConfig)]
    if len(heads) > 1:
        raise UnsupportedError(
            "the adapters format has one head for each adapter", hint="write it in the native format"
        )
    top = adapters_documents.plain(adapter.manifest, row, _width(adapter.tensors))
    found: dict[str, dict[str, JSON]] = {}
    if others:
        found[CONFIG] = {**top, "config": adapters_config.encode(others, old_activations=old_activations)}
    if heads:
        fields = adapters_heads.fixed_fields(heads[0], adapter.manifest.labels, fixed, row)
        config = None if fields else adapters_heads.encode(heads[0], adapter.manifest.labels)
        found[HEAD_CONFIG] = {**top, **(fields or {}), "config": config}
    return found


def _tensors(
    adapter: Adapter, row: Architecture, documents: Mapping[str, Mapping[str, JSON]], extra: Mapping[str, JSON]
) -> dict[str, dict[str, torch.Tensor]]:
    """Return the groups of tensors with foreign keys."""
    found = {}
    if CONFIG in documents:
        container = next((box for box in CONTAINERS if box.feed_forward == extra.get("container")), CONTAINERS[0])
        names = Naming(documents[CONFIG]["name"], extra.get("prefix", _usual_prefix(row)), container)
        found["adapter"] = adapters_keys.encode(adapter.tensors, row, names)
    if HEAD_CONFIG in documents:
        config = next(part for part in adapter.config if isinstance(part, ClassificationHeadConfig))
        keys = adapters_heads.keys(config, documents[HEAD_CONFIG], row)
        found["head"] = {key: adapter.tensors[ours] for key, ours in keys.items() if ours in adapter.tensors}
    return found


def _with_rest(manifest: Manifest, parts: Parts) -> Parts:
    """Return parts with what their reader would not find in them, under our own key of the first document."""
    found = decode(parts).manifest
    rest = {
        field.name: to_json(getattr(manifest, field.name))
        for field in dataclasses.fields(Manifest)
        if field.name not in ("provenance", "extra") and getattr(manifest, field.name) != getattr(found, field.name)
    }
    extra = {key: value for key, value in manifest.extra.items() if key != NAME}
    rest |= {"extra": to_json(extra)} if extra else {}
    if not rest:
        return parts
    home, document = next(iter(parts.documents.items()))
    return Parts({**parts.documents, home: {**document, OURS: rest}}, parts.tensors)
