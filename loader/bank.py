"""Shelf and Bank: where the parameters of loaded adapters live in the model's module tree.

They stand in one child of the model, `adapterhub`, so that `.to()`, `.half()`, optimisers and checkpoints find them;
no forward pass goes through it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SHELF = "adapterhub"
"""Name of the child module."""


class Bank(nn.Module):
    """The tensors of one adapter, flat; torch forbids dots in names, so a key's dots are slashes here.

    Numbers are parameters in the dtype of the model; whole numbers, such as places, are buffers as they are.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.keys = tuple(tensors)
        for key, tensor in tensors.items():
            if tensor.is_floating_point():
                value = tensor if tensor.dtype is dtype and tensor.device == device else tensor.to(device, dtype)
                self._parameters[key.replace(".", "/")] = nn.Parameter(value, requires_grad=False)
            else:
                self._buffers[key.replace(".", "/")] = tensor.to(device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Return canonical key → tensor, the live ones."""
        found = {}
        for key in self.keys:
            name = key.replace(".", "/")
            tensor = self._parameters.get(name, self._buffers.get(name))
            if tensor is not None:
                found[key] = tensor
        return found

    @property
    def trains(self) -> bool:
        """Whether some parameter is being trained."""
        return any(one is not None and one.requires_grad for one in self._parameters.values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return canonical key → parameter, without what is never trained."""
        return {key: tensor for key, tensor in self.tensors().items() if isinstance(tensor, nn.Parameter)}

    def forward(self) -> None:
        """Do nothing; a bank only keeps parameters."""


class Shelf(nn.Module):
    """The banks of all loaded adapters, by name."""

    def put(self, name: str, bank: Bank) -> None:
        """Put a bank under a name, in place of the one that stood there."""
        self._modules[name.replace(".", "/")] = bank

    def remove(self, name: str) -> None:
        """Take the bank of this name away."""
        del self._modules[name.replace(".", "/")]

    def forward(self) -> None:
        """Do nothing; a shelf only keeps banks."""
