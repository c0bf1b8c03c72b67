"""The verbs that join the floors, and what `adapterhub` itself exports. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ..adapter import JSON, Adapter, Manifest
    from ..architectures import Architecture
    from ..loader import AdapterSet
    from .base_models import PACKAGED, BaseModel, is_folder, load_base, load_model
    from .composing import Composed, compose
    from .converting import convert
    from .describing import Described, describe, read_architecture
    from .fetching import fetch
    from .merging import merge
    from .pushing import Pushed, Wanted
    from .running import Opened, Verdict, classify, open_adapter
    from .training import FUSION, HOULSBY, Trained, train
    from .verifying import Check, verify
else:
    _HOMES = {
        "base_models": ("PACKAGED", "BaseModel", "is_folder", "load_base", "load_model"),
        "composing": ("Composed", "compose"),
        "converting": ("convert",),
        "describing": ("Described", "describe", "read_architecture"),
        "fetching": ("fetch",),
        "merging": ("merge",),
        "pushing": ("Pushed", "Wanted"),
        "running": ("Opened", "Verdict", "classify", "open_adapter"),
        "training": ("FUSION", "HOULSBY", "Trained", "train"),
        "verifying": ("Check", "verify"),
    }

    def __getattr__(name: str) -> object:
        """Return a name from the module that defines it, and keep it here (PEP 562): a command loads what it needs."""
        for home, names in _HOMES.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f".{home}", __name__), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FUSION",
    "HOULSBY",
    "PACKAGED",
    "BaseModel",
    "Check",
    "Composed",
    "Described",
    "Opened",
    "Pushed",
    "Trained",
    "Verdict",
    "Wanted",
    "attach",
    "classify",
    "compose",
    "convert",
    "describe",
    "fetch",
    "is_folder",
    "load_base",
    "load_model",
    "merge",
    "open_adapter",
    "pull",
    "push",
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


def pull(
    reference: str,
    *,
    base: str | None = None,
    format: str | None = None,  # noqa: A002
    method: str | None = None,
) -> Path:
    """Return the path of an adapter on this machine, fetched if need be, its digest checked; see `fetching.fetch`."""
    from . import fetching

    return fetching.fetch(reference, base=base, format=format, method=method).path


def push(
    source: str | Path,
    to: str | Path,
    *,
    name: str | None = None,
    formats: Sequence[str] | None = None,
    base: str | None = None,
    base_id: str | None = None,
    license: str | None = None,  # noqa: A002
    create: bool = False,
    private: bool = False,
    sign: str | Path | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Publish an adapter or a composition into a registry or onto the Hugging Face Hub, and return what that changed.

    Args:
        source: a file or folder of any format, a composition, or the reference of what is published elsewhere.
        to: a folder, a bucket (s3://, az://, gs://), oci://host/name, the name of a registry in the settings, or
            hf://user/repo.
        name: `name`, `name@1.0.0` or `owner/name@1.0.0`; None is as the adapter says.
        formats: of native, peft and adapters; None is native, and on the Hub the others too if they can say it exactly.
        base: folder or Hub id of the base model to load, for fingerprint and probe.
        base_id: Hub id of the base model, where the adapter does not name it.
        license: SPDX expression, where the adapter does not name its licence.
        create: make a registry where there is none.
        private: whether a repository that is made is private.
        sign: a private key in PEM, which signs the index in the same step.
        dry_run: write nothing.

    Raises:
        UsageError, StateError, FormatError, SchemaError, BaseMismatchError, UnsupportedError, NotFoundError,
        AuthenticationError, OfflineError: see `hub.pushing.push`.
    """
    from . import pushing

    wanted = pushing.Wanted(name=name, formats=formats, base=base, base_id=base_id, license=license)
    key = None if sign is None else Path(sign)
    return pushing.push(source, to, wanted=wanted, create=create, private=private, sign=key, dry_run=dry_run)


def read(path: str | Path, *, options: Mapping[str, JSON] | None = None) -> Adapter:
    """Return the adapter in a file or folder of any known format; see `converters.read`."""
    from .. import converters

    return converters.read(Path(path), options=options)


def write(
    adapter: Adapter,
    path: str | Path,
    *,
    format: str = "native",  # noqa: A002
    force: bool = False,
    options: Mapping[str, JSON] | None = None,
) -> Path:
    """Write an adapter to a file or folder and return its path; see `converters.write`."""
    from .. import converters

    return converters.write(adapter, Path(path), format=format, force=force, options=options)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of an adapter on this machine; of a native file only the header is read, without torch."""
    from ..converters import native_head

    return native_head.read_manifest(path)[1] if native_head.detect(path) else read(path).manifest
