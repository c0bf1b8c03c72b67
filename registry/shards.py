"""Shards: an index as one small file per name, so that a publish touches one and a reader fetches one.

    index.json                      {"format": 1, "layout": "sharded", "adapters": {}}: says that it is so
    index/<2 digits>/<name>.json    an index with the one entry of that name, or with the entries it is an alias of
    index/all.json.gz               all entries, as of when it was made: what is searched where files cannot be listed

The digits are the first of the SHA-256 of the name, so that no folder gets too full. A name is written without capitals
and a leading @, as names are compared, with ~ for /, and cut to its beginning and a digest where it is long. An alias
counts only if the entry has it too: files of aliases are written first, so that whoever dies in between leaves one that
stands for nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from .. import schemas
from ..errors import FormatError, SchemaError
from . import matching, paths
from .index import SHARDED, Entries, Index

JSON: TypeAlias = Any
Read: TypeAlias = Callable[[str], bytes | None]
"""Takes the path of a shard and returns its bytes, or None where there is none."""

FOLDER = "index"
PACKED = f"{FOLDER}/all.json.gz"
LONGEST = 200
"""No name and no alias is longer."""

_WHOLE = 100

MARKER = Index(layout=SHARDED)
"""What index.json says."""


def path_of(name: str) -> str:
    """Return the path of the shard of a name or alias.

    >>> path_of("sst2-bert"), path_of("@UKP/sst-2")
    ('index/90/sst2-bert.json', 'index/d2/ukp~sst-2.json')
    """
    return f"{FOLDER}/{group_of(name)}/{_written(name)}.json"


def group_of(name: str) -> str:
    """Return the folder of the shard of a name: one of 256."""
    return hashlib.sha256(matching.folded(name).encode()).hexdigest()[:2]


def can_be(name: str) -> bool:
    """Return whether a name or alias can have a shard; what cannot is no name of anything."""
    return 0 < len(name) <= LONGEST and "~" not in name and not paths.fault(f"{_written(name)}.json")


def parse(data: bytes, what: str) -> Index:
    """Return what a shard says.

    Raises:
        FormatError, SchemaError: it is not valid; what names it.
    """
    found = Index.loads(data, what)
    if found.layout:
        raise FormatError(f"{what} is the beginning of a sharded index, not a part of it")
    return found


def partial(names: Iterable[str], read: Read, where: str) -> Index:
    """Return an index with the entries that the names stand for, as their shards say, and no others.

    Raises:
        FormatError, SchemaError: a shard is not valid; where names the registry.
    """
    entries: dict[str, JSON] = {}
    for name in names:
        found = load(name, read, where)
        entries |= found.adapters.raw
        for owner in found.alias_of:
            entries |= load(owner, read, where).adapters.raw
    return Index(adapters=Entries(entries))


def load(name: str, read: Read, where: str) -> Index:
    """Return the shard of a name; an empty index where there is none."""
    path = path_of(name) if can_be(name) else ""
    data = read(path) if path else None
    return Index() if data is None else parse(data, f"{path} of {where}")


def changes(before: Index, after: Index) -> dict[str, bytes]:
    """Return path → bytes of the shards in which two partial indexes differ, those of aliases first.

    Both hold all entries that share an alias with one that has changed.

    Raises:
        SchemaError: an alias cannot be the name of a file.
    """
    changed = [name for name, raw in after.adapters.raw.items() if before.adapters.raw.get(name) != raw]
    new = {alias for name in changed for alias in _aliases(after, name) - _aliases(before, name)}
    return {**_of_aliases(after, new), **{path_of(name): _of_entry(after, name) for name in sorted(changed)}}


def all_of(index: Index) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of all shards of an index, those of aliases first."""
    owners: dict[str, list[str]] = {}
    for alias, name in sorted(matching.spellings(index.adapters.raw)):
        if alias not in index.adapters:
            owners.setdefault(alias, []).append(name)
    for alias, names in owners.items():
        yield _checked(alias), Index(alias_of=tuple(names)).dumps()
    yield from ((path_of(name), _of_entry(index, name)) for name in sorted(index.adapters))


def pack(index: Index) -> bytes:
    """Return all entries in one compressed file, without blanks; equal indexes have equal bytes."""
    entries = {name: index.adapters[name].to_json() for name in sorted(index.adapters)}
    return gzip.compress(schemas.canonical({**index.marks(), "adapters": entries}), mtime=0)


def unpack(data: bytes, most: int, what: str) -> bytes:
    """Return the index in a compressed file, which is to have at most so many bytes.

    Raises:
        FormatError: it is not compressed so, cut, or larger.
    """
    machine = zlib.decompressobj(wbits=31)
    try:
        found = machine.decompress(data, most)
    except zlib.error as error:
        raise FormatError(f"{what} cannot be decompressed: {error}") from error
    if machine.unconsumed_tail or not machine.eof:
        raise FormatError(f"{what} is {'larger than allowed' if machine.unconsumed_tail else 'cut'}")
    return found


def _written(name: str) -> str:
    """Return a name as that of a file, of which systems and we allow about a hundred characters."""
    text = matching.folded(name).replace("/", "~")
    if len(text) <= _WHOLE:
        return text
    return f"{text[: _WHOLE // 2]}~~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _aliases(index: Index, name: str) -> set[str]:
    """Return what an entry is called besides its name."""
    raw = index.adapters.raw.get(name, {})
    return {matching.folded(alias) for alias in raw.get("aliases", ())} - {name}


def _of_aliases(index: Index, aliases: Iterable[str]) -> dict[str, bytes]:
    found = {alias: tuple(index.owners(alias)) for alias in sorted(aliases)}
    return {_checked(alias): Index(alias_of=owners).dumps() for alias, owners in found.items()}


def _of_entry(index: Index, name: str) -> bytes:
    return Index(adapters=Entries({name: index.adapters.raw[name]})).dumps()


def _checked(alias: str) -> str:
    """Return the path of the shard of an alias.

    Raises:
        SchemaError: no file can be called so on every system.
    """
    if not can_be(alias):
        raise SchemaError("index.json", [f"alias {alias!r} cannot be the name of a file, as a sharded index wants it"])
    return path_of(alias)
