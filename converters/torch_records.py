"""Records of tensors in a pickle of `torch.save`: storages and views of them, with their bounds.

Source: torch/serialization.py (`persistent_id`) and torch/_utils.py (`_rebuild_tensor_v2`), version 2.13.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import pickle_data
from .pickle_data import Call, Global, Persistent

STORAGES: Mapping[str, tuple[str, int]] = {
    "torch DoubleStorage": ("float64", 8),
    "torch FloatStorage": ("float32", 4),
    "torch HalfStorage": ("float16", 2),
    "torch BFloat16Storage": ("bfloat16", 2),
    "torch LongStorage": ("int64", 8),
    "torch IntStorage": ("int32", 4),
    "torch ShortStorage": ("int16", 2),
    "torch CharStorage": ("int8", 1),
    "torch ByteStorage": ("uint8", 1),
    "torch BoolStorage": ("bool", 1),
}
"""Name of a storage class → dtype, bytes per element."""


MOST_DIMENSIONS = 16
"""Dimensions that a tensor may have."""

MOST_ELEMENTS = 2**40
"""Elements that a tensor may have, those repeated by its strides included."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of elements: its key in the file, dtype, bytes per element, number of elements."""

    key: str
    dtype: str
    width: int
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: a storage, the first element, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def fits(self) -> bool:
        """Whether every element lies in the storage."""
        if math.prod(max(1, size) for size in self.shape) > MOST_ELEMENTS:
            return False
        if 0 in self.shape:
            return True
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return last < self.storage.count


def entries_of(value: Any) -> dict[str, Any] | None:
    """Return the entries of a pickled dictionary, plain or ordered, or None for any other value."""
    if isinstance(value, Call) and value.function == pickle_data.ORDERED_DICT:
        return value.items
    return value if isinstance(value, dict) else None


def view_of(item: Any) -> View | None:
    """Return the tensor that a pickled item describes, or None."""
    if isinstance(item, Call) and item.function == pickle_data.PARAMETER and item.arguments:
        item = item.arguments[0]
    if not isinstance(item, Call) or item.function not in (pickle_data.TENSOR, pickle_data.OLD_TENSOR):
        return None
    if len(item.arguments) < 4:
        return None
    storage, (offset, shape, strides) = _storage(item.arguments[0]), item.arguments[1:4]
    if storage is None or not _count(offset) or not _counts(shape) or not _counts(strides):
        return None
    return View(storage, offset, shape, strides) if len(shape) == len(strides) else None


def _storage(item: Any) -> Storage | None:
    """Return the storage that a persistent id `("storage", class, key, device, count, [view])` names, or None."""
    identity = item.id if isinstance(item, Persistent) else None
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        return None
    _, kind, key, _, count = identity[:5]
    view = identity[5] if len(identity) == 6 else None
    if not isinstance(kind, Global) or kind.name not in STORAGES or not isinstance(key, str):
        return None
    if not _count(count) or view is not None:
        return None
    return Storage(key, *STORAGES[kind.name], count)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _counts(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(_count(item) for item in value)
