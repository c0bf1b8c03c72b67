"""How configurations of methods become JSON and are read again, with every fault named."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import UsageError

C = TypeVar("C")


class Config:
    """Base of all configurations: JSON in and out, and a check of every field when a value is made."""

    __slots__ = ()
    method: ClassVar[str]
    sets: ClassVar[tuple[str, ...]] = ()
    """Fields of texts whose order and repetition say nothing; they are kept sorted, each once."""

    def __post_init__(self) -> None:
        """Check the fields, and sort those that are sets.

        Raises:
            UsageError: with every fault, named by field.
        """
        hints = field_types(type(self))
        faults = [
            f"{name} is {getattr(self, name)!r}, expected {_describe(hint)}"
            for name, hint in hints.items()
            if not _fits(getattr(self, name), hint)
        ]
        faults = faults or self.faults()
        if faults:
            raise UsageError(f"the {self.method} configuration cannot be used: {'; '.join(faults)}")
        for name in self.sets:
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each; types are right by now."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON, with every field, so that a later default cannot change its meaning."""
        fields = field_types(type(self))
        return {"method": self.method, **{name: _plain(getattr(self, name)) for name in fields}}


def config_from_json(cls: type[C], data: Mapping[str, Any]) -> C:
    """Return the configuration of class cls that a JSON object describes.

    Law: `config_from_json(type(c), c.to_json()) == c`.

    Raises:
        UsageError: a field is unknown, missing, or has a wrong value.
    """
    fields = field_types(cls)
    values = {name: value for name, value in data.items() if name != "method"}
    method = data.get("method", "?")
    unknown = sorted(set(values) - set(fields))
    required = {f.name for f in dataclasses.fields(cls) if _required(f)}  # type: ignore[arg-type]
    faults = [f"unknown field {name}" for name in unknown] + [
        f"field {name} is missing" for name in sorted(required - set(values))
    ]
    if faults:
        raise UsageError(
            f"the {method} configuration cannot be used: {'; '.join(faults)}",
            hint=f"its fields are {', '.join(fields)}",
        )
    return cls(**{name: _frozen(value) for name, value in values.items()})


_TYPES: dict[type, dict[str, Any]] = {}


def field_types(cls: type) -> dict[str, Any]:
    """Return field name → type of a configuration class, without class variables."""
    if cls not in _TYPES:
        hints = get_type_hints(cls)
        _TYPES[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _TYPES[cls]


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Return whether value is of the type that hint names; an int is a float, a bool is neither."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is not None:
        return isinstance(value, Mapping) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return _is_number(value)
    return type(value) is hint


def _is_number(value: Any) -> bool:
    """Return whether value is a float but nan, or a whole number that a float can be."""
    if isinstance(value, float):
        return value == value
    return type(value) is int and abs(value) <= sys.float_info.max


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"a list of {_describe(args[0])}"
    if origin is not None:
        return "an object"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}
    return names.get(hint, str(hint))
