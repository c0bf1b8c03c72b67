"""What the document and the tensors of a folder of PEFT mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UsageError
from .. import accounting
from . import (
    along,
    documents,
    families,
    keys,
    prompts,
    targets,
    tying,
    types,
)
from .codec import Codec, Places
from .documents import CONFIG
from .families import Naming, naming
from .prompts import PromptCodec

if TYPE_CHECKING:
    import torch


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return key → shape."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """What a document and its tensors mean, before it is known how the document was spelled."""

    config: tuple[MethodConfig, ...]
    tensors: Mapping[str, torch.Tensor]
    names: Naming
    kept: Mapping[str, JSON]


def read(document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture | None) -> Read:
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
    places = Places(names.row, theirs, shapes_of(own | shared), partial(targets.words, names.row, named=named))
    config = _config(codec, fields, places)
    beside = along.decode(found.saved, document, names, set(theirs.values()))
    own = codec.read(config, own | shared)
    configs = (config, *beside.configs)
    faults += beside.faults + accounting.faults(configs, own | beside.tensors, names.row)
    if faults:
        raise FormatError(
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=documents.AGAIN
        )
    return Read(configs, own | beside.tensors, names, _kept(names, found, beside))


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
            hint=documents.AGAIN,
        )


def _read_prompt(
    codec: PromptCodec, document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture | None
) -> Read:
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
            "the files of the adapter do not belong together", faults=accounting.shown(faults), hint=documents.AGAIN
        )
    return Read(configs, own | beside.tensors, names, _kept(names, keys.Split(), beside))


def _config(codec: Codec, fields: Mapping[str, JSON], places: Places) -> MethodConfig:
    try:
        return codec.decode(fields, places)
    except UsageError as error:
        raise FormatError(f"{CONFIG}: {error.message}", hint=documents.AGAIN) from None


def _kept(names: Naming, found: keys.Split, beside: along.Along) -> dict[str, JSON]:
    """Return what is to be remembered of the names in a file."""
    extra: dict[str, JSON] = {"prefix": names.prefix}
    extra |= {"former": True} if names.former else {}
    extra |= {"older": True} if names.older else {}
    extra |= {"aliases": sorted(found.aliased)} if found.aliased else {}
    return extra | ({"unread": along.unread_json(beside.unread)} if beside.unread else {})
