"""The grammar of configuration strings: `name[field=value,…]` joined by `+` or `|`; a name may hold a `+` itself."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from typing import Any

from ..errors import UsageError

_OPEN, _CLOSE = "[{(", "]})"


def parse(text: str, names: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of a configuration string as (name, changed fields).

    >>> parse("double_seq_bn[reduction_factor=8]+layer_norm", ["double_seq_bn", "layer_norm"])
    [('double_seq_bn', {'reduction_factor': 8}), ('layer_norm', {})]
    >>> parse("compacter++[phm_dim=2]+layer_norm", ["compacter", "compacter++", "layer_norm"])
    [('compacter++', {'phm_dim': 2}), ('layer_norm', {})]

    Raises:
        UsageError: a name is unknown, a bracket is left open, or a field has no value.
    """
    pieces = [_joined(list(_split(part, "+")), names) for part in _split(text, "|")]
    return [_part(piece.strip(), names) for part in pieces for piece in part]


def _joined(pieces: list[str], names: Collection[str]) -> list[str]:
    """Return the pieces between plus signs, those put together again that are one name.

    >>> _joined(["a", "inv[x=1]", "b"], ["a", "a+inv", "b"])
    ['a+inv[x=1]', 'b']
    """
    found: list[str] = []
    while pieces:
        bare = next((i for i, piece in enumerate(pieces) if "[" in piece), len(pieces) - 1) + 1
        size = next((size for size in range(bare, 1, -1) if _name("+".join(pieces[:size])) in names), 1)
        found.append("+".join(pieces[:size]))
        pieces = pieces[size:]
    return found


def _name(part: str) -> str:
    return part.partition("[")[0].strip()


def _part(text: str, names: Collection[str]) -> tuple[str, dict[str, Any]]:
    name = _name(text)
    _, bracket, rest = text.partition("[")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(names))}"
        raise UsageError(f"no method is called {name!r}", hint=hint)
    if not bracket:
        return name, {}
    if not rest.endswith("]"):
        raise UsageError(f"{text!r} lacks its closing bracket", hint=f"write {name}[field=value,…]")
    return name, dict(_field(item, text) for item in _split(rest[:-1], ",") if item.strip())


def _field(text: str, whole: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"{text.strip()!r} in {whole!r} is not field=value")
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:
    """Return a JSON value, a Python constant, a list of such, or the text itself.

    >>> _value("[query, key]"), _value("2.5"), _value("relu")
    (['query', 'key'], 2.5, 'relu')
    """
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if not (text.startswith("[") and text.endswith("]")):
            return text
        return [_value(item.strip()) for item in _split(text[1:-1], ",")]


def _split(text: str, separators: str) -> Iterator[str]:
    """Yield the pieces of text between separators that stand outside brackets and quotes."""
    depth, start, quoted = 0, 0, False
    for i, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in _OPEN:
            depth += 1
        elif not quoted and char in _CLOSE:
            depth -= 1
        elif not quoted and depth == 0 and char in separators:
            yield text[start:i]
            start = i + 1
        if depth < 0:
            raise UsageError(f"{text!r} closes a bracket that was not opened")
    if depth or quoted:
        raise UsageError(f"{text!r} leaves a bracket or quote open")
    yield text[start:]
