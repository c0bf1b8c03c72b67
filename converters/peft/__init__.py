"""Folders of PEFT: adapter_config.json with adapter_model.safetensors or adapter_model.bin.

The rules are one codec per type (codec.py tells the contract, types.py lists them), families.py and keys.py (names of
tensors), targets.py (where the adapter stands), along.py and heads.py (what is saved beside it) and documents.py; this
file puts them together. How a source spelled its document stays in `manifest.extra["peft"]` and is written back; what
PEFT has no word for goes into the metadata of the weights, where PEFT does not look.

Source: PEFT 0.21.2, utils/save_and_load.py, config.py and peft_model.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ... import schemas
from ...adapter import JSON, Adapter, Base, Manifest, MethodConfig, from_json, to_json
from ...architectures import ARCHITECTURES, Architecture, by_name
from ...errors import FormatError, SchemaError, UnsupportedError, UsageError
from ...methods import configs_from_json, is_head, shapes
from ...sites import Layout
from .. import accounting
from ..format import Format, Parts
from ..identity import origin
from ..options import told
from ..spelling import kept, respelled, restored
from ..values import check_usable, identical
from . import (
    along,
    bottleneck,
    changes,
    documents,
    equal,
    families,
    folder,
    heads,
    keys,
    prompts,
    releases,
    targets,
    tying,
    types,
)
from .codec import Codec, Places
from .documents import CONFIG, NAME, NOTE
from .families import Naming, naming, outer_words
from .folder import GROUP
from .prompts import PromptCodec

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True, slots=True)
class _Read:
    """What a document and its tensors mean, before it is known how the document was spelled."""

    config: tuple[MethodConfig, ...]
    tensors: Mapping[str, torch.Tensor]
    names: Naming
    kept: Mapping[str, JSON]


def decode(parts: Parts) -> Adapter:
    """Return the adapter that the files of a folder describe.

    Raises:
        FormatError: the document or the account of the tensors is wrong; every fault is listed.
        UnsupportedError: the type, one of its options or the model family is not one that this version runs.
    """
    document = parts.documents[CONFIG]
    types.codec_of(documents.kind(document))  # refuses types that are not read, whatever their tensors are like
    check_usable(parts.tensors, f"the weights of {parts.name or 'the adapter'}")
    found = _read(document, parts.tensors[GROUP], parts.row or _noted_row(parts))
    bare = documents.manifest(document, found.names, parts.name, parts.digest, found.kept)
    built, _ = _written(Adapter(found.config, found.tensors, bare), found.names)
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
    names = _names(adapter, row)
    if release is not None:
        releases.check_type(types.parted(adapter.config)[2].type, release)
        names = dataclasses.replace(names, former=release < changes.FORMER_NAMES or names.former)
    built, tensors = _written(adapter, names)
    extra = _extra(adapter.manifest)

    def meaning(document: Mapping[str, JSON]) -> dict[str, JSON]:
        try:
            read = _read(document, tensors, row)
        except (FormatError, UnsupportedError):
            return {}
        base = documents.base(document, read.names)
        return _meaning(read.config, base.id, base.revision, read.names.prefix)

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

_AGAIN = "fetch the adapter again, or save it again with PEFT"


def _facts(
    adapter: Adapter, document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture
) -> changes.Facts:
    """Return what the history of PEFT is asked with."""
    codec = types.codec_of(documents.kind(document))
    paths = set() if isinstance(codec, PromptCodec) else {path for path, _ in keys.split(tensors, codec).own}
    layout = accounting.layout(adapter.config, _shapes(adapter.tensors), row)
    linears = [layout.linear.get(key.rpartition(".")[0]) for key in adapter.tensors]
    kinds = {linear.kind for linear in linears if linear is not None}
    return changes.Facts(document=document, paths=paths, family=row.name, kinds=kinds)


def _meaning(config: tuple[MethodConfig, ...], base: str, revision: str | None, prefix: str) -> dict[str, JSON]:
    """Return what a document says, as JSON values."""
    return {"config": [part.to_json() for part in config], "base": base, "revision": revision, "prefix": prefix}


def _read(document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture | None) -> _Read:
    """Return what a document and its tensors mean."""
    codec = types.codec_of(documents.kind(document))
    fields = documents.fields(document, codec)
    if isinstance(codec, PromptCodec):
        return _read_prompt(codec, fields, tensors, row)
    found = keys.split(tensors, codec)
    if not found.own:
        raise FormatError(
            f"the weights hold no tensor of a {codec.type}", faults=found.faults[:5], hint="fetch the adapter again"
        )
    names = naming(found.paths, document, row)
    _check_paths(found.paths, names)
    theirs = {names.ours(path): path for path, _ in found.own}
    own = {f"{names.ours(path)}.{leaf}": tensor for (path, leaf), tensor in found.own.items()}
    faults = found.faults + targets.faults(document, names, list(theirs.values()))
    faults += tying.faults(document, found, names)
    shared = {f"shared.{name}": tensor for name, tensor in found.shared.items()}
    named = targets.naming_by(document, names)
    places = Places(names.row, theirs, _shapes(own | shared), partial(targets.words, names.row, named=named))
    config = _config(codec, fields, places)
    beside = along.decode(found.saved, document, names, set(theirs.values()))
    own = codec.read(config, own | shared)
    configs = (config, *beside.configs)
    faults += beside.faults + accounting.faults(configs, own | beside.tensors, names.row)
    if faults:
        raise FormatError(
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=_AGAIN
        )
    return _Read(configs, own | beside.tensors, names, _kept(names, found, beside))


def _check_paths(paths: Iterable[str], names: Naming) -> None:
    """Refuse module paths that are written otherwise than the rest.

    Raises:
        FormatError: names every such path.
    """
    odd = [path for path in paths if names.theirs(names.ours(path)) != path]
    if odd:
        raise FormatError(
            "the keys are not all of one model",
            faults=accounting.shown(
                [f"module {path!r} is not where {names.theirs(names.ours(path))!r} is" for path in odd]
            ),
            hint=_AGAIN,
        )


def _read_prompt(
    codec: PromptCodec, document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture | None
) -> _Read:
    """Return what a document and its one tensor mean."""
    names = families.told(document, row)
    faults = [f"key {key!r} is none of a {codec.type} of PEFT" for key in tensors if not key.startswith(keys.SHARED)]
    if prompts.KEY not in tensors:
        raise FormatError(f"the weights hold no {prompts.KEY}", faults=faults[:5], hint="fetch the adapter again")
    faults.remove(f"key {prompts.KEY!r} is none of a {codec.type} of PEFT")
    config, own = codec.decode(document, tensors[prompts.KEY], names.row)
    saved = {key.removeprefix(keys.SHARED): t for key, t in tensors.items() if key.startswith(keys.SHARED)}
    beside = along.decode(saved, document, names, ())
    configs = (config, *beside.configs)
    faults += beside.faults + accounting.faults(configs, own | beside.tensors, names.row)
    if faults:
        raise FormatError(
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=_AGAIN
        )
    return _Read(configs, own | beside.tensors, names, _kept(names, keys.Split(), beside))


def _config(codec: Codec, fields: Mapping[str, JSON], places: Places) -> MethodConfig:
    try:
        return codec.decode(fields, places)
    except UsageError as error:
        raise FormatError(f"{CONFIG}: {error.message}", hint=_AGAIN) from None


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _kept(names: Naming, found: keys.Split, beside: along.Along) -> dict[str, JSON]:
    """Return what is to be remembered of the names in a file."""
    extra: dict[str, JSON] = {"prefix": names.prefix}
    extra |= {"former": True} if names.former else {}
    extra |= {"older": True} if names.older else {}
    extra |= {"aliases": sorted(found.aliased)} if found.aliased else {}
    return extra | ({"unread": along.unread_json(beside.unread)} if beside.unread else {})


def _extra(manifest: Manifest) -> Mapping[str, JSON]:
    """Return what a manifest keeps of the spelling of its source.

    Raises:
        FormatError: it is not what this module puts there.
    """
    extra = manifest.extra.get(NAME, {})
    shaped = isinstance(extra, dict) and isinstance(extra.get("prefix", ""), str)
    spelling = extra.get(CONFIG, {}) if shaped else None
    if not isinstance(spelling, dict) or not isinstance(spelling.get("set", {}), dict):
        raise FormatError(
            f"extra[{NAME!r}] of adapter {manifest.name!r} is not what reading such a folder leaves there",
            hint="take it out of the manifest; the adapter is then written in the current spelling",
        )
    found: Mapping[str, JSON] = extra
    return found


def _names(adapter: Adapter, row: Architecture) -> Naming:
    """Return how module paths are written for the class that an adapter is written for."""
    extra = _extra(adapter.manifest)
    if "prefix" in extra:
        former, older = (extra.get(name) is True for name in ("former", "older"))
        return Naming(row, extra["prefix"], former, outer=outer_words(row), older=older)
    return Naming(row, _wrapping(adapter, row)[0], outer=outer_words(row))


def _wrapping(adapter: Adapter, row: Architecture) -> tuple[str, str | None]:
    around = {key.partition(".")[0] for key in adapter.tensors} & outer_words(row)
    head = next((heads.encode(config, adapter.tensors, row) for config in adapter.config if is_head(config)), None)
    return documents.wrapping(adapter.manifest, row, head=head[0] if head else None, around=around)


def _written(adapter: Adapter, names: Naming) -> tuple[dict[str, JSON], dict[str, torch.Tensor]]:
    """Return document and tensors in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    layout = accounting.layout(adapter.config, _shapes(adapter.tensors), names.row)
    try:
        main, others, codec = types.parted(adapter.config)
    except UnsupportedError as error:
        raise _also(error, _alone(adapter, names, layout)) from None
    if isinstance(codec, PromptCodec):
        beside = along.encode(others, adapter.tensors, names, ())
        try:
            fields, tensor = codec.encode(main, adapter.tensors, layout)
        except UnsupportedError as error:
            raise _also(error, beside.faults) from None
        _refuse(beside.faults)
        document = documents.written(adapter.manifest, codec, _task(adapter, names), {**fields, **beside.fields})
        saved = {f"{keys.SHARED}{key}": tensor for key, tensor in beside.tensors.items()}
        return document, {prompts.KEY: tensor} | saved
    reasons = codec.beyond(main, layout)
    if reasons:
        refused = UnsupportedError(
            f"PEFT cannot say this {main.method}: {'; '.join(reasons)}", hint="write it in the native format"
        )
        raise _also(refused, along.encode(others, adapter.tensors, names, ()).faults)
    mine = shapes((main,), layout)
    tensors = codec.write(main, {key: adapter.tensors[key] for key in mine}, layout)
    split = keys.Split()
    theirs = {}
    for key, tensor in tensors.items():
        path, leaf = types.placed(codec, key)
        if path == "shared" and leaf in codec.shared.values():  # T5 has a module of that name
            split.shared[leaf] = tensor
            continue
        theirs[path] = names.theirs(path)
        split.own[theirs[path], leaf] = tensor
    places = Places(names.row, theirs, _shapes(tensors))
    beside = along.encode(others, adapter.tensors, names, set(theirs))
    _refuse(beside.faults)
    extra = _extra(adapter.manifest)
    split.saved = {**beside.tensors, **along.unread_tensors(extra.get("unread", {}))}
    split.aliased = set(extra.get("aliases", []))
    fields = {"target_modules": sorted(theirs.values()), **codec.encode(main, places, layout), **beside.fields}
    document = documents.written(adapter.manifest, codec, _task(adapter, names), fields)
    return document, keys.joined(split, codec)


def _alone(adapter: Adapter, names: Naming, layout: Layout) -> list[str]:
    """Return why PEFT cannot say parts of a union even alone, one phrase each."""
    if len(adapter.config) < 2:
        return []
    reasons = []
    for config in adapter.config:
        mine = {key: tensor for key, tensor in adapter.tensors.items() if key in shapes((config,), layout)}
        try:
            _written(dataclasses.replace(adapter, config=(config,), tensors=mine), names)
        except UnsupportedError as error:
            reasons += [] if is_head(config) else [error.message]
    return reasons


def _task(adapter: Adapter, names: Naming) -> str | None:
    return _wrapping(adapter, names.row)[1]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise UnsupportedError(
            f"PEFT cannot say this adapter: {'; '.join(faults)}", hint="write it in the native format"
        )


def _also(error: UnsupportedError, faults: Sequence[str]) -> UnsupportedError:
    """Return an error with further reasons."""
    return UnsupportedError("; ".join([error.message, *faults]), hint=error.hint)


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
    from_peft = "prefix" in _extra(mine)
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
    layout = accounting.layout(adapter.config, _shapes(adapter.tensors), by_name(adapter.manifest.base.architecture))
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
