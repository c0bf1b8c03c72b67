"""How a source spelled a document, kept to be written back as long as it says the same.

A reader of a foreign format compares the document that it read with the one that the writer would make; what differs
is kept: fields that we do not have, fields that the source left out, 8 for 8.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ..adapter import JSON

Kept = dict[str, JSON]
"""How a source spelled a document: {"set": {field: value}, "absent": [field]}, either left out where empty."""


def kept(source: Mapping[str, JSON], built: Mapping[str, JSON]) -> Kept:
    """Return what restores source from built.

    >>> kept({"r": 8.0, "x": 1}, {"r": 8, "y": 2})
    {'set': {'r': 8.0, 'x': 1}, 'absent': ['y']}
    """
    changed = {key: value for key, value in source.items() if key not in built or not same(value, built[key])}
    absent = sorted(set(built) - set(source))
    return ({"set": changed} if changed else {}) | ({"absent": absent} if absent else {})


def respelled(built: Mapping[str, JSON], spelling: Kept) -> dict[str, JSON]:
    """Return built with everything that was kept; respelled(built, kept(source, built)) == source."""
    absent, changed = spelling.get("absent", ()), spelling.get("set", {})
    found: dict[str, JSON] = {key: value for key, value in built.items() if key not in absent} | changed
    return found


def restored(
    built: Mapping[str, JSON], spelling: Kept, meaning: Callable[[Mapping[str, JSON]], Mapping[str, JSON]]
) -> dict[str, JSON]:
    """Return built in the kept spelling, wherever that spelling means the same.

    Args:
        built: a document in the current spelling.
        spelling: what kept returned for the source.
        meaning: document → what it says, {} if that is nothing right.
    """
    wanted = meaning(built)
    document = respelled(built, spelling)
    if same(meaning(document), wanted):
        return document
    # The adapter was changed since: one field after the other, as far as it goes.
    absent, changed = spelling.get("absent", ()), spelling.get("set", {})
    document = dict(built)
    for key in (*absent, *changed):
        other = {name: value for name, value in document.items() if name != key}
        other |= {key: changed[key]} if key in changed else {}
        if same(meaning(other), wanted):
            document = other
    return document


def same(a: JSON, b: JSON) -> bool:
    """Return whether two JSON values are written alike; 1, 1.0 and true are not."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
