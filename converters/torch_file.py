"""Files of `torch.save` (.bin, .pt) that hold a flat state dict, read without unpickling.

torch_containers.py opens the file, pickle_data.py reads its pickle as data, torch_records.py finds the tensors in it.
Each storage's size is compared with the bytes that are there before anything of that size is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError
from .disk import Mapped, content, open_regular
from .safetensors_header import LONGEST_NAME
from .torch_containers import StorageBytes, open_container
from .torch_records import Storage, View, entries_of, view_of

if TYPE_CHECKING:
    import torch

FILE_LIMIT = 2 * 2**30
"""Largest file that is read, in bytes."""

MOST_SHOWN = 20
"""Faults told one by one."""


def read_tensors(path: Path, *, inside: Path | None = None) -> dict[str, torch.Tensor]:
    """Return name → tensor of a file; nothing of the file is executed.

    Args:
        path: the file.
        inside: a folder that the file must lie in, its links followed.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is no file of tensors, damaged, or hostile.
    """
    return load(path, inside=inside)[0]


def load(path: Path, *, inside: Path | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """Return name → tensor of a file, and the digest of the file.

    Raises:
        NotFoundError, FormatError: as read_tensors.
    """
    with open_regular(path, inside=inside) as file:
        size = file.seek(0, os.SEEK_END)
        if size > FILE_LIMIT:
            raise FormatError(f"{path} has {size} bytes, more than any adapter needs", hint=_AGAIN)
        data = content(file, path)
    tensors = loads(data, str(path))
    return tensors, f"sha256:{hashlib.sha256(data).hexdigest()}"


def loads(data: bytearray | Mapped, what: str) -> dict[str, torch.Tensor]:
    """Return name → tensor of a file's bytes; what names the file in errors.

    Raises:
        FormatError: as read_tensors.
    """
    value, storage_bytes = open_container(data, what)
    entries = entries_of(value)
    if entries is None:
        raise FormatError(f"{what} does not hold a dictionary of tensors", hint=_AGAIN)
    views: dict[str, View] = {}
    faults: list[str] = []
    for name, item in entries.items():
        view = view_of(item) if len(name) <= LONGEST_NAME else None
        if view is None:
            faults.append(f"entry {name[:200]!r} is no tensor, or one of an unknown kind")
        else:
            views[name] = view
    contents = _contents(views, storage_bytes, faults)
    if faults:
        shown = faults[:MOST_SHOWN] + [f"… and {len(faults) - MOST_SHOWN} more"] * (len(faults) > MOST_SHOWN)
        raise FormatError(f"{what} is no correct file of tensors", faults=shown, hint=_AGAIN)
    return _tensors(views, contents, what)


_AGAIN = "the file is damaged or not a file of tensors; fetch it again, or ask its author for a safetensors file"


def _contents(views: Mapping[str, View], storage_bytes: StorageBytes, faults: list[str]) -> dict[Storage, bytes]:
    """Return the bytes of each storage, having found that every view lies in its storage and these in the file."""
    found: dict[Storage, bytes] = {}
    for name, view in views.items():
        data = found.get(view.storage)
        data = storage_bytes(view.storage) if data is None else data
        if data is None or len(data) != view.storage.count * view.storage.width:
            faults.append(f"tensor {name!r}: its storage is missing or has another size than claimed")
        elif not view.fits():
            faults.append(f"tensor {name!r}: shape {view.shape} goes beyond its storage of {view.storage.count}")
        else:
            found[view.storage] = data
    return found


def _tensors(views: Mapping[str, View], contents: Mapping[Storage, bytes], what: str) -> dict[str, torch.Tensor]:
    """Return tensors on the storages; those that do not lie in row-major order are copied, within bounds."""
    import torch

    flat: dict[Storage, torch.Tensor] = {}
    for storage, data in contents.items():
        dtype = getattr(torch, storage.dtype)
        flat[storage] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    tensors = {
        name: flat[view.storage].as_strided(view.shape, view.strides, view.offset)
        if 0 not in view.shape
        else flat[view.storage].new_empty(view.shape)
        for name, view in views.items()
    }
    copied = sum(tensor.nbytes for tensor in tensors.values() if not tensor.is_contiguous())
    if copied > sum(len(data) for data in contents.values()):
        raise FormatError(f"{what} holds tensors that need far more memory than the file has", hint=_AGAIN)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
