"""A composition with all its adapters in memory: what a saved one becomes when it is loaded."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import arrangement
from ..adapter import Adapter, Manifest
from ..architectures import Architecture
from ..composition import Node
from ..composition_file import document_of
from ..converters import read, setup_folder
from ..methods import is_head
from ..registry import Pulled


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """A composition with its adapters.

    Attributes:
        node: how they work together.
        adapters: name in it, fusion layers and the head too → adapter.
        manifest: what is known about the whole.
        head: name of the adapter whose head answers, "" where the heads follow the composition.
        rules: "adapters" where it computes what `adapters` 1.3.0 does, else "".
    """

    node: Node
    adapters: Mapping[str, Adapter]
    manifest: Manifest
    head: str = ""
    rules: str = ""


def is_composition(path: Path) -> bool:
    """Return whether a saved composition lies at a path: ours, or a setup folder of `adapters`."""
    return document_of(path) is not None or setup_folder.detect(path)


def assembled(pulled: Pulled, row: Architecture | None = None) -> Assembly:
    """Return the composition that was pulled, with its adapters.

    row: the family of the model that it is to meet.

    Raises:
        FormatError: an adapter, or the setup, is not whole.
    """
    if setup_folder.detect(pulled.path):
        return _of_setup(pulled, row)
    found = arrangement.read(pulled.path)
    names = arrangement.used(found.composition, found.head)
    adapters = {name: read(pulled.parts[name].path, finite=False, row=row) for name in names}
    manifest = dataclasses.replace(found.manifest, name=found.name or pulled.name)
    return Assembly(found.composition, adapters, manifest, found.head, found.rules)


def _of_setup(pulled: Pulled, row: Architecture | None) -> Assembly:
    setup = setup_folder.read(pulled.path)
    adapters = {name: read(folder, finite=False, row=row) for name, folder in setup.folders.items()}
    headed = [name for name, one in adapters.items() if any(map(is_head, one.config))]
    if setup.headless and headed:
        warnings.warn(
            f"{pulled.path} says no head for {setup.node}, so `adapters` answers with none; those of "
            f"{', '.join(headed)} are left out",
            UserWarning,
            stacklevel=2,
        )
        adapters = {name: _headless(one) for name, one in adapters.items()}
    base = dataclasses.replace(next(iter(adapters.values())).manifest.base, fingerprint=None)
    return Assembly(setup.node, adapters, Manifest(name=pulled.name, base=base), setup.head, "adapters")


def _headless(adapter: Adapter) -> Adapter:
    """Return an adapter without its head."""
    config = tuple(part for part in adapter.config if not is_head(part))
    tensors = {key: tensor for key, tensor in adapter.tensors.items() if not key.startswith("head.")}
    return Adapter(config, tensors, dataclasses.replace(adapter.manifest, labels=()))
