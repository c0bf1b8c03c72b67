"""A tree of digests over many files: one digest stands for all of them, and few small nodes lead to each.

    {"files": {path: digest, …}}              a leaf
    {"nodes": {"0": digest, …, "f": digest}}  a node above others

A file belongs below the hexadecimal digits of the SHA-256 of its path, one digit for each node above it. Up to MOST
files lie in one leaf, more are split by their next digit. So the same files have the same tree, however they came to
be, and two trees differ in the nodes above files that do: what has changed is found without a look at the rest.

Nodes are kept under their digests, and never change. Files are added and changed; none is ever removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .. import schemas
from ..errors import DigestError, FormatError
from . import digest

JSON: TypeAlias = Any
Files: TypeAlias = Mapping[str, str]
"""Path → digest."""
Read: TypeAlias = Callable[[str], bytes]
"""Takes the digest of a node and returns its bytes; raises the errors of its place."""

MOST = 256
_DEEPEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree, or what is new of one.

    Attributes:
        root: digest of the root.
        nodes: digest → bytes.
    """

    root: str
    nodes: Mapping[str, bytes]


def build(files: Files) -> Tree:
    """Return the tree of files."""
    nodes: dict[str, bytes] = {}
    return Tree(root=_built(files, 0, nodes), nodes=nodes)


def changed(root: str, files: Files, read: Read) -> Tree:
    """Return the tree with files added or changed, and its new nodes. Law: it is what build makes of all of them.

    Raises:
        DigestError, FormatError: a node is not what it was.
    """
    nodes: dict[str, bytes] = {}
    return Tree(root=_changed(root, files, 0, read, nodes), nodes=nodes)


def find(root: str, path: str, read: Read) -> str | None:
    """Return the digest of the file at a path, or None where there is none.

    Raises:
        DigestError, FormatError: a node is not what it was.
    """
    current: str | None = root
    for digit in _digits(path):
        if current is None:
            break
        node = _node(current, read)
        if "files" in node:
            found: str | None = node["files"].get(path)
            return found
        current = node["nodes"].get(digit)
    return None


def files_of(root: str, read: Read) -> Iterator[tuple[str, str]]:
    """Yield path and digest of every file.

    Raises:
        DigestError, FormatError: a node is not what it was.
    """
    node = _node(root, read)
    yield from node.get("files", {}).items()
    for child in node.get("nodes", {}).values():
        yield from files_of(child, read)


def differences(
    one: str | None, other: str | None, read_one: Read, read_other: Read
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the path of each file in which two trees differ, and its digests; None is a tree or file that is not there.

    Raises:
        DigestError, FormatError: a node is not what it was.
    """
    if one == other:
        return
    first, second = (_node(one, read_one) if one else {}), (_node(other, read_other) if other else {})
    if "files" in first or "files" in second:
        before = dict(files_of(one, read_one)) if one else {}
        after = dict(files_of(other, read_other)) if other else {}
        changed_paths = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
        yield from ((path, before.get(path), after.get(path)) for path in changed_paths)
        return
    below, beside = first.get("nodes", {}), second.get("nodes", {})
    for digit in sorted({*below, *beside}):
        yield from differences(below.get(digit), beside.get(digit), read_one, read_other)


def _built(files: Files, depth: int, nodes: dict[str, bytes]) -> str:
    """Return the digest of the node of files that have the same digits up to a depth; nodes gets all of them."""
    if len(files) <= MOST:
        return _kept({"files": dict(files)}, nodes)
    return _kept({"nodes": {k: _built(part, depth + 1, nodes) for k, part in _parts(files, depth).items()}}, nodes)


def _changed(root: str, files: Files, depth: int, read: Read, nodes: dict[str, bytes]) -> str:
    """Return the digest of a node with files added or changed; nodes gets the new ones."""
    node = _node(root, read)
    if "files" in node:
        return _built({**node["files"], **files}, depth, nodes)
    below = dict(node["nodes"])
    for digit, part in _parts(files, depth).items():
        child = below.get(digit)
        below[digit] = _changed(child, part, depth + 1, read, nodes) if child else _built(part, depth + 1, nodes)
    return _kept({"nodes": below}, nodes)


def _kept(node: JSON, nodes: dict[str, bytes]) -> str:
    data = schemas.canonical(node)
    found = digest.of_bytes(data)
    nodes[found] = data
    return found


def _node(known: str, read: Read) -> JSON:
    """Return a node by its digest."""
    data = read(known)
    if (actual := digest.of_bytes(data)) != known:
        raise DigestError("a node of the tree of digests", expected=known, actual=actual)
    node = schemas.loads(data, "a node of the tree of digests")
    if not isinstance(node, dict) or not any(isinstance(node.get(kind), dict) for kind in ("files", "nodes")):
        raise FormatError(f"{known} is no node of a tree of digests")
    return node


def _parts(files: Files, depth: int) -> dict[str, dict[str, str]]:
    """Return the digit at a depth → the files that have it."""
    parts: dict[str, dict[str, str]] = {}
    for path, known in files.items():
        parts.setdefault(_digits(path)[depth], {})[path] = known
    return parts


def _digits(path: str) -> str:
    """Return the digits that lead to a file."""
    return hashlib.sha256(path.encode()).hexdigest()[:_DEEPEST]
