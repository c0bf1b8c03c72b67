"""Every fault of a document in plain words, found by jsonschema: the reference that the fast checker is held to."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import referencing
from jsonschema import Draft202012Validator as Base
from jsonschema import ValidationError as Error
from jsonschema.validators import extend
from referencing.jsonschema import DRAFT202012

from . import checker

JSON: TypeAlias = Any

_TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
_BOUNDS = {
    "minimum": "is less than {bound}",
    "maximum": "is more than {bound}",
    "minLength": "is shorter than {bound} characters",
    "maxLength": "is longer than {bound} characters",
    "minItems": "has fewer than {bound} items",
    "maxItems": "has more than {bound} items",
    "minProperties": "has fewer than {bound} fields",
}


def find(document: JSON, schema: JSON, documents: Mapping[str, JSON]) -> list[str]:
    """Return every fault of document, each `path: what is wrong`, in the order of the document; [] where it is valid.

    documents are all schemas by $id.
    """
    resources = [(name, DRAFT202012.create_resource(item)) for name, item in documents.items()]
    validator = _VALIDATOR(schema, registry=referencing.Registry().with_resources(resources))
    errors = sorted(validator.iter_errors(document), key=_place)
    found = (f"{path}: {words}" if path else words for error in errors for path, words in _described(error))
    return list(dict.fromkeys(found))


def path_text(parts: list[str | int]) -> str:
    """Return a path as people write it.

    >>> path_text(["adapters", "sst2-bert", "versions", "1.0.0", "artifacts", 0, "digest"])
    "adapters['sst2-bert'].versions['1.0.0'].artifacts[0].digest"
    """
    text = ""
    for i, part in enumerate(parts):
        named = isinstance(part, str) and part.isidentifier() and not (i and parts[i - 1] in {"adapters", "bases"})
        text += f".{part}" if named else f"[{part!r}]"
    return text.removeprefix(".")


def _pattern(validator: Any, text: str, instance: JSON, schema: JSON) -> Iterator[Error]:
    if isinstance(instance, str) and not checker.pattern(text).search(instance):
        yield Error(f"{instance!r} does not match {text!r}")


_VALIDATOR = extend(
    Base,
    validators={"pattern": _pattern},
    type_checker=Base.TYPE_CHECKER.redefine_many(
        {"integer": lambda _, value: checker.is_integer(value), "number": lambda _, value: checker.is_number(value)}
    ),
)


def _place(error: Error) -> list[tuple[bool, int, str]]:
    """Return the sort key that puts errors in the order of their paths."""
    return [(isinstance(p, str), p if isinstance(p, int) else 0, str(p)) for p in error.absolute_path]


def _described(error: Error) -> Iterator[tuple[str, str]]:
    """Yield path and words of each fault that one error of jsonschema stands for."""
    path = path_text(list(error.absolute_path))
    if error.validator == "anyOf":
        yield from _alternatives(error, path)
    else:
        words = _WORDING.get(error.validator, _bound)
        yield from ((path, text) for text in words(error))


def _alternatives(error: Error, path: str) -> Iterator[tuple[str, str]]:
    """Yield the faults of the alternative that was meant, or that none was."""
    branches: dict[int | str, list[Error]] = defaultdict(list)
    for inner in error.context or ():
        branches[inner.relative_schema_path[0]].append(inner)
    meant = [inner for inner in branches.values() if not any(map(_of_another_kind, inner))]
    if meant:
        for inner in min(meant, key=len):
            yield from _described(inner)
        return
    kinds = [inner for inner in error.context or () if inner.validator == "const" and inner.relative_path]
    if kinds:
        listed = ", ".join(_shown(inner.validator_value) for inner in kinds)
        yield path_text(list(kinds[0].absolute_path)), f"{_shown(kinds[0].instance)} is none of {listed}"
    else:
        yield path, f"{_subject(error)} is none of the things that may stand here"


def _of_another_kind(error: Error) -> bool:
    """Return whether the error says that the alternative was not meant: another type, or another constant."""
    return error.validator in {"type", "const"} and len(error.relative_path) <= int(error.validator == "const")


def _subject(error: Error) -> str:
    """Return the value that an error is about, or the key where it is about one."""
    return f"key {_shown(error.instance)}" if "propertyNames" in error.relative_schema_path else _shown(error.instance)


def _unknown_fields(error: Error) -> Iterator[str]:
    known = list(error.schema.get("properties", {}))
    for key in error.instance:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            yield f"unknown field {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _missing_field(error: Error) -> Iterator[str]:
    # jsonschema gives one error for each missing field, and names the field in its message only.
    yield f"lacks {error.message.removesuffix(' is a required property')}"


def _missing_companion(error: Error) -> Iterator[str]:
    for key, needed in error.validator_value.items():
        if key in error.instance:
            yield from (f"has {key!r} but lacks {other!r}" for other in needed if other not in error.instance)


def _exactly_one(error: Error) -> Iterator[str]:
    if not isinstance(error.instance, dict):
        # Rules about fields hold for what has none; what it should have been is told by its type.
        yield from [] if "type" in error.schema else [f"{_subject(error)} is not an object"]
        return
    keys = [key for option in error.validator_value for key in option["required"]]
    present = [repr(key) for key in keys if key in error.instance]
    yield f"has {' and '.join(present)}, of which one too many" if present else f"lacks {' or '.join(map(repr, keys))}"


def _repeated(error: Error) -> Iterator[str]:
    items = error.instance
    yield from (
        f"has {_shown(item)} more than once"
        for i, item in enumerate(items)
        if items.index(item) == i < len(items) - 1 and item in items[i + 1 :]
    )


def _wrong_type(error: Error) -> Iterator[str]:
    yield f"{_subject(error)} is not {_TYPES[error.validator_value]}"


def _wrong_constant(error: Error) -> Iterator[str]:
    yield f"{_subject(error)} is not {_shown(error.validator_value)}"


def _wrong_text(error: Error) -> Iterator[str]:
    title = error.schema.get("title", f"text of the form {error.validator_value}")
    article = "" if title.startswith("text") else "an " if title[0] in "aeio" else "a "
    yield f"{_subject(error)} is not {article}{title}"


def _bound(error: Error) -> Iterator[str]:
    bound = error.validator_value
    subject = _subject(error)
    if bound == 1 and error.validator in {"minLength", "minItems", "minProperties"}:
        yield "is empty"
    else:
        yield f"{subject} {_BOUNDS[error.validator].format(bound=bound)}"


def _shown(value: JSON) -> str:
    """Return a value for people, cut to a length that fits on a line."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


_WORDING: Mapping[str, Callable[[Error], Iterator[str]]] = {
    "additionalProperties": _unknown_fields,
    "const": _wrong_constant,
    "dependentRequired": _missing_companion,
    "oneOf": _exactly_one,
    "pattern": _wrong_text,
    "required": _missing_field,
    "type": _wrong_type,
    "uniqueItems": _repeated,
}
