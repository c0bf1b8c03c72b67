"""Folders of PEFT: adapter_config.json with adapter_model.safetensors or adapter_model.bin.

The rules are one codec per type (codec.py tells the contract, types.py lists them), families.py and keys.py (names of
tensors), targets.py (where the adapter stands), along.py and heads.py (what is saved beside it) and documents.py;
reading.py and writing.py put them together, this file these two and the note. How a source spelled its document stays
in `manifest.extra["peft"]` and is written back; what PEFT has no word for is the note in the metadata of the weights,
where PEFT does not look.

Source: PEFT 0.21.2, utils/save_and_load.py, config.py and peft_model.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ... import schemas
from ...adapter import JSON, Adapter, Base, Manifest, MethodConfig, from_json, to_json
from ...architectures import ARCHITECTURES, Architecture, by_name
from ...errors import FormatError, SchemaError, UnsupportedError, UsageError
from ...methods import configs_from_json
from .. import accounting
from ..format import Format, Parts
from ..identity import origin
from ..options import told
from ..spelling import kept, respelled, restored
from ..values import check_usable, identical
from . import bottleneck, changes, documents, equal, folder, keys, prompts, releases, types
from .documents import CONFIG, NAME, NOTE
from .folder import GROUP
from .prompts import PromptCodec
from .reading import read, shapes_of
from .writing import extra_of, names_of, written

if TYPE_CHECKING:
    import torch


def decode(parts: Parts) -> Adapter:
    """Return the adapter that the files of a folder describe.

    Raises:
        FormatError: the document or the account of the tensors is wrong; every fault is listed.
        UnsupportedError: the type, one of its options or the model family is not one that this version runs.
    """
    document = parts.documents[CONFIG]
    types.codec_of(documents.kind(document))  # refuses types that are not read, whatever their tensors are like
    check_usable(parts.tensors, f"the weights of {parts.name or 'the adapter'}")
    found = read(document, parts.tensors[GROUP], parts.row or _noted_row(parts))
    bare = documents.manifest(document, found.names, parts.name, parts.digest, found.kept)
    built, _ = written(Adapter(found.config, found.tensors, bare), found.names)
    spelling = kept(document, built)
    extra = {**found.kept, **({CONFIG: spelling} if spelling else {})}
    manifest = documents.manifest(document, found.names, parts.name, parts.digest, extra)
    adapter = Adapter(found.config, found.tensors, manifest)
    return adapter if NOTE not in parts.documents else _noted(adapter, parts)


def encode(adapter: Adapter) -> Parts:
    """Return what the files of a folder hold for an adapter: in its source's spelling, or that of PEFT 0.21.2.

    Raises:
        UnsupportedError: PEFT has no type for what the adapter computes, with every reason.
        FormatError: the adapter's tensors are not those of its configuration.
    """
    release, adapter = releases.taken(adapter)
    row = by_name(adapter.manifest.base.architecture)
    faults = accounting.faults(adapter.config, adapter.tensors, row)
    if faults:
        raise FormatError(f"adapter {adapter.manifest.name!r} is not whole", faults=faults)
    came = adapter.manifest.provenance
    if row.muted and came is not None and came.format == "adapters":
        raise UnsupportedError(
            f"the library of the adapters format took modules out of the {row.name} model, which PEFT leaves in",
            hint="write it in the native format",
        )
    names = names_of(adapter, row)
    if release is not None:
        releases.check_type(types.parted(adapter.config)[2].type, release)
        names = dataclasses.replace(names, former=release < changes.FORMER_NAMES or names.former)
    built, tensors = written(adapter, names)
    extra = extra_of(adapter.manifest)

    def meaning(document: Mapping[str, JSON]) -> dict[str, JSON]:
        try:
            found = read(document, tensors, row)
        except (FormatError, UnsupportedError):
            return {}
        base = documents.base(document, found.names)
        return _meaning(found.config, base.id, base.revision, found.names.prefix)

    base, spelling = adapter.manifest.base, extra.get(CONFIG, {})
    document = respelled(built, spelling)
    if meaning(document) != _meaning(adapter.config, base.id, base.revision, names.prefix):
        document = restored(built, spelling, meaning)
    if release is not None:
        document = releases.older(_facts(adapter, document, tensors, row), release)
    return _with_note(adapter, Parts({CONFIG: document}, {GROUP: tensors}), release)


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
    options=releases.OPTIONS,
)


def _facts(
    adapter: Adapter, document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture
) -> changes.Facts:
    """Return what the history of PEFT is asked with."""
    codec = types.codec_of(documents.kind(document))
    paths = set() if isinstance(codec, PromptCodec) else {path for path, _ in keys.split(tensors, codec).own}
    layout = accounting.layout(adapter.config, shapes_of(adapter.tensors), row)
    linears = [layout.linear.get(key.rpartition(".")[0]) for key in adapter.tensors]
    kinds = {linear.kind for linear in linears if linear is not None}
    return changes.Facts(document=document, paths=paths, family=row.name, kinds=kinds)


def _meaning(config: tuple[MethodConfig, ...], base: str, revision: str | None, prefix: str) -> dict[str, JSON]:
    """Return what a document says, as JSON values."""
    return {"config": [part.to_json() for part in config], "base": base, "revision": revision, "prefix": prefix}


def _with_note(adapter: Adapter, parts: Parts, release: changes.Release | None) -> Parts:
    """Return parts with what their reader would not find in them as a note; release: for which they are written."""
    # Files of one tensor say nothing of the family; what others say is told from what they do not.
    alone = prompts.KEY in parts.tensors[GROUP]
    found = decode(dataclasses.replace(parts, row=by_name(adapter.manifest.base.architecture) if alone else None))
    mine, theirs = adapter.manifest, found.manifest
    differ = [
        field.name
        for field in dataclasses.fields(Manifest)
        if field.name not in ("provenance", "extra", "name")
        and getattr(mine, field.name) != getattr(theirs, field.name)
    ]
    from_peft = "prefix" in extra_of(mine)
    came = origin(mine.provenance, NAME)
    if from_peft and "base" in differ and _same_base(mine.base, theirs.base):
        differ.remove("base")
    rest: dict[str, JSON] = {name: to_json(getattr(mine, name)) for name in differ}
    config = [part.to_json() for part in adapter.config]
    rest |= {"config": config} if config != [part.to_json() for part in found.config] else {}
    if from_peft and not rest and not came and mine.extra.keys() == {NAME}:
        return parts
    rest |= came
    rest |= {} if from_peft else {"base": to_json(mine.base)}
    rest |= {} if release is None else {releases.NAME: releases.text(release)}
    extra = {"extra": to_json(mine.extra)} if mine.extra else {}
    return Parts({**parts.documents, NOTE: {**rest, **extra, "name": mine.name}}, parts.tensors)


def _same_base(mine: Base, theirs: Base) -> bool:
    """Return whether two bases are one, but that the family is decided in one of them."""
    decided = mine.architecture in (theirs.architecture, *theirs.others)
    return decided and dataclasses.replace(mine, others=theirs.others, architecture=theirs.architecture) == theirs


def _noted_row(parts: Parts) -> Architecture | None:
    """Return the family that a note or the document names, None where they name none that is known."""
    note = parts.documents.get(NOTE)
    base = note.get("base") if isinstance(note, dict) else None
    said = bottleneck.architecture(parts.documents[CONFIG])
    name = base.get("architecture") if isinstance(base, dict) else said
    return next((row for row in ARCHITECTURES if row.name == name), None)


def _noted(adapter: Adapter, parts: Parts) -> Adapter:
    """Return an adapter with what a note says, if the note belongs to the rest of the files.

    Raises:
        FormatError: the note is no note.
    """
    note = parts.documents[NOTE]
    if not isinstance(note, dict):
        raise FormatError(f"the note {NOTE!r} in the metadata of the weights is no JSON object")
    said = {key: value for key, value in note.items() if key not in ("config", releases.NAME)}
    plain = {key: value for key, value in to_json(adapter.manifest).items() if key != "extra"}
    try:
        config = configs_from_json(note["config"]) if "config" in note else adapter.config
        data = {**plain, **said}
        schemas.check({**data, "format": 1, "config": [part.to_json() for part in config]}, "manifest")
        manifest = from_json(Manifest, data)
        candidate = Adapter(config, _narrowed(adapter, config), manifest)
        release = note.get(releases.NAME)
        again = encode(told(candidate, documents.NAME, {} if release is None else {releases.NAME: release}))
    except (SchemaError, FormatError, UsageError, UnsupportedError, AttributeError, TypeError):
        return adapter
    return candidate if _equal(again, parts) else adapter


def _narrowed(adapter: Adapter, config: tuple[MethodConfig, ...]) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter as another configuration of the same meaning has them."""
    layout = accounting.layout(adapter.config, shapes_of(adapter.tensors), by_name(adapter.manifest.base.architecture))
    main, _, codec = types.parted(config)
    if isinstance(codec, PromptCodec):
        return dict(adapter.tensors)
    return codec.narrowed(main, dict(adapter.tensors), layout)


def _equal(a: Parts, b: Parts) -> bool:
    """Return whether two parts hold the same."""
    ours, theirs = a.tensors[GROUP], b.tensors[GROUP]
    return (
        dict(a.documents) == dict(b.documents)
        and ours.keys() == theirs.keys()
        and all(identical(t, theirs[key]) for key, t in ours.items())
    )
