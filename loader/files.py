"""How adapters come from files and references, and in which dtype they go back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..adapter import Adapter
from ..architectures import Architecture
from ..converters import read
from ..errors import StateError
from ..registry import pull


def fetch(reference: str | Path, base: str | None) -> Path:
    """Return where the adapter behind a reference lies; a path is taken as it is, everything else is pulled first.

    base: Hub id of the base model, to choose among a version's artifacts, or None for the first.
    """
    return reference if isinstance(reference, Path) else pull(reference, base=base).path


def opened(path: Path, row: Architecture) -> Adapter:
    """Return the adapter that lies at a path; row is the family of the model that it is to meet."""
    # Counts and values are looked at when the tensors are held against the model.
    return read(path, finite=False, counted=False, row=row)


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
