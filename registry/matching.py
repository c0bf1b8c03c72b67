"""What a search compares, and how: the fields of an entry, words, filters, and which entries come first.

A word fits where it begins a word of a field; capitals, accents and punctuation do not matter, so that `sst` finds
`SST-2` and `double_seq` finds `double_seq_bn`. All words have to fit, each in any field. Entries that are called
exactly so come first, then those with all words in their names and aliases, with one of them there, with all words in
name, summary and task, and then the others; within each group in the order of their names.

In memory and in a database the same is found: both compare the texts that are made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = Any
Kind: TypeAlias = tuple[str, str, str]
"""Id of the base model, architecture and method of an artifact, without capitals."""

BETWEEN = " ¦ "
"""Stands between the texts of a field. No word reaches across: it is no part of a plain text."""

EXACT, NAMED, PARTLY_NAMED, DESCRIBED, OTHER = range(5)
"""The groups in which entries are found."""

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def folded(name: str) -> str:
    """Return a name as names are compared: no capitals, without the @ of the archived AdapterHub.

    >>> folded("@UKP/sst-2")
    'ukp/sst-2'
    """
    return name.removeprefix("@").casefold()


def spellings(entries: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    """Yield (folded name or alias, the entry's name) for all that entries are called, each pair once."""
    for name, entry in entries.items():
        yield from ((text, name) for text in {folded(text) for text in (name, *entry.get("aliases", ()))})


def plain(text: str) -> str:
    """Return the words of a text with single blanks between, no capitals, no accents. Law: plain(plain(t)) == plain(t).

    >>> plain("SST-2 (Crème brûlée)")
    'sst 2 creme brulee'
    """
    if text.isascii():
        return _SEPARATORS.sub(" ", text.lower()).strip()
    import unicodedata

    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept = (char if char.isalnum() else " " for char in text if not unicodedata.combining(char))
    return " ".join("".join(kept).split())


def phrases(words: Iterable[str]) -> list[str]:
    """Return the plain forms of what is looked for, each once, without those that hold no letter and no digit."""
    return list(dict.fromkeys(filter(None, map(plain, words))))


def fields(name: str, entry: JSON) -> tuple[list[str], list[str], list[str]]:
    """Return the texts in which words are looked up: names, what it is for, and all else."""
    names = [name, *entry.get("aliases", ())]
    about = [entry.get("summary", ""), entry.get("task", "")]
    rest = [entry.get("license", ""), *entry.get("language", ()), *dict.fromkeys(sum(kinds(entry), ()))]
    return names, about, rest


def kinds(entry: JSON) -> list[Kind]:
    """Return the kinds of artifacts of an entry, each once."""
    found: dict[Kind, None] = {}
    for release in entry["versions"].values():
        for artifact in release["artifacts"]:
            base = artifact["base"]
            kind = (base["id"].casefold(), base["architecture"].casefold(), artifact["method"].casefold())
            found[kind] = None
    return list(found)


def fits(kind: Kind, base: str | None, method: str | None) -> bool:
    """Return whether a kind of artifact is for a base model and of a method; None fits all.

    The base model may be called by its id, by what follows the slash, or by its architecture; the method by the whole
    configuration or by one of its parts.

    >>> fits(("google-bert/bert-base-uncased", "bert", "seq_bn[dropout=0.1]+layer_norm"), "bert", "seq_bn")
    True
    """
    known, architecture, configuration = kind
    fits_base = base is None or base.casefold() in (known, known.rpartition("/")[2], architecture)
    return fits_base and has_method(configuration, method)


def has_method(configuration: str, method: str | None) -> bool:
    """Return whether a configuration is the method, or has it as one of its parts; None fits all.

    >>> has_method("seq_bn[reduction_factor=2]+invertible", "seq_bn")
    True
    """
    known = configuration.casefold()
    parts = [part.partition("[")[0] for part in known.split("+")]
    return method is None or method.casefold() in (*parts, known)


def task_path(task: str) -> str:
    """Return a task as tasks are compared: `a/b/` begins with `a/`, the path of all tasks of its kind."""
    return f"{task.casefold().rstrip('/')}/"


def search(
    entries: Mapping[str, JSON],
    words: Sequence[str],
    *,
    task: str | None,
    base: str | None,
    method: str | None,
    license: str | None,  # noqa: A002 - the field's name
) -> list[str]:
    """Return the names of the entries that all words and filters fit, best first."""
    return [name for _, name in ranked(entries, words, task=task, base=base, method=method, license=license)]


def ranked(
    entries: Mapping[str, JSON],
    words: Sequence[str],
    *,
    task: str | None,
    base: str | None,
    method: str | None,
    license: str | None,  # noqa: A002 - the field's name
) -> list[tuple[int, str]]:
    """Return (group, name) of the entries that all words and filters fit, in their order."""
    wanted, exact = phrases(words), folded(" ".join(words))
    if words and not wanted:
        return []
    found = []
    for name, entry in entries.items():
        if (
            (task is None or task_path(entry.get("task", "")).startswith(task_path(task)))
            and (license is None or entry.get("license", "").casefold() == license.casefold())
            and any(fits(kind, base, method) for kind in kinds(entry))
            and (group := _group(name, entry, wanted, exact)) is not None
        ):
            found.append((group, name))
    return sorted(found)


def _group(name: str, entry: JSON, wanted: Sequence[str], exact: str) -> int | None:
    """Return the group of an entry, or None where a word does not fit."""
    if not wanted:
        return OTHER
    names, about, rest = ("".join(f" {plain(text)}{BETWEEN}" for text in texts) for texts in fields(name, entry))
    if not all(f" {word}" in names + about + rest for word in wanted):
        return None
    if exact in map(folded, (name, *entry.get("aliases", ()))):
        return EXACT
    named = [f" {word}" in names for word in wanted]
    if any(named):
        return NAMED if all(named) else PARTLY_NAMED
    return DESCRIBED if all(f" {word}" in about for word in wanted) else OTHER
