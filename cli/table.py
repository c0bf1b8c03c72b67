"""Tables and lists of facts that fit the terminal: aligned on a wide one, cut on a narrow one, whole in a pipe."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

GAP = "  "
NARROWEST = 12
"""A column is never cut to fewer characters than this."""


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], width: int | None, *, spare: Sequence[str] = ()
) -> Iterator[str]:
    r"""Yield the lines of a table of at most `width` columns, or as wide as it needs to be if width is None.

    Where it is too wide, the widest columns are cut and end in "…", but for the first. Where that would leave too
    little of them, the columns named in `spare` are left out, one after the other. Where that is not enough, each row
    becomes a block of lines `header  value`.

    >>> print(*table(["name", "task"], [["sst2", "sentiment"]], None), sep="\n")
    NAME  TASK
    sst2  sentiment
    """
    body = [[one_line(cell) for cell in row] for row in rows]
    grid = [[header.upper() for header in headers], *body]
    widths = [max(display_width(row[column]) for row in grid) for column in range(len(headers))]
    fitted = _fit(widths, width, [headers.index(name) for name in spare])
    if not fitted:
        yield from _blocks(headers, body, width or 0)
        return
    for row in grid:
        yield GAP.join(pad(cut(row[column], size), size) for column, size in fitted.items()).rstrip()


def facts(pairs: Iterable[tuple[str, str]], width: int | None, indent: str = "") -> Iterator[str]:
    r"""Yield lines `key  value`, the values in one column; long ones go on below themselves.

    >>> print(*facts([("name", "sst2"), ("licence", "MIT")], None), sep="\n")
    name     sst2
    licence  MIT
    """
    pairs = [(key, value) for key, value in pairs if value]
    column = max((display_width(key) for key, _ in pairs), default=0) + len(GAP)
    for key, value in pairs:
        room = None if width is None else width - column - len(indent)
        if room is not None and room < min(display_width(value), max(NARROWEST, _longest_word(value))):
            # Below its key, where there is more room: a path or a digest stays whole and can be copied.
            yield indent + key
            yield from (indent + GAP + line for line in wrap(value, max(NARROWEST, (width or 0) - len(indent) - 2)))
            continue
        for number, line in enumerate(wrap(value, room)):
            yield (indent + pad(key if number == 0 else "", column) + line).rstrip()


def wrap(text: str, width: int | None) -> list[str]:
    """Return the lines of text, broken at blanks to be no wider than width; a longer word stays whole."""
    lines = text.splitlines() or [""]
    if width is None:
        return lines
    return [part for line in lines for part in _wrap(line, width)]


def _wrap(line: str, width: int) -> list[str]:
    """Return one line as lines of at most `width` columns; textwrap would count characters."""
    first, *words = line.split() or [""]
    found = [first]
    for word in words:
        if display_width(found[-1]) + 1 + display_width(word) <= width:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _longest_word(text: str) -> int:
    return max(map(display_width, text.split()), default=0)


def one_line(text: str) -> str:
    """Return text on one line and without characters that would steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def display_width(text: str) -> int:
    """Return how many columns text takes on a terminal.

    >>> display_width("ab"), display_width("日本")
    (2, 4)
    """
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def pad(text: str, size: int) -> str:
    """Return text with blanks up to that many columns."""
    return text + " " * (size - display_width(text))


def cut(text: str, size: int) -> str:
    """Return text, or as much of it as fits with a "…" at its end.

    >>> cut("sentiment", 6)
    'senti…'
    """
    if display_width(text) <= size:
        return text
    kept, used = "", 1
    for char in text:
        used += _char_width(char)
        if used > size:
            break
        kept += char
    return kept + "…"


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _fit(widths: Sequence[int], width: int | None, spare: Sequence[int]) -> dict[int, int]:
    """Return column → its width, for the columns that are shown; {} if the table cannot be made to fit."""
    fitted = dict(enumerate(widths))
    if width is None or _shrink(fitted, width):
        return fitted
    for column in spare:
        fitted = {other: widths[other] for other in fitted if other != column}
        if _shrink(fitted, width):
            return fitted
    return {}


def _shrink(fitted: dict[int, int], width: int) -> bool:
    """Make the widest columns smaller until all fit, and return whether they do; the first one names the row."""
    while sum(fitted.values()) + len(GAP) * (len(fitted) - 1) > width:
        widest = max((column for column in fitted if column > 0), key=fitted.__getitem__, default=0)
        if widest == 0 or fitted[widest] <= NARROWEST:
            return False
        fitted[widest] -= 1
    return True


def _blocks(headers: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Yield each row as its first cell and below it the others with their headers."""
    for number, row in enumerate(rows):
        if number:
            yield ""
        yield from wrap(row[0], width)
        yield from facts(zip(headers[1:], row[1:], strict=True), width, indent=GAP)
