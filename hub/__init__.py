"""The verbs that join the floors, and what `adapterhub` itself exports. Importing this loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import registry
from ..adapter import Adapter, Manifest
from .base_models import PACKAGED, BaseModel, is_folder, load_base, load_model
from .composing import Composed, compose
from .converting import convert
from .describing import Described, describe, read_architecture
from .running import Opened, Verdict, classify, open_adapter
from .training import FUSION, HOULSBY, Trained, train
from .verifying import Check, verify

if TYPE_CHECKING:
    from torch import nn

    from ..architectures import Architecture
    from ..loader import AdapterSet

__all__ = [
    "FUSION",
    "HOULSBY",
    "PACKAGED",
    "BaseModel",
    "Check",
    "Composed",
    "Described",
    "Opened",
    "Trained",
    "Verdict",
    "attach",
    "classify",
    "compose",
    "convert",
    "describe",
    "is_folder",
    "load_base",
    "load_model",
    "open_adapter",
    "pull",
    "read",
    "read_architecture",
    "read_manifest",
    "train",
    "verify",
    "write",
]


def attach(
    model: nn.Module,
    *,
    architecture: Architecture | None = None,
    base_id: str | None = None,
    compat: str | None = None,
) -> AdapterSet:
    """Return an empty set of adapters for a model; see `loader.attach`."""
    from .. import loader

    return loader.attach(model, architecture=architecture, base_id=base_id, compat=compat)


def pull(reference: str, *, base: str | None = None, format: str | None = None) -> Path:  # noqa: A002
    """Return the path of an adapter on this machine, fetched if need be, its digest checked; see `registry.pull`."""
    return registry.pull(reference, base=base, format=format).path


def read(path: str | Path) -> Adapter:
    """Return the adapter in a file or folder of any known format; see `converters.read`."""
    from .. import converters

    return converters.read(Path(path))


def write(adapter: Adapter, path: str | Path, *, format: str = "native", force: bool = False) -> Path:  # noqa: A002
    """Write an adapter to a file or folder and return its path; see `converters.write`."""
    from .. import converters

    return converters.write(adapter, Path(path), format=format, force=force)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of an adapter on this machine; of a native file only the header is read, without torch."""
    from ..converters import native_head

    return native_head.read_manifest(path)[1] if native_head.detect(path) else read(path).manifest
