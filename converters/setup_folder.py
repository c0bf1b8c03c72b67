"""Setup folders of `adapters`: adapter_setup.json, and a folder for each adapter, fusion layer and head in it.

    node  = {"type": "single", "children": [name]} | {"type": kind, "children": [node, …], "kwargs": {…}}
    setup = {"adapter_setup": node, "head_setup": null | true | name | [name, …] | node, "version": …}

Source: adapters 1.3.0, composition.py (to_dict, from_dict) and model_mixin.py (save_adapter_setup, load_adapter_setup).
"""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Adapter, MethodConfig
from ..composition import Average, BatchSplit, Composition, Fuse, Node, Parallel, last, leaves, make, to_json
from ..errors import FormatError, UnsupportedError, UsageError
from ..methods import FusionConfig
from . import json_text
from .disk import read_bounded, write_atomic, write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from .format import Parts

    WriteParts = Callable[[Parts, Path, bool], Path]

DOCUMENT = "adapter_setup.json"
VERSION = "adapters.1.3.0"
LIMIT = 4 * 2**20
"""Largest document, in bytes."""

MOST_CHILDREN = 1000
"""So many parts a composition may have; one with ten is large."""

LONGEST_NAME = 200
"""Characters of the name of an adapter; folders are named after it."""

LARGEST = 1e30
"""Largest number among weights and sizes that means anything."""

KINDS: Mapping[str, str] = {
    "Stack": "stack",
    "Fuse": "fuse",
    "Split": "split",
    "BatchSplit": "batch_split",
    "Parallel": "parallel",
    "Average": "average",
    "MultiTask": "multi_task",
}
"""Their names of compositions → ours."""

ROOT_HEAD = "head"
"""What the head of a model is called that has only one; it lies in the folder itself."""

_AGAIN = "save the setup again with the library that made it"


@dataclass(frozen=True, slots=True)
class Setup:
    """A setup folder.

    Attributes:
        node: the composition; each fusion layer has a name.
        folders: name of an adapter, fusion layer or head in it → its folder.
        head: name of the adapter whose head answers, "" where heads follow the composition.
        headless: whether no head answers, whatever the adapters have.
    """

    node: Composition
    folders: Mapping[str, Path]
    head: str = ""
    headless: bool = False


def detect(path: Path) -> bool:
    """Return whether path is a setup folder."""
    return os.path.lexists(path / DOCUMENT)


def read(path: Path) -> Setup:
    """Return the setup in a folder.

    Raises:
        FormatError: the document is malformed or nests what may not be nested, or a folder is missing.
        UnsupportedError: several heads answer that are not those of the adapters.
    """
    what = str(path / DOCUMENT)
    document = json_text.loads(read_bounded(path / DOCUMENT, LIMIT, inside=path), what)
    if not isinstance(document, dict) or not isinstance(document.get("adapter_setup"), dict):
        raise FormatError(f"{what}: adapter_setup is no object", hint=_AGAIN)
    node = _node(document["adapter_setup"], what)
    if not isinstance(node, Composition):
        node = make("stack", [node], {})
    folders = {name: _folder(path, name, what) for name in leaves(node)}
    for fuse in _fusions(node):
        folders[fuse.key] = _fusion_folder(path, fuse, what)
    head, home = _head(path, document.get("head_setup"), node, what)
    headless = not document.get("head_setup") and _last(node) in ("fuse", "average", "split", "multi_task")
    folders |= {head: home} if home is not None else {}
    missing = [f"there is no folder of {name!r}" for name, folder in folders.items() if not folder.is_dir()]
    if missing:
        raise FormatError(f"{what}: the setup is not whole", faults=missing, hint="fetch the whole setup again")
    return Setup(node, folders, head, headless)


def write(
    path: Path, node: Node, head: str, encoded: Mapping[str, Parts], write_parts: WriteParts, *, force: bool = False
) -> Path:
    """Write a setup folder as a whole, and return its path.

    Args:
        path: the folder.
        node: the composition.
        head: name of the adapter whose head answers, or "".
        encoded: name of each adapter and fusion layer → what its folder holds.
        write_parts: writes that.
        force: write into a folder that holds something.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    return write_folder(path, partial(_fill, node, head, encoded, write_parts), force=force)


def document(node: Node, head: str) -> dict[str, JSON]:
    """Return adapter_setup.json.

    Raises:
        UnsupportedError: it would be read as another composition.
    """
    composition = node if isinstance(node, Composition) else make("stack", [node], {})
    return {"adapter_setup": _written(composition), "head_setup": folder_name(node, head) or None, "version": VERSION}


def encode(adapter: Adapter, name: str) -> Parts:
    """Return what the folder of an adapter holds, under the name that it has in the setup.

    Raises:
        UnsupportedError: the format has no word for what it computes.
    """
    from . import adapters

    named = dataclasses.replace(adapter, config=tuple(_naming(config, name) for config in adapter.config))
    renamed = dataclasses.replace(named, manifest=dataclasses.replace(named.manifest, name=name))
    for candidate in (named, renamed):
        parts = adapters.encode(candidate)
        if all(document.get("name") == name for document in parts.documents.values()):
            return parts
    raise UnsupportedError(
        f"the files of adapter {name!r} keep another name that it had", hint="rename it in the composition"
    )


def _naming(config: MethodConfig, name: str) -> MethodConfig:
    """Return a configuration; that of a fusion layer names its adapters as the setup does, whose folders it is for."""
    return dataclasses.replace(config, adapters=tuple(name.split(","))) if isinstance(config, FusionConfig) else config


def folder_name(node: Node, name: str) -> str:
    """Return the folder of an adapter or fusion layer in a setup folder."""
    fuse = next((fuse for fuse in _fusions(node) if fuse.key == name), None)
    return name if fuse is None else _default_key(fuse)


def _default_key(fuse: Fuse) -> str:
    return ",".join(last(child) for child in fuse.children)


def _node(data: JSON, what: str) -> Node:
    """Return the node that a part of the document describes."""
    children = data.get("children") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(children, list) or not children:
        raise FormatError(f"{what}: a node has no children", hint=_AGAIN)
    if len(children) > MOST_CHILDREN:
        raise FormatError(f"{what}: a node has {len(children)} children, more than {MOST_CHILDREN}", hint=_AGAIN)
    if data.get("type") == "single":
        if len(children) != 1 or not isinstance(children[0], str):
            raise FormatError(f"{what}: a single node is not one name", hint=_AGAIN)
        return children[0]
    kind = KINDS.get(str(data.get("type")))
    if kind is None:
        raise FormatError(f"{what}: {data.get('type')!r} is no kind of composition", hint=_AGAIN)
    return _made(kind, [_node(child, what) for child in children], data.get("kwargs") or {}, what)


def _made(kind: str, children: list[Node], settings: JSON, what: str) -> Composition:
    if not isinstance(settings, dict):
        raise FormatError(f"{what}: kwargs of {kind} is no object", hint=_AGAIN)
    if not all(abs(number) <= LARGEST for value in settings.values() if _is_numbers(value) for number in value):
        raise FormatError(f"{what}: {kind} has numbers beyond {LARGEST:g}", hint=_AGAIN)
    if kind == "fuse" and len(children) < 2:
        raise FormatError(f"{what}: a fusion of one adapter has no folder of its own", hint=_AGAIN)
    if kind == "average":
        settings = {**settings, "normalize_weights": False}
        total = sum(settings["weights"]) if _is_numbers(settings.get("weights")) else 1.0
        if not math.isclose(total, 1.0, rel_tol=1e-6):
            warnings.warn(
                f"{what}: the weights of an average add up to {total:g}; they are taken as they stand, though "
                "`adapters` divides them by their sum when it loads the folder",
                UserWarning,
                stacklevel=2,
            )
    try:
        made = make(kind, children, settings)
    except UsageError as error:
        raise FormatError(f"{what}: {error.message}", hint=error.hint) from None
    return Fuse(*made.children, name=_default_key(made).replace(",", "+")) if isinstance(made, Fuse) else made


def _is_numbers(value: JSON) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def _fusions(node: Node) -> Iterator[Fuse]:
    """Yield the fusions in a node."""
    if isinstance(node, Composition):
        if isinstance(node, Fuse):
            yield node
        for child in node.children:
            yield from _fusions(child)


def _folder(path: Path, name: str, what: str) -> Path:
    """Return where the folder of a name is to lie.

    Raises:
        FormatError: it would lie outside, or nowhere.
    """
    parts = name.split("/") if name.isprintable() and len(name) <= LONGEST_NAME else [""]
    plain = all(part not in ("", ".", "..") for part in parts)
    try:
        inside = plain and (path / name).resolve().is_relative_to(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{what}: {name[:60]!r} is no folder: {error}", hint=_AGAIN) from None
    if not inside:
        raise FormatError(f"{what}: {name[:60]!r} leads out of the folder", hint=_AGAIN)
    return path / name


def _fusion_folder(path: Path, fuse: Fuse, what: str) -> Path:
    """Return the folder of a fusion layer: named like its adapters, or, if it had another name, one that says so."""
    name = _default_key(fuse)
    folder = _folder(path, name, what)
    if folder.is_dir():
        return folder
    for candidate in sorted(path.glob("*/adapter_fusion_config.json")):
        found = json_text.loads(read_bounded(candidate, LIMIT, inside=path), str(candidate))
        if isinstance(found, dict) and found.get("adapter_names") == name.split(","):
            return candidate.parent
    return folder


def _head(path: Path, setup: JSON, node: Composition, what: str) -> tuple[str, Path | None]:
    """Return whose head answers, and its folder where it is none of the adapters."""
    if setup is None or setup is False:
        return "", None
    if setup is True:
        return ROOT_HEAD, path
    if isinstance(setup, list) and len(setup) == 1:
        setup = setup[0]
    fuse = next((fuse for fuse in _fusions(node) if _default_key(fuse) == setup), None)
    if fuse is not None:
        return fuse.key, None
    if isinstance(setup, str):
        return setup, None if setup in leaves(node) else _folder(path, setup, what)
    heads = _node(setup, what) if isinstance(setup, dict) else setup
    if _follows(heads, node):
        return "", None
    said = heads if isinstance(heads, Composition) else f"the heads {heads}"
    raise UnsupportedError(f"{what}: {said} answer, which are not those of the adapters")


def _follows(heads: Node | JSON, node: Composition) -> bool:
    """Return whether heads are those that answer where none are said: each copy's, or each row's own.

    A list is one head for each copy of the batch; where there are no copies, each would answer for all rows.
    """
    block = node.children[-1] if node.type == "stack" else node
    if not isinstance(block, (Parallel, BatchSplit)):
        return False
    own = [last(child) for child in block.children]
    if isinstance(heads, list):
        return isinstance(block, Parallel) and heads == own
    # The sizes of rows are compared too.
    return isinstance(heads, Composition) and heads == block.of(own)


def _last(node: Node) -> str:
    """Return the kind of what the library looks for heads in: the last block of a stack, or the composition itself."""
    if isinstance(node, str):
        return "single"
    return _last(node.children[-1]) if node.type == "stack" else node.type


def _written(node: Node) -> dict[str, JSON]:
    """Return a node in their words."""
    if isinstance(node, str):
        return {"type": "single", "children": [node]}
    if isinstance(node, Average) and not math.isclose(sum(node.weights), 1.0, rel_tol=1e-6):
        raise UnsupportedError(
            f"{node} cannot be written for adapters, which divides the weights by their sum when it loads them",
            hint="write it in our own format",
        )
    theirs = next(name for name, kind in KINDS.items() if kind == node.type)
    settings = {key: value for key, value in to_json(node).items() if key not in ("type", "children", "name")}
    found = {"type": theirs, "children": [_written(child) for child in node.children]}
    return found | ({"kwargs": settings} if settings else {})


def _fill(node: Node, head: str, encoded: Mapping[str, Parts], write_parts: WriteParts, folder: Path) -> None:
    for name, parts in encoded.items():
        write_parts(parts, folder / folder_name(node, name), True)
    write_atomic(folder / DOCUMENT, [json_text.file(document(node, head), DOCUMENT)], force=True)
