"""Where the tensors of a result are kept while they are made: in memory, or wherever a keeper puts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Keeper(Protocol):
    """Takes tensors when they are made, so that not all of them need to be in memory."""

    def put(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what stands for these tensors in the result."""
        ...

    def get(self, tensor: Tensor) -> Tensor:
        """Return the tensor that something from `put` stands for."""
        ...


class InMemory:
    """Keeps tensors as they are."""

    def put(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors."""
        return dict(tensors)

    def get(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor
