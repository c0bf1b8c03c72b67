"""Rows of architectures as JSON, read by the types of their fields."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import SchemaError
from .architecture import Architecture

_WORDS = {bool: "true or false", int: "a number", float: "a number with a point", str: "a text"}


def to_json(row: Architecture) -> dict[str, Any]:
    """Return a row as a JSON object; from_json(to_json(row)) == row."""
    data: dict[str, Any] = _lists(dataclasses.asdict(row))
    return data


def from_json(data: dict[str, Any]) -> Architecture:
    """Return the row that a JSON object describes.

    Raises:
        SchemaError: a field is missing, unknown, or has the wrong type; every fault is listed.
    """
    faults: list[str] = []
    row: Architecture | None = _record(Architecture, data, "architecture", faults)
    if row is None:
        raise SchemaError("the description of the architecture", faults)
    return row


def _record(cls: Any, data: Any, path: str, faults: list[str]) -> Any:
    """Return a record of type cls made from data, or None with what is wrong put into faults."""
    if not isinstance(data, dict):
        faults.append(f"{path}: expected an object")
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    before = len(faults)
    faults += [f"{path}.{name}: unknown field" for name in sorted(set(data) - set(fields))]
    values = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{path}.{name}", faults)
        elif f.default is dataclasses.MISSING:
            faults.append(f"{path}.{name}: missing")
    return cls(**values) if len(faults) == before else None


def _value(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """Return a value of the type that hint names, made from JSON."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else _value(args[0], value, path, faults)
    if origin is tuple:
        return _tuple(args, value, path, faults)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, path, faults)
    if origin is Literal:
        if value not in args:
            faults.append(f"{path}: expected one of {', '.join(args)}")
    elif type(value) is not hint:
        faults.append(f"{path}: expected {_WORDS[hint]}")
    return value


def _tuple(args: tuple[Any, ...], value: Any, path: str, faults: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        faults.append(f"{path}: expected a list")
        return ()
    fixed = args[-1] is not Ellipsis
    if fixed and len(value) != len(args):
        faults.append(f"{path}: expected {len(args)} items")
        return ()
    hints = args if fixed else (args[0],) * len(value)
    return tuple(
        _value(hint, item, f"{path}[{i}]", faults) for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
