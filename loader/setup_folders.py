"""Folders of `adapters` that hold a composition: adapter_setup.json, and a folder for each adapter, fusion and head.

The document says how the adapters work together:
`{"type": "Stack", "children": [{"type": "single", "children": ["a"]}, …], "kwargs": {…}}`. Folders are called like the
adapters; a fusion layer's name is made of its adapters' names, or is one of its own, which the document does not keep.

Source: adapters 1.3.0, composition.py (`to_dict`, `from_dict`) and model_mixin.py (`save_adapter_setup`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import schemas
from ..adapter import JSON
from ..composition import BatchSplit, Fuse, Node, Parallel, Stack, fusions, leaves, make
from ..converters import SETUP
from ..converters.files import Files, Folder, opened
from ..errors import FormatError, UnsupportedError, UsageError

DOCUMENT_LIMIT = 4 * 2**20
"""Bytes that a document may have."""

DEEPEST = 10
"""Compositions inside compositions."""

MOST = 1000
"""Adapters in a composition, and folders that are looked at."""

KINDS = {
    "Stack": "stack",
    "Fuse": "fuse",
    "Split": "split",
    "BatchSplit": "batch_split",
    "Parallel": "parallel",
    "Average": "average",
    "MultiTask": "multi_task",
}
"""What the library calls the kinds of compositions, and what they are called here."""


@dataclass(frozen=True, slots=True)
class SetupFolder:
    """What a folder says of a composition.

    Attributes:
        node: the composition.
        folders: name of an adapter, a fusion layer or a head → where it lies.
        head: name of the head that answers in place of those of the composition, False where none does, or None.
    """

    node: Node
    folders: Mapping[str, Path]
    head: str | Literal[False] | None = None


def setup_at(path: Path) -> SetupFolder | None:
    """Return the composition in a folder, None where there is none.

    Raises:
        FormatError: its document is wrong, or a folder is missing or elsewhere; every fault is listed.
        UnsupportedError: it lies in an archive, or says what compositions here cannot be.
    """
    files = opened(path)
    if files is None or SETUP not in files.names():
        return None
    if not isinstance(files, Folder):
        raise UnsupportedError(
            f"{path} is an archive of a composition of adapters", hint="unpack it, and load the folder"
        )
    what = str(path / SETUP)
    document = schemas.loads(files.document(SETUP, DOCUMENT_LIMIT), what)
    if not isinstance(document, dict):
        raise FormatError(f"{what} is no JSON object", hint=_AGAIN)
    try:
        node = _node(document.get("adapter_setup"), files, what)
    except UsageError as error:
        raise FormatError(f"{what} describes no composition: {error.message}", hint=_AGAIN) from None
    heads = _heads(document.get("head_setup"), what)
    names = dict.fromkeys([*leaves(node), *fusions(node), *heads])
    if len(names) > MOST:
        raise FormatError(f"{what} names {len(names)} adapters, allowed are {MOST}", hint=_AGAIN)
    folders = _folders(path, names) | ({ROOT_HEAD: path} if document.get("head_setup") is True else {})
    head = ROOT_HEAD if ROOT_HEAD in folders else _answering(node, heads)
    return SetupFolder(node, folders, _own(node, folders) if head is None else head)


ROOT_HEAD = "head"
"""What the head of a model's class goes by, which lies beside the document and has no name."""

_AGAIN = "save the setup again with the library that made it"


def _node(value: JSON, files: Files, what: str, depth: int = 0) -> Node:
    """Return the composition that a value describes.

    Raises:
        FormatError: it describes none.
        UsageError: it nests what may not be nested.
    """
    children = value.get("children") if isinstance(value, dict) else None
    if depth > DEEPEST or not isinstance(children, list) or not 0 < len(children) <= MOST:
        raise FormatError(f"{what}: adapter_setup is no composition of adapters", hint=_AGAIN)
    kind = value.get("type")
    if kind == "single" and len(children) == 1 and isinstance(children[0], str):
        return children[0]
    settings = value.get("kwargs", {})
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(settings, dict):
        raise FormatError(f"{what}: {str(kind)[:40]!r} is none of {', '.join(KINDS)}", hint=_AGAIN)
    if unknown := value.keys() - {"type", "children", "kwargs"}:
        raise FormatError(f"{what}: a {kind} has the unknown field {sorted(unknown)[0][:40]!r}", hint=_AGAIN)
    nodes = [_node(child, files, what, depth + 1) for child in children]
    found = make(KINDS[kind], nodes, _settings(settings))
    return _named(found, files) if isinstance(found, Fuse) else found


def _settings(given: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return settings without those that say nothing; the library divides weights by their sum again."""
    return {name: value for name, value in given.items() if value is not None}


def _named(fuse: Fuse, files: Files) -> Fuse:
    """Return a fusion with the name of its folder, where that is another one than its adapters make."""
    if fuse.key in files.names():
        return fuse
    wanted = [leaves(child)[-1] for child in fuse.children]
    found = [name for name, members in _fusion_folders(files) if members == wanted]
    return Fuse(*fuse.children, name=found[0]) if len(found) == 1 else fuse


def _fusion_folders(files: Files) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each folder that holds a fusion layer, and the names of its adapters."""
    for name in sorted(files.names())[:MOST]:
        inner = opened(files.path / name)
        if inner is not None and "adapter_fusion_config.json" in inner.names():
            document = schemas.loads(inner.document("adapter_fusion_config.json", DOCUMENT_LIMIT), str(inner.path))
            members = document.get("adapter_names") if isinstance(document, dict) else None
            if isinstance(members, list):
                yield name, members


def _heads(value: JSON, what: str) -> list[str]:
    """Return the names of the heads that a value names.

    Raises:
        FormatError: it is nothing that names heads.
    """
    if value is None or value is True:
        return []
    if isinstance(value, str):
        return [value]
    children = value.get("children") if isinstance(value, dict) else value
    if isinstance(children, list) and len(children) <= MOST:
        names = [_head(child) for child in children]
        if names and all(names):
            return [name for name in names if name]
    raise FormatError(f"{what}: head_setup is nothing that names heads", hint=_AGAIN)


def _head(child: JSON) -> str:
    """Return the name that one part of a composition of heads is, or ""."""
    inner = child.get("children") if isinstance(child, dict) and child.get("type") == "single" else [child]
    return inner[0] if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], str) else ""


def _answering(node: Node, heads: list[str]) -> str | None:
    """Return the head that is to answer, None where the composition's own do.

    Raises:
        UnsupportedError: several do that are not those of the adapters.
    """
    others = [name for name in heads if name not in leaves(node)]
    if not others:
        return None
    if len(heads) > 1:
        raise UnsupportedError(
            f"the setup answers with the heads {', '.join(heads)}, which are not those of its adapters",
            hint="load the folders one by one, and activate one head",
        )
    return others[0]


def _own(node: Node, folders: Mapping[str, Path]) -> Literal[False] | None:
    """Return None where the composition's own heads answer in the library: the last adapter's, or one for each row."""
    last = node.children[-1] if isinstance(node, Stack) else node
    each = last.children if isinstance(last, (Parallel, BatchSplit)) else [last] if isinstance(last, str) else []
    headed = [(folders[leaves(child)[-1]] / "head_config.json").is_file() for child in each]
    return None if headed and all(headed) else False


def _folders(home: Path, names: Mapping[str, None]) -> dict[str, Path]:
    """Return name → folder.

    Raises:
        FormatError: a name is that of no folder here; every such name is told.
    """
    faults, found = [], {}
    for name in names:
        path = home / name
        if not name or name in (".", "..") or set("/\\\x00") & set(name) or len(name) > 255:
            faults.append(f"{name[:80]!r} is not the name of a folder in it")
        elif not path.is_dir():
            faults.append(f"the folder {name!r} is missing")
        elif path.resolve().parent != home.resolve():
            faults.append(f"the folder {name!r} is a link that leads elsewhere")
        found[name] = path
    if faults:
        raise FormatError(f"the setup {home} is not whole", faults=faults[:20], hint="fetch the whole folder again")
    return found
