"""Documents for an older release of PEFT: without the fields that it does not know, or refused with the fields' names.

releases.json tells with which minor release each type and each field came; tests/recipes/make_peft_releases.py makes it
from the released packages. What changed besides stands here.

A release that meets a field it does not know stops, or, in later ones, warns and leaves it out. So a field may be left
out that has its default; the others are named.

Sources: PEFT 0.3.0 to 0.21.2, the configurations and tuners/lora/model.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from ...adapter import JSON, Adapter
from ...errors import UnsupportedError, UsageError
from ..options import Option
from ..spelling import same
from . import changes, documents, types
from .changes import FIRST, Facts, Release
from .pattern import Ends
from .prompts import PromptCodec
from .targets import ALL

NAME = "peft_version"
OPTIONS: Mapping[str, Option] = {
    NAME: Option("the release of PEFT that is to read what is written, such as 0.9", reads=False, writes=True)
}

WHOLE_PATHS = (0, 15)
"""The release since which a pattern may match a whole path; before, it had to begin behind a dot."""

ALL_LINEAR = (0, 8)
"""The release since which `target_modules` may be `all-linear`."""

START = "init_lora_weights"

LISTED = (0, 5)
"""The release since which a name in `target_modules` is the end of a path behind a dot, and not of any letters."""


def taken(adapter: Adapter) -> tuple[Release | None, Adapter]:
    """Return the release that an adapter is to be written for, None where none is named, and the adapter without it.

    Raises:
        UsageError: this version knows no such release.
    """
    own = adapter.manifest.extra.get(documents.NAME, {})
    options = own.get("options") if isinstance(own, dict) else None
    if not isinstance(options, dict) or NAME not in options:
        return None, adapter
    rest = {name: value for name, value in own.items() if name != "options"}
    others = {name: value for name, value in adapter.manifest.extra.items() if name != documents.NAME}
    manifest = replace(adapter.manifest, extra={**others, documents.NAME: rest} if rest else others)
    return _parsed(options[NAME]), replace(adapter, manifest=manifest)


def check_type(kind: str, number: Release) -> None:
    """Refuse a type that a release has not.

    Raises:
        UnsupportedError: it has not.
    """
    found = _table()["types"].get(kind)
    if found is None and number < _number(documents.WRITES):
        raise _refused([f"it has no type {kind}, which is that of a plug-in for a later one"], number)
    if found is not None and _number(found["since"]) > number:
        raise _refused([f"it has no type {kind}, which came with {found['since']}"], number)
    if number < FIRST:
        raise _refused(["it reads pickles only, and this version writes none"], number)


def older(facts: Facts, number: Release) -> dict[str, JSON]:
    """Return a document as a release reads it.

    Args:
        facts: what is to be written, in the spelling of today.
        number: the release.

    Raises:
        UnsupportedError: the release cannot say or read it, with every reason.
    """
    document, kind = facts.document, str(facts.document["peft_type"])
    check_type(kind, number)
    if number == _number(documents.WRITES):
        return dict(document)
    found = _with_targets({**documents.defaults()[kind], **document}, kind, number, facts.paths)
    reasons = [*_without(found, kind, number), *changes.reasons(facts, number)]
    if number < WHOLE_PATHS and kind != "ADALORA":
        reasons += _shorten(found, facts.paths)
    if reasons:
        raise _refused(reasons, number)
    return found


def _without(document: dict[str, JSON], kind: str, number: Release) -> list[str]:
    """Take out what a release does not know, and return why something of that cannot be missing."""
    usual, codec = documents.defaults()[kind], types.codec_of(kind)
    # Where the embeddings' weight is another module's too, that field says what of the file is read.
    idle = {NAME, *(() if isinstance(codec, PromptCodec) else codec.idle)} - {"ensure_weight_tying"}
    reasons = []
    for name in _unknown(document, kind, number):
        value = document.pop(name)
        if name not in idle and not same(value, usual.get(name)) and value not in documents.OFF:
            came = _table()["types"][kind]["fields"].get(name)
            since = f", which came with {came}," if came else ","
            reasons.append(f"it has no field {name}{since} and here it is {json.dumps(value)[:60]}")
    if isinstance(document.get(START), str):
        # Only training begins there, and a release stops at a word that is new to it.
        document[START] = True
    if NAME in document:
        document[NAME] = f"{text(number)}.0"
    return reasons


def _unknown(document: Mapping[str, JSON], kind: str, number: Release) -> list[str]:
    """Return the fields of a document that a release does not know."""
    usual, came = documents.defaults()[kind], _table()["types"][kind]["fields"]
    return [name for name in document if name not in usual or (name in came and _number(came[name]) > number)]


def _refused(reasons: list[str], number: Release) -> UnsupportedError:
    return UnsupportedError(
        f"PEFT {text(number)} cannot read this adapter: {'; '.join(reasons)}",
        hint="name a later release, or write it in the native format",
    )


def _with_targets(document: Mapping[str, JSON], kind: str, number: Release, paths: Collection[str]) -> dict[str, JSON]:
    """Return the document with the adapted modules listed, where the release cannot be told them otherwise."""
    found = dict(document)
    excludes = document.get("exclude_modules") and "exclude_modules" in _unknown(document, kind, number)
    named = document.get("target_modules")
    if paths and (excludes or (named == ALL and number < ALL_LINEAR) or (isinstance(named, list) and number < LISTED)):
        found |= {"target_modules": sorted(paths)}
        found |= {"exclude_modules": None} if excludes else {}
    return found


def _shorten(document: dict[str, JSON], paths: Collection[str]) -> list[str]:
    """Let patterns begin behind a dot, and return for which modules that cannot be."""
    reasons = []
    for name in ("rank_pattern", "alpha_pattern"):
        pattern: Any = document.get(name)
        if not pattern:
            continue
        now = Ends(pattern)
        wanted = {path: key for path in paths if (key := now.first(path)) is not None}
        tails = {path: path.partition(".")[2] for path in wanted}
        reasons += [
            f"its {name} cannot name {path}, which lies in no other module" for path in tails if not tails[path]
        ]
        document[name] = {tails[path]: pattern[key] for path, key in wanted.items()}
        then = Ends(document[name])
        values = {path: then.first(path.partition(".")[2]) for path in paths}
        reasons += [
            f"its {name} cannot tell {path} from another module"
            for path, key in values.items()
            if (None if key is None else document[name][key]) != (pattern[wanted[path]] if path in wanted else None)
        ]
    return reasons


def _parsed(release: JSON) -> Release:
    """Return the minor release that a text names.

    Raises:
        UsageError: there is none, or this version does not know it.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.\d{1,3})?", release) if isinstance(release, str) else None
    number = (int(found[1]), int(found[2])) if found else None
    if number is None or text(number) not in _table()["releases"]:
        known = _table()["releases"]
        raise UsageError(
            f"{NAME} is {release!r}, which is no release of PEFT that this version knows",
            hint=f"it knows {known[0]} to {known[-1]}",
        )
    return number


def _number(version: str) -> Release:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def text(number: Release) -> str:
    """Return a release as people write it."""
    return f"{number[0]}.{number[1]}"


@cache
def _table() -> Mapping[str, Any]:
    """Return the releases, and type → with which it and its later fields came."""
    found: Mapping[str, Any] = json.loads(
        files("adapterhub.converters.peft").joinpath("releases.json").read_text("utf-8")
    )
    return found
