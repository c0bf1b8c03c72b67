"""The JSON Schemas (2020-12) of what adapterhub reads and writes, and what checks documents against them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import SchemaError, UsageError
from .checker import is_integer, is_number
from .strict import canonical, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NAMES", "canonical", "check", "dumps", "is_integer", "is_number", "load", "loads", "mark", "state"]

JSON: TypeAlias = Any

NAMES = ("composition", "index", "lock", "manifest", "snapshot")
"""The schemas there are; each lies in `<name>.schema.json`."""


def load(name: str) -> JSON:
    """Return a schema by its name.

    Raises:
        UsageError: there is no such schema.
    """
    if name not in NAMES:
        raise UsageError(f"there is no schema {name!r}", hint=f"there are {', '.join(NAMES)}")
    return loads(Path(__file__).with_name(f"{name}.schema.json").read_bytes(), f"{name}.schema.json")


def check(document: JSON, name: str, what: str = "", *, part: str = "") -> None:
    """Return where document fits the schema called name; `what` names the document in the error.

    With part, the document is to fit that definition of the schema (one of its `$defs`) alone.

    Raises:
        SchemaError: lists every fault, each with its path.
        UsageError: there is no such schema.
    """
    try:
        if _checker(name, part)(document):
            return
        from . import faults

        found = faults.find(document, _schema(name, part), _documents())
    except RecursionError as error:
        raise SchemaError(what or name, ["it is nested too deeply"]) from error
    if found:
        raise SchemaError(what or name, found)


def mark(name: str) -> str:
    """Return a short text that is another one as soon as the schema called name changes; it costs next to nothing."""
    import zlib

    return f"{zlib.crc32(Path(__file__).with_name(f'{name}.schema.json').read_bytes()):08x}"


class _Documents(dict[str, JSON]):
    """Schemas by $id, each read when it is first referred to."""

    def __missing__(self, identifier: str) -> JSON:
        self[identifier] = load(identifier.split(":")[3])
        return self[identifier]


@functools.cache
def state() -> str:
    """Return the digest of all schemas: whatever was valid against them is so while it stays the same."""
    import hashlib

    return f"sha256:{hashlib.sha256(canonical(_documents())).hexdigest()}"


@functools.cache
def _documents() -> Mapping[str, JSON]:
    """Return all schemas by $id."""
    return {schema["$id"]: schema for schema in map(load, NAMES)}


@functools.cache
def _checker(name: str, part: str) -> Callable[[JSON], bool]:
    from . import checker

    return checker.compiled(_schema(name, part), _Documents())


def _schema(name: str, part: str) -> JSON:
    schema = load(name)
    return {"$ref": f"{schema['$id']}#/$defs/{part}"} if part else schema
