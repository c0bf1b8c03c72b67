"""Folders of `adapters` and of adapter-transformers, of every era.

A folder holds adapter_config.json with adapter.safetensors or pytorch_adapter.bin, or head_config.json with
model_head.safetensors or pytorch_model_head.bin, or both pairs; or adapter_fusion_config.json with the weights of a
fusion layer. The rules are one file per method (codec.py tells the
contract, config.py lists them), keys.py (names of tensors), heads.py and documents.py (what stands around them); this
file puts them together. What we do not have stays in `manifest.extra["adapters"]` and is written back.

Source: adapters 1.3.0, loading.py.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ...adapter import JSON, Adapter, Manifest, MethodConfig, to_json
from ...architectures import Architecture, by_model_type, by_name
from ...errors import FormatError, UnsupportedError
from ...methods import FusionConfig, is_head
from .. import accounting, fingerprints
from ..format import Format, Parts
from ..identity import manifest_name, origin
from ..values import check_usable
from . import config as configs
from . import documents, equal, folder, fusion, heads, keys
from .codec import CONTAINERS, Codec, Source
from .documents import CONFIG, FUSION_CONFIG, HEAD_CONFIG, NAME, OURS, Meaning, kept_version
from .keys import Naming

if TYPE_CHECKING:
    import torch


def decode(parts: Parts) -> Adapter:
    """Return the adapter that the files of a folder describe.

    Raises:
        FormatError: a document or the account of the tensors is wrong; every fault is listed.
        UnsupportedError: the method, head or model family is not one that this version runs.
    """
    first = documents.check(parts.documents)
    row = by_model_type(first["model_type"])
    check_usable(parts.tensors, f"the weights of {first.get('name') or 'the head'}")
    config, names, tensors, faults = _decode_adapter(parts, row)
    head: heads.Head | None = None
    if HEAD_CONFIG in parts.documents:
        head = heads.decode(parts.documents[HEAD_CONFIG], parts.tensors["head"], row, parts.tensors.get("adapter", {}))
        config = (*config, head.config)
        tensors |= head.tensors
        faults += head.faults
    labels = () if head is None else head.labels
    faults += accounting.faults(config, tensors, row) + _width_faults(parts, accounting.width(config, tensors, row))
    if faults:
        raise FormatError(
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=_AGAIN
        )
    extra = _names_kept(names, head, row) | _fusion_name(first, config)
    if head is not None and head.fixed and names is None and first.get("name") is not None:
        extra["head_name"] = first["name"]
    bare = documents.manifest(first, row, labels, parts.digest, {})
    versions = {file: document.get("version") for file, document in parts.documents.items()}
    built = _documents(Adapter(config, tensors, bare), _source(row, first.get("version"), config), versions, extra)
    for file, document in parts.documents.items():
        spelling = documents.spelling(document, built[file])
        extra |= {file: spelling} if spelling else {}
    manifest = documents.manifest(first, row, labels, parts.digest, extra)
    if head is not None:
        _warn_of_others(manifest, head)
    if head is not None and head.base and manifest.base.fingerprint is None:
        manifest = _recognising(manifest, head.base, row)
    return Adapter(config, tensors, manifest)


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
    source_of = adapter.manifest.provenance
    if row.muted and (source_of is None or source_of.format != NAME):
        raise UnsupportedError(
            f"the library of the adapters format takes modules out of {row.name} models that this adapter counts on",
            hint="write it in the native format",
        )
    extra = documents.kept_of(adapter.manifest)
    spellings = {file: extra.get(file, {}) for file in (CONFIG, HEAD_CONFIG, FUSION_CONFIG)}
    source = _source(row, kept_version(spellings[CONFIG]), adapter.config)
    versions = {file: kept_version(spelling) for file, spelling in spellings.items()}
    built = _documents(adapter, source, versions, extra)
    meanings: dict[str, Meaning] = {
        CONFIG: partial(configs.meaning, source=source),
        HEAD_CONFIG: partial(heads.meaning, row=row, tensors=adapter.tensors),
        FUSION_CONFIG: fusion.meaning_or_nothing,
    }
    first = next(iter(built), None)
    found = {
        file: documents.respelled(document, spellings[file], meanings[file], first=file == first)
        for file, document in built.items()
    }
    return _with_rest(adapter.manifest, Parts(found, _tensors(adapter, row, found, extra)))


FORMAT = Format(
    name=NAME,
    detect=folder.detect,
    read=folder.read,
    decode=decode,
    encode=encode,
    write=folder.write,
    rewritten=equal.rewritten,
    files=folder.files,
    outline=folder.outline,
)

MOST_SAMPLED = 16
"""So many weights, or up to twice as many, are remembered of a base model that stood in a file."""

_AGAIN = "fetch the adapter again, or save it again with the library that made it"


def _source(row: Architecture, version: JSON, config: tuple[MethodConfig, ...]) -> Source:
    """Return what changes the meaning of the configurations of an adapter that is of these."""
    return Source(row, version, unused_inverse=not any(part.method == "invertible" for part in config))


def _parts(config: tuple[MethodConfig, ...]) -> list[tuple[MethodConfig, Codec]]:
    """Return the configurations that the format has a word for, with their codecs."""
    codecs = ((part, fusion.CODEC if isinstance(part, FusionConfig) else configs.codec_of(part)) for part in config)
    return [(part, codec) for part, codec in codecs if codec is not None]


def _decode_adapter(
    parts: Parts, row: Architecture
) -> tuple[tuple[MethodConfig, ...], Naming | None, dict[str, torch.Tensor], list[str]]:
    """Return configurations, the naming of the keys, canonical tensors and faults of the adapter without its head."""
    if FUSION_CONFIG in parts.documents:
        return _decode_fusion(parts.documents[FUSION_CONFIG], parts.tensors["fusion"], row)
    if CONFIG not in parts.documents:
        return (), None, {}, []
    document, foreign = parts.documents[CONFIG], parts.tensors["adapter"]
    unused = document.get("type") == "text_task" and not any("invertible" in key for key in foreign)
    config = configs.decode(document.get("config"), Source(row, document.get("version"), unused))
    names = keys.naming(list(foreign), _parts(config), row, document["name"])
    tensors, faults = keys.decode(foreign, _parts(config), row, names, document.get("hidden_size") or 0)
    if not faults:
        names = dataclasses.replace(names, copies=keys.copies(tensors, foreign, _parts(config), row, names))
    return config, names, tensors, faults


def _decode_fusion(
    document: Mapping[str, JSON], foreign: Mapping[str, torch.Tensor], row: Architecture
) -> tuple[tuple[MethodConfig, ...], Naming | None, dict[str, torch.Tensor], list[str]]:
    config = fusion.decode(document, foreign, row)
    names = keys.naming(list(foreign), _parts((config,)), row, document["name"])
    return (config,), names, *keys.decode(foreign, _parts((config,)), row, names)


def _recognising(manifest: Manifest, weights: Mapping[str, torch.Tensor], row: Architecture) -> Manifest:
    """Return a manifest that tells its base model by weights of it that stood in the file and are left out here."""
    warnings.warn(
        f"the head of {manifest.name!r} came with {len(weights)} weights of its base model; they are left out, and the "
        "adapter is loaded onto a model with the same values only",
        UserWarning,
        stacklevel=4,
    )
    names = [
        name
        for name, weight in weights.items()
        if weight.ndim > 1 and weight.is_floating_point() and any(stack.index(name) for stack in row.layers)
    ]
    chosen = names[:: max(1, len(names) // MOST_SAMPLED)]
    if not chosen:
        return manifest
    found = fingerprints.sampled({name: weights[name] for name in chosen})
    return dataclasses.replace(manifest, base=dataclasses.replace(manifest.base, fingerprint=found))


def _warn_of_others(manifest: Manifest, head: heads.Head) -> None:
    """Tell of what stood in the file of a head and is of no part of this adapter."""
    if head.others:
        warnings.warn(
            f"the head of {manifest.name!r} came with {head.others} weights of other adapters; they are left out",
            UserWarning,
            stacklevel=4,
        )


def _width_faults(parts: Parts, width: int) -> list[str]:
    return [
        f"{file}: hidden_size is {document['hidden_size']}, the tensors have {width}"
        for file, document in parts.documents.items()
        if document.get("hidden_size") not in (None, width) and width
    ]


def _names_kept(names: Naming | None, head: heads.Head | None, row: Architecture) -> dict[str, JSON]:
    """Return what is unusual in the names of a file."""
    extra: dict[str, JSON] = {}
    if head is not None and head.fixed:
        extra["fixed_head"] = head.fixed
    if head is not None and head.absent:
        extra["head_absent"] = list(head.absent)
    if head is not None and head.copies and not head.base and names is not None:
        extra["head_copies"] = [keys.unnamed(key, names.name) for key in head.copies]
    if names is not None and names.prefix != _usual_prefix(row):
        extra["prefix"] = names.prefix
    if names is not None and names.container != CONTAINERS[0]:
        extra["container"] = names.container.feed_forward
    if names is not None and names.copies is not None:
        extra["copies"] = names.copies
    return extra


def _fusion_name(document: Mapping[str, JSON], config: Sequence[MethodConfig]) -> dict[str, JSON]:
    """Return the name of a fusion layer that is not made of its adapters' names."""
    fused = next((part for part in config if isinstance(part, FusionConfig)), None)
    usual = fused is None or document["name"] == ",".join(fused.adapters)
    return {} if usual else {"fusion": document["name"]}


def _usual_prefix(row: Architecture) -> str:
    """Return the word that keys have in front of the module paths of the library's time, which may begin with it."""
    prefix = row.prefixes[0] if row.prefixes else ""
    return "" if prefix and row.past(row.layers[0].path).startswith(f"{prefix}.") else prefix


def _documents(
    adapter: Adapter, source: Source, versions: Mapping[str, JSON], extra: Mapping[str, JSON]
) -> dict[str, dict[str, JSON]]:
    """Return the documents in the current spelling, but for the names of activations.

    versions: file → that of the library that wrote it; extra: what is unusual in the names of the file.

    Raises:
        UnsupportedError: the format has no word for a method or head.
    """
    own = [part for part in adapter.config if is_head(part)]
    fused = [part for part in adapter.config if isinstance(part, FusionConfig)]
    others = [part for part in adapter.config if not is_head(part) and not isinstance(part, FusionConfig)]
    if len(own) > 1:
        raise UnsupportedError(
            "the adapters format has one head for each adapter", hint="write it in the native format"
        )
    top = documents.plain(adapter.manifest, source.row, accounting.width(adapter.config, adapter.tensors, source.row))
    found: dict[str, dict[str, JSON]] = {}
    if fused and (fused[1:] or others):
        raise UnsupportedError("the adapters format keeps a fusion layer in a folder of its own")
    if fused:
        own_name: str = extra.get("fusion", "")
        if not own_name or manifest_name(own_name, "head") != adapter.manifest.name:
            own_name = ",".join(fused[0].adapters) or str(top["name"])
        names = {"name": own_name, "adapter_names": list(fused[0].adapters)}
        found[FUSION_CONFIG] = {**top, **names, "config": fusion.encode(fused[0], source)}
    if others:
        found[CONFIG] = {**top, "config": configs.encode(others, source)}
    if own:
        wrote = dataclasses.replace(source, version=versions.get(HEAD_CONFIG))
        labels, wanted = adapter.manifest.labels, extra.get("fixed_head", "")
        found[HEAD_CONFIG] = top | heads.encode(own[0], labels, adapter.tensors, wanted, wrote)
        head_name: str = extra.get("head_name", "")
        if head_name and manifest_name(head_name, "head") == adapter.manifest.name:
            found[HEAD_CONFIG]["name"] = head_name
    return found


def _tensors(
    adapter: Adapter, row: Architecture, found: Mapping[str, Mapping[str, JSON]], extra: Mapping[str, JSON]
) -> dict[str, dict[str, torch.Tensor]]:
    """Return the groups of tensors with foreign keys."""
    groups = {}
    if FUSION_CONFIG in found:
        names = Naming(found[FUSION_CONFIG]["name"], extra.get("prefix", _usual_prefix(row)))
        groups["fusion"] = keys.encode(adapter.tensors, _parts(adapter.config), row, names)
    if CONFIG in found:
        container = next((box for box in CONTAINERS if box.feed_forward == extra.get("container")), CONTAINERS[0])
        prefix, copies = extra.get("prefix", _usual_prefix(row)), extra.get("copies")
        names = Naming(found[CONFIG]["name"], prefix, container, copies)
        groups["adapter"] = keys.encode(adapter.tensors, _parts(adapter.config), row, names)
    if HEAD_CONFIG in found:
        config = next(part for part in adapter.config if is_head(part))
        absent = extra.get("head_absent", [])
        groups["head"] = heads.written(config, adapter.tensors, found[HEAD_CONFIG], absent, row)
        own = groups.get("adapter", {})
        copies = [key.replace("{name}", found[CONFIG]["name"]) for key in extra.get("head_copies", []) if own]
        groups["head"] |= {key: own[key] for key in copies if key in own}
    return groups


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
    rest |= origin(manifest.provenance, NAME)
    if not rest:
        return parts
    home, document = next(iter(parts.documents.items()))
    return Parts({**parts.documents, home: {**document, OURS: rest}}, parts.tensors)
