"""Which names come nearest to one that does not exist.

Those that contain it, the shortest first; else, of those that share the most groups of three letters with it, the most
similar ones. The groups find a couple of hundred candidates among any number of names, only these are compared in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NEAREST = 3
"""So many names are proposed."""

CANDIDATES = 200
"""So many names are compared in full."""

SIMILAR = 0.6
"""What difflib has to say of a name, 1 being the same."""

LONGEST = 200
"""A longer name than any may have is like none."""


def bounded(spelling: str) -> str:
    """Return a spelling with marks at its ends, so that its ends count as groups too."""
    return f"^{spelling}$"


def groups(spelling: str) -> list[str]:
    """Return the groups of three letters of a spelling, each once.

    >>> groups("sst-2")
    ['^ss', 'sst', 'st-', 't-2', '-2$']
    """
    text = bounded(spelling)
    return list(dict.fromkeys(text[i : i + 3] for i in range(len(text) - 2)))


def most_similar(wanted: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidates most similar to wanted, best first."""
    import difflib

    return difflib.get_close_matches(wanted, once(candidates), n=NEAREST, cutoff=SIMILAR)


def among(wanted: str, spellings: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names nearest to wanted; spellings are (folded name or alias, the entry's name), sorted."""
    parts = {name for spelling, name in spellings if wanted in spelling}
    if parts:
        return sorted(parts, key=lambda name: (len(name), name))[:NEAREST]
    if len(wanted) > LONGEST:
        return []
    shared = groups(wanted)
    counted = ((sum(group in bounded(spelling) for group in shared), spelling) for spelling, _ in spellings)
    ranked = sorted((-count, spelling) for count, spelling in counted if count)[:CANDIDATES]
    similar = most_similar(wanted, (spelling for _, spelling in ranked))
    return once(name for found in similar for spelling, name in spellings if spelling == found)[:NEAREST]


def once(texts: Iterable[str]) -> list[str]:
    """Return texts, each once, in their order."""
    return list(dict.fromkeys(texts))
