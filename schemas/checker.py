"""From a JSON Schema to one function that says whether a value fits: the fast path of schemas.check.

Each keyword becomes a closure; a schema becomes one closure over those of its keywords. Only the keywords that our
schemas use are known; another one is an error when the schema is compiled, never ignored. Verdicts are those of
jsonschema with the settings of faults.py, which a property test holds; docs/adr/0006-schema-validation.md has the
measurements that led here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

JSON: TypeAlias = Any
Fits: TypeAlias = Callable[[JSON], bool]

_REMEMBERED = 1024
"""So many different texts are remembered for each definition."""


def compiled(schema: JSON, documents: Mapping[str, JSON]) -> Fits:
    """Return the function that says whether a value fits schema; documents are all schemas by $id.

    Raises:
        ValueError: the schema has a keyword that is not known here.

    >>> compiled({"type": "array", "items": {"type": "integer"}}, {})([1, 2, 3.0])
    False
    """
    return _Compiler(documents).schema(schema, str(schema.get("$id", "")))


def pattern(text: str) -> re.Pattern[str]:
    r"""Return a schema's pattern as Python reads it: `$` is the very end, as in ECMAScript, not before a last newline.

    >>> pattern("^a$").search("a\n") is None
    True
    """
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", text))


def is_integer(value: JSON) -> bool:
    """Return whether value is a whole number; 1.0 is none, as it would not be written so again."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: JSON) -> bool:
    """Return whether value is a number; NaN and infinity are none in JSON."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


class _Compiler:
    """Compiles the schemas of one set of documents; every definition once, so that they may refer to themselves."""

    def __init__(self, documents: Mapping[str, JSON]) -> None:
        self._documents = documents
        self._definitions: dict[str, list[Fits]] = {}

    def schema(self, schema: JSON, home: str) -> Fits:
        """Return the function for one schema; home is the $id of the document it stands in."""
        asserting = schema.keys() - _ANNOTATIONS
        unknown = asserting - _STRUCTURE - _KEYWORDS.keys()
        if unknown:
            raise ValueError(f"keywords {sorted(unknown)} are not known to the checker")
        if schema.get("type") == "string" and "pattern" in asserting <= _OF_TEXTS:
            return _text(schema)
        parts = [self._reference(schema["$ref"], home)] if "$ref" in schema else []
        parts += [_const(schema["const"])] if "const" in schema else []
        parts += self._choices(schema, home)
        for kind, fits in self._of_kinds(schema, home):
            if schema.get("type", kind) == kind or (kind, schema["type"]) == ("number", "integer"):
                parts.append(fits if "type" in schema else _where(kind, fits))
        return _all([_TYPES[schema["type"]], *parts] if "type" in schema else parts)

    def _reference(self, target: str, home: str) -> Fits:
        """Return the function of a definition, compiled when it is first met."""
        document, _, name = target.partition("#/$defs/")
        document = document or home
        key = f"{document}#{name}"
        if key not in self._definitions:
            self._definitions[key] = cell = []
            cell.append(self.schema(self._documents[document]["$defs"][name], document))
        cell = self._definitions[key]
        return cell[0] if cell else lambda value: cell[0](value)

    def _choices(self, schema: JSON, home: str) -> Iterator[Fits]:
        """Yield the functions of anyOf and oneOf."""
        if "anyOf" in schema:
            yield _any([self.schema(option, home) for option in schema["anyOf"]])
        if "oneOf" in schema:
            yield _one([self.schema(option, home) for option in schema["oneOf"]])

    def _of_kinds(self, schema: JSON, home: str) -> Iterator[tuple[str, Fits]]:
        """Yield the functions that concern values of one type only, with that type."""
        for key, value in schema.items():
            if key in _KEYWORDS:
                kind, keyword = _KEYWORDS[key]
                yield kind, keyword(value)
        if "propertyNames" in schema:
            yield "object", _every(self.schema(schema["propertyNames"], home))
        if "properties" in schema or "additionalProperties" in schema:
            members = {key: self.schema(item, home) for key, item in schema.get("properties", {}).items()}
            others = schema.get("additionalProperties", True)
            yield "object", _members(members, others if isinstance(others, bool) else self.schema(others, home))
        if "items" in schema:
            yield "array", _every(self.schema(schema["items"], home))


def _where(kind: str, fits: Fits) -> Fits:
    """Return the function that asks only of values of one type whether they fit."""
    is_kind = _TYPES[kind]
    return lambda value: not is_kind(value) or fits(value)


def _text(schema: JSON) -> Fits:
    """Return the function for texts of a pattern; those that were right are remembered: most are there often."""
    search, right = pattern(schema["pattern"]).search, set[str]()
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", math.inf)

    def fits(value: JSON) -> bool:
        if not isinstance(value, str):
            return False
        if value in right:
            return True
        if not shortest <= len(value) <= longest or search(value) is None:
            return False
        if len(right) < _REMEMBERED:
            right.add(value)
        return True

    return fits


def _all(parts: list[Fits]) -> Fits:
    """Return the function that holds where all parts do; written out for the common lengths: the hot path."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda value: first(value) and second(value)
    if len(parts) == 3:
        one, two, three = parts
        return lambda value: one(value) and two(value) and three(value)

    def fits(value: JSON) -> bool:
        for part in parts:  # noqa: SIM110 - a generator would double the time
            if not part(value):
                return False
        return True

    return fits


def _any(options: list[Fits]) -> Fits:
    return lambda value: any(option(value) for option in options)


def _one(options: list[Fits]) -> Fits:
    """Return the function that holds where exactly one option does."""
    if len(options) == 2:
        first, second = options
        return lambda value: first(value) is not second(value)
    return lambda value: sum(option(value) for option in options) == 1


def _every(fits: Fits) -> Fits:
    """Return the function for all items of an array, or all names of an object."""
    return lambda value: all(map(fits, value))


def _members(members: Mapping[str, Fits], others: bool | Fits) -> Fits:
    """Return the function for the values of an object's members."""
    default: Fits = (lambda value: others) if isinstance(others, bool) else others
    get = members.get

    def fits(value: JSON) -> bool:
        for key, item in value.items():  # noqa: SIM110 - a generator would double the time
            if not get(key, default)(item):
                return False
        return True

    return fits


def _const(expected: JSON) -> Fits:
    return lambda value: value == expected and isinstance(value, bool) == isinstance(expected, bool)


def _pattern(text: str) -> Fits:
    search = pattern(text).search
    return lambda value: search(value) is not None


def _minimum(bound: float) -> Fits:
    return lambda value: value >= bound


def _maximum(bound: float) -> Fits:
    return lambda value: value <= bound


def _shortest(bound: int) -> Fits:
    return lambda value: len(value) >= bound


def _longest(bound: int) -> Fits:
    return lambda value: len(value) <= bound


def _unique(wanted: bool) -> Fits:
    def fits(value: JSON) -> bool:
        if not wanted or len(value) < 2:
            return True
        return len({item if isinstance(item, str) else json.dumps([item], sort_keys=True) for item in value}) == len(
            value
        )

    return fits


def _required(keys: list[str]) -> Fits:
    if len(keys) == 1:
        (key,) = keys
        return lambda value: key in value
    wanted = frozenset(keys)
    return lambda value: value.keys() >= wanted


def _dependent_required(keys: Mapping[str, list[str]]) -> Fits:
    rules = [(key, frozenset(needed)) for key, needed in keys.items()]

    def fits(value: JSON) -> bool:
        for key, needed in rules:  # noqa: SIM110 - a generator would double the time
            if key in value and not value.keys() >= needed:
                return False
        return True

    return fits


_TYPES: Mapping[str, Fits] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": is_integer,
    "number": is_number,
}
_KEYWORDS: Mapping[str, tuple[str, Callable[[Any], Fits]]] = {
    "maxLength": ("string", _longest),
    "minLength": ("string", _shortest),
    "pattern": ("string", _pattern),
    "minimum": ("number", _minimum),
    "maximum": ("number", _maximum),
    "minItems": ("array", _shortest),
    "maxItems": ("array", _longest),
    "uniqueItems": ("array", _unique),
    "minProperties": ("object", _shortest),
    "required": ("object", _required),
    "dependentRequired": ("object", _dependent_required),
}
_STRUCTURE = frozenset(
    {"$ref", "type", "const", "anyOf", "oneOf", "propertyNames", "properties", "additionalProperties", "items"}
)
_OF_TEXTS = frozenset({"type", "pattern", "minLength", "maxLength"})
_ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "title", "description"})
