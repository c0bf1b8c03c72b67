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
    if isinstance(reference, Path):
        if is_composition(reference):
            return assembled(pull(Reference(scheme="path", name=str(reference))), row)
        path, form = reference, None
    else:
        pulled = pull(reference, base=base)
        if is_composition(pulled.path):
            return assembled(pulled, row)
        is_native = pulled.packed or (pulled.artifact is not None and pulled.artifact.format == NATIVE)
        if pulled.packed:
            pulled = native(pulled, Store(), listed.write, by=own_version())
        path, form = pulled.path, NATIVE if is_native else None
    # Counts and values are looked at when the tensors are held against the model.
    return read(path, format=form, finite=False, counted=False, row=row, base=model)


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
