"""JSON as text: read strictly, written in one way only."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn, TypeAlias

from ..errors import FormatError

JSON: TypeAlias = Any

DEEPEST = 100
"""Objects and arrays within each other. Interpreters differ in what they bear, and walk deeper than they write."""


def loads(data: bytes | str, what: str) -> JSON:
    """Return the JSON value that data write; `what` names it in errors.

    Stricter than the json module: no key twice in an object, no NaN or infinity, no number beyond a double, no half
    of a surrogate pair, UTF-8 only, no more than DEEPEST objects and arrays within each other.

    Raises:
        FormatError: data are not such JSON.

    >>> loads(b'{"a": [1, 2]}', "example")
    {'a': [1, 2]}
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8: byte {error.start} is wrong") from error
    except UnicodeEncodeError as error:
        raise FormatError(f"{what} holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{what} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise FormatError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise FormatError(f"{what} is not JSON that can be used: {error}") from error
    if _is_deep(value):
        raise FormatError(f"{what} is nested too deeply")
    return value


def dumps(value: JSON, *, sort_keys: bool = True) -> bytes:
    """Return value as a JSON file: indent 2, final newline, UTF-8; keys sorted unless their order is fixed otherwise.

    Raises:
        ValueError: value holds NaN or infinity.
    """
    return (json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8"
    )


def canonical(value: JSON) -> bytes:
    """Return value as the shortest JSON with sorted keys: equal values give equal bytes.

    Raises:
        ValueError: value holds NaN or infinity.

    >>> canonical({"b": 1, "a": [True, "é"]}).decode()
    '{"a":[true,"é"],"b":1}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _is_deep(value: JSON) -> bool:
    """Return whether more than DEEPEST objects and arrays are within each other."""
    level: list[JSON] = [[value]]
    for _ in range(DEEPEST + 1):
        level = [
            part
            for one in level
            for part in (one.values() if type(one) is dict else one)
            if type(part) is dict or type(part) is list
        ]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    """Return the object of these members, each key once."""
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has {', '.join(map(repr, twice))} twice")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than a number can be")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
