"""What is written of a composition: its document, its adapters beside it, or a setup folder of `adapters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter import Adapter, Manifest
from ..arrangement import Arrangement, Pin
from ..composition import BatchSplit, Composition, Fuse, MultiTask, Node, Split
from ..converters import adapters as adapters_format
from ..converters import composed, native, setup_folder
from ..converters.disk import sha256
from ..converters.identity import manifest_name
from ..errors import UnsupportedError, UsageError
from . import probe as probes
from .layout import Ground, setting
from .setups import Headed

if TYPE_CHECKING:
    from ..converters.format import KnownBase, Parts
    from .setups import PerRow

TASKS = "task_ids"
"""The model input that multi_task looks its rows' tasks up in."""


def arrangement_of(setup: Headed, manifest: Manifest) -> Arrangement:
    """Return the document of a composition, without pins."""
    same = ("name", "version", "summary", "task", "labels", "license", "language", "metrics", "base", "probe", "extra")
    known = {name: getattr(manifest, name) for name in same}
    rules = "adapters" if setup.compat else ""
    return Arrangement(composition=node_of(setup), adapters={}, head=setup.head, rules=rules, **known)


def node_of(setup: Headed) -> Node:
    """Return the composition in a setup, which is not one of rows."""
    if not isinstance(setup.node, (str, Composition)):
        raise UsageError(f"{setup} is no composition that can be saved", hint="save a Stack, Fuse, Average, …")
    return setup.node


def fitting(inputs: Mapping[str, Tensor], node: Node | PerRow, ground: Ground) -> dict[str, Tensor]:
    """Return inputs with as many rows and tokens as a composition wants, and tasks where it asks for them.

    Raises:
        UsageError: its splits cover more tokens than the model reads.
    """
    if not isinstance(node, (str, Composition)):
        return dict(inputs)
    found = probes.widened(inputs, _rows(node), _tokens(node))
    longest = setting(ground.bare.config, "max_position_embeddings")
    if longest is not None and _tokens(node) > longest:
        raise UsageError(f"the splits cover {_tokens(node)} tokens, and the base model reads {longest}")
    count = _tasks(node)
    if count:
        rows = len(next(iter(found.values())))
        found[TASKS] = torch.arange(rows) % count
    return found


def _rows(node: Node) -> int:
    """Return how many rows a composition wants, 0 where any number will do."""
    if isinstance(node, str):
        return 0
    return sum(node.batch_sizes) if isinstance(node, BatchSplit) else max(map(_rows, node.children))


def _tokens(node: Node) -> int:
    """Return how many tokens a composition wants, 0 where any number will do."""
    if isinstance(node, str):
        return 0
    return sum(node.splits) if isinstance(node, Split) else max(map(_tokens, node.children))


def _tasks(node: Node) -> int:
    """Return how many tasks a composition tells apart, 0 where none."""
    if isinstance(node, str):
        return 0
    return len(node.children) if isinstance(node, MultiTask) else max(map(_tasks, node.children))


def write_folder(found: Arrangement, adapters: Mapping[str, Adapter], path: Path, *, force: bool) -> Path:
    """Write a composition and all its adapters as native files into a folder, and return its path.

    Raises:
        StateError: the folder exists and force is not set, or it cannot be written.
    """
    node, names = plainly_named(found.composition)
    files = {names.get(leaf, leaf): native.dumps(_titled(adapter)) for leaf, adapter in adapters.items()}
    beside = {composed.file_name(leaf, data): data for leaf, data in files.items()}
    pins = {
        leaf: Pin(digest=sha256(data), reference=f"./{composed.file_name(leaf, data)}") for leaf, data in files.items()
    }
    head = names.get(found.head, found.head)
    whole = replace(found, composition=node, adapters=pins, head=head)
    return composed.write(whole, beside, path, force=force)


def _titled(adapter: Adapter) -> Adapter:
    """Return an adapter with a name that its file can have; fusion layers are called after their adapters."""
    name = manifest_name(adapter.manifest.name, "adapter")
    return replace(adapter, manifest=replace(adapter.manifest, name=name))


def in_their_words(setup: Headed, adapters: Mapping[str, Adapter], base: KnownBase | None) -> dict[str, Parts]:
    """Return name → what its folder in a setup folder of `adapters` holds, of every adapter.

    base: the base model, for what the format can say only in numbers that depend on it.

    Raises:
        UnsupportedError: the format has no word for adapters, each of which is told.
    """
    node, found, faults = node_of(setup), {}, []
    for name, adapter in adapters.items():
        try:
            said = adapters_format.FORMAT.rewritten(adapter, base)
            found[name] = setup_folder.encode(said, setup_folder.folder_name(node, name))
        except UnsupportedError as error:
            faults.append(f"{name}: {error.message}")
    if faults:
        raise UnsupportedError(
            f"the adapters format cannot say {node}: {'; '.join(faults)}", hint="write it in the native format"
        )
    return found


def write_setup(
    setup: Headed, adapters: Mapping[str, Adapter], encoded: Mapping[str, Parts], path: Path, *, force: bool
) -> Path:
    """Write a setup folder of `adapters` and return its path.

    encoded: what in_their_words made of the adapters.

    Raises:
        UnsupportedError: the format has no word for the composition.
        StateError: as write_folder.
    """
    node = node_of(setup)
    head = setup.head or _head_of_fusion(node, adapters)
    return setup_folder.write(path, node, head, encoded, adapters_format.FORMAT.write, force=force)


def _head_of_fusion(node: Node, adapters: Mapping[str, Adapter]) -> str:
    """Return the fusion layer that answers with its own head, "" if none does."""
    from ..methods import is_head

    headed = isinstance(node, Fuse) and any(is_head(config) for config in adapters[node.key].config)
    return node.key if isinstance(node, Fuse) and headed else ""


def plainly_named(node: Node) -> tuple[Node, dict[str, str]]:
    """Return a composition whose fusion layers have names without commas, and name → new name of these.

    >>> plainly_named(Fuse("a", "b"))
    (Fuse('a', 'b', name='a+b'), {'a,b': 'a+b'})
    """
    if isinstance(node, str):
        return node, {}
    names: dict[str, str] = {}
    children = []
    for child in node.children:
        made, inner = plainly_named(child)
        children.append(made)
        names |= inner
    if isinstance(node, Fuse):
        plain = node.key.replace(",", "+").replace(" ", "-")
        names |= {node.key: plain} if plain != node.key else {}
        return Fuse(*children, name=plain), names
    return node.of(children), names
