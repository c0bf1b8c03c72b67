"""The document and the tensors of a folder of PEFT for an adapter, in the spelling of PEFT 0.21.2."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...adapter import JSON, Adapter, Manifest
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import is_head, shapes
from ...sites import Layout
from .. import accounting
from . import (
    along,
    documents,
    heads,
    keys,
    prompts,
    types,
)
from .codec import Places
from .documents import CONFIG, NAME
from .families import Naming, outer_words
from .prompts import PromptCodec
from .reading import shapes_of

if TYPE_CHECKING:
    import torch


def extra_of(manifest: Manifest) -> Mapping[str, JSON]:
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


def names_of(adapter: Adapter, row: Architecture) -> Naming:
    """Return how module paths are written for the class that an adapter is written for."""
    extra = extra_of(adapter.manifest)
    if "prefix" in extra:
        former, older = (extra.get(name) is True for name in ("former", "older"))
        return Naming(row, extra["prefix"], former, outer=outer_words(row), older=older)
    return Naming(row, _wrapping(adapter, row)[0], outer=outer_words(row))


def _wrapping(adapter: Adapter, row: Architecture) -> tuple[str, str | None]:
    around = {key.partition(".")[0] for key in adapter.tensors} & outer_words(row)
    head = next((heads.encode(config, adapter.tensors, row) for config in adapter.config if is_head(config)), None)
    return documents.wrapping(adapter.manifest, row, head=head[0] if head else None, around=around)


def written(adapter: Adapter, names: Naming) -> tuple[dict[str, JSON], dict[str, torch.Tensor]]:
    """Return document and tensors in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    layout = accounting.layout(adapter.config, shapes_of(adapter.tensors), names.row)
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
    places = Places(names.row, theirs, shapes_of(tensors))
    beside = along.encode(others, adapter.tensors, names, set(theirs))
    _refuse(beside.faults)
    extra = extra_of(adapter.manifest)
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
            written(dataclasses.replace(adapter, config=(config,), tensors=mine), names)
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
