"""What `list` and `search` share: the entries of an index as rows for people and as JSON for programs."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .output import Output, width
from .table import table

if TYPE_CHECKING:
    from ..registry import Entry, Lookup

HEADERS = ("name", "version", "task", "base model", "method", "size", "summary")
SPARE = ("size", "method", "base model", "task")
"""Columns that a narrow terminal does without, the first ones first."""


def print_entries(
    output: Output, index: Lookup, names: Iterable[str], limit: int | None, base: str | None = None
) -> int:
    """Print the entries of these names, one row each and not more than limit, and return how many that were.

    base: the base model whose artifact a row shows, if there is one for it.
    """
    found = list(names if limit is None else itertools.islice(names, limit + 1))
    shown = found[:limit]
    if output.quiet:
        output.result({}, ids=shown, text=())
    elif output.as_json:
        output.result({"adapters": [as_json(name, index.entry(name)) for name in shown]}, ids=(), text=())
    else:
        rows = [row(name, index.entry(name), base) for name in shown]
        output.result({}, ids=(), text=table(HEADERS, rows, width(sys.stdout), spare=SPARE) if rows else ())
    if len(shown) < len(found):
        output.note(f"there are more than these {limit}; --limit shows more")
    return len(shown)


def row(name: str, entry: Entry, base: str | None = None) -> tuple[str, ...]:
    """Return the cells of an entry: its best version, and of that the first artifact; the method without its fields.

    base: the base model whose artifact goes first.
    """
    from ..registry.matching import fits

    version = entry.latest
    artifacts = entry.versions[version or list(entry.versions)[-1]].artifacts
    more = f" +{len(artifacts) - 1}" if len(artifacts) > 1 else ""
    kinds = {
        (a.base.id.casefold(), a.base.architecture.casefold(), a.method.casefold()): a for a in reversed(artifacts)
    }
    first = next((a for kind, a in reversed(kinds.items()) if fits(kind, base, None)), artifacts[0])
    return (
        name,
        version or "(yanked)",
        entry.task,
        first.base.id.rpartition("/")[2] + more,
        without_fields(first.method),
        size(first.total_size),
        first.summary or entry.summary,
    )


def without_fields(method: str) -> str:
    """Return a method, or a composition, without what stands in its brackets and behind its names.

    >>> without_fields("seq_bn[leave_out=[0],ranks={'a':[1]}]+layer_norm")
    'seq_bn+layer_norm'
    >>> without_fields("stack(a, average(b, c, weights=[0.3, 0.7], normalize_weights=false))")
    'stack(a, average(b, c))'
    """
    before = ""
    while method != before:
        before, method = method, re.sub(r"\[[^\[\]]*\]", "", method)
    return re.sub(r", \w+=[^,()]*", "", method)


def as_json(name: str, entry: Entry) -> dict[str, Any]:
    """Return all that the index says of an entry, with its name and its best version."""
    return {"name": name, "version": entry.latest, **entry.to_json()}


def size(count: int | None) -> str:
    """Return a number of bytes for people, "" where it is not known.

    >>> size(512), size(912384), size(3 * 1024**3)
    ('512 B', '891 KiB', '3.0 GiB')
    """
    if count is None:
        return ""
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
