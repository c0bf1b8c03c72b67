"""How adapters come from files and references, and in which dtype they go back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..adapter import Adapter
from ..architectures import Architecture
from ..converters import listed, read
from ..converters.identity import own_version
from ..errors import StateError
from ..registry import Reference, Store, pull
from ..registry.native_copies import native
from ..registry.pulling import NATIVE
from .assembly import Assembly, assembled, is_composition
from .known_base import KnownBase


def fetch(reference: str | Path, base: str | None, model: KnownBase, row: Architecture) -> Adapter | Assembly:
    """Return the adapter or composition behind a reference; a path is read, everything else is pulled first.

    base: Hub id of the base model, to choose among a version's artifacts, or None for the first.
    model: the model that it is to meet.
    row: its family.
    """
    path = reference if isinstance(reference, Path) else None
    is_native = False
    if path is not None and is_composition(path):
        parsed = Reference(scheme="path", name=str(path))
        return assembled(pull(parsed), row)
    if path is None:
        pulled = pull(str(reference), base=base)
        if is_composition(pulled.path):
            return assembled(pulled, row)
        if pulled.packed:
            pulled = native(pulled, Store(), listed.write, by=own_version())
            is_native = True
        path = pulled.path
        is_native = is_native or (pulled.artifact is not None and pulled.artifact.format == NATIVE)
    # Counts and values are looked at when the tensors are held against the model.
    return read(path, format=NATIVE if is_native else None, finite=False, counted=False, row=row, base=model)


def exactly(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors in another dtype that loses nothing of them."""
    cast = {key: tensor.to(dtype) for key, tensor in tensors.items()}
    lossy = [key for key, tensor in tensors.items() if not torch.equal(cast[key].to(tensor.dtype), tensor)]
    if lossy:
        raise StateError(
            f"{dtype} cannot hold {lossy[0]} exactly" + (f", nor {len(lossy) - 1} more" if lossy[1:] else ""),
            hint="round the adapter first and measure it again, or save it in its own dtype",
        )
    return cast
