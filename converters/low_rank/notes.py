"""The note: what an adapter says that a format has no word for, kept where the format's own library does not look.

A note is an object with fields of the manifest and, where the files say it in other words, the configuration. It is
believed only if the files are what writing it would give; a file that was changed since has lost its note.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ... import schemas
from ...adapter import JSON, Adapter, Base, Manifest, MethodConfig, from_json, to_json
from ...errors import FormatError, SchemaError, UnsupportedError, UsageError
from ...methods import configs_from_json

if TYPE_CHECKING:
    from .updates import Tensors

KEY = "adapterhub"
"""What a note is called in the metadata of a file, or in the document of a folder."""

_OWN = ("provenance", "extra", "name")
"""Fields of a manifest that reading makes itself."""


def note(adapter: Adapter, found: Adapter, source: str) -> dict[str, JSON] | None:
    """Return what is to be noted, None where the files say everything.

    Args:
        adapter: what is written.
        found: what reading the files without a note gives.
        source: name of the format; an adapter that came from it needs no name.
    """
    mine, theirs = adapter.manifest, found.manifest
    differ = [
        field.name
        for field in dataclasses.fields(Manifest)
        if field.name not in _OWN and getattr(mine, field.name) != getattr(theirs, field.name)
    ]
    comes_back = "prefix" in mine.extra.get(source, {})
    if comes_back and "base" in differ and _same_base(mine.base, theirs.base):
        differ.remove("base")
    rest: dict[str, JSON] = {name: to_json(getattr(mine, name)) for name in differ}
    config = [part.to_json() for part in adapter.config]
    rest |= {"config": config} if config != [part.to_json() for part in found.config] else {}
    if comes_back and not rest and mine.extra.keys() == {source}:
        return None
    rest |= {} if comes_back else {"base": to_json(mine.base)}
    extra = {"extra": to_json(mine.extra)} if mine.extra else {}
    return {**rest, **extra, "name": mine.name}


def noted(
    found: Adapter,
    said: JSON,
    narrowed: Callable[[tuple[MethodConfig, ...]], Tensors],
    belongs: Callable[[Adapter], bool],
) -> Adapter:
    """Return an adapter with what a note says, or as it is where the note does not belong to the files.

    Args:
        found: what reading the files without the note gives.
        said: the note.
        narrowed: a configuration → the tensors as it has them.
        belongs: whether writing an adapter gives these files.

    Raises:
        FormatError: the note is no object.
    """
    if not isinstance(said, dict):
        raise FormatError(f"the note {KEY!r} is no JSON object", hint="take it out of the file")
    own = {key: value for key, value in to_json(found.manifest).items() if key != "extra"}
    try:
        config = configs_from_json(said["config"]) if "config" in said else found.config
        fields = {key: value for key, value in said.items() if key != "config"}
        data = {**own, **fields, "provenance": to_json(found.manifest.provenance)}
        schemas.check({**data, "format": 1, "config": [part.to_json() for part in config]}, "manifest")
        candidate = Adapter(config, narrowed(config), from_json(Manifest, data))
        return candidate if belongs(candidate) else found
    except (SchemaError, FormatError, UsageError, UnsupportedError, AttributeError, TypeError):
        return found


def _same_base(mine: Base, theirs: Base) -> bool:
    """Return whether two bases are one, but that the family is decided in one of them."""
    decided = mine.architecture in (theirs.architecture, *theirs.others)
    return decided and dataclasses.replace(mine, others=theirs.others, architecture=theirs.architecture) == theirs


def row_name(said: JSON) -> str:
    """Return the family that a note names, "" where it names none."""
    base = said.get("base") if isinstance(said, Mapping) else None
    name = base.get("architecture") if isinstance(base, Mapping) else None
    return name if isinstance(name, str) else ""
