"""JSON texts of adapter files: schemas' strict reader and writers, with errors that say which file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .. import schemas
from ..errors import FormatError

if TYPE_CHECKING:
    from ..adapter import JSON

loads = schemas.loads


def canonical(value: JSON, what: str) -> str:
    """Return the canonical text of a JSON value: sorted keys, no white space, characters as they are.

    >>> canonical({"b": 1, "a": [True, None]}, "config")
    '{"a":[true,null],"b":1}'

    Raises:
        FormatError: the value holds NaN, infinity, half of a surrogate pair, or something that is not JSON.
    """
    try:
        return schemas.canonical(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{what} cannot be written as JSON: {error}") from None


def compact(value: JSON, what: str) -> bytes:
    """Return the text of a JSON value without white space, keys in their order.

    Raises:
        FormatError: as canonical.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{what} cannot be written as JSON: {error}") from None


def file(value: JSON, what: str) -> bytes:
    """Return the text of a JSON file as this package writes them: sorted keys, indent 2, final newline.

    Raises:
        FormatError: as canonical.
    """
    canonical(value, what)
    return schemas.dumps(value)
