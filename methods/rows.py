"""Operations with weights of their own for each row of a batch: every adapter's weights stacked, one product for all.

A tensor (rows, …) stands where a single adapter has (…); smaller ones are filled up with zeros, so adapters of
different sizes fit one batch.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Stackable(Protocol):
    """An operation that can be computed for several adapters at once."""

    @property
    def alike(self) -> Hashable:
        """What operations must have in common to be computed at once."""
        ...

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that it reads."""
        ...

    def stacked(self, rows: Sequence[Self | None]) -> Self:
        """Return the operation that computes rows[i] on row i of a batch, and nothing where that is None.

        All rows are alike; self is one of them.
        """
        ...


def stack(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return tensors (rows, …) filled up with zeros to the largest size; a row that is None is zero."""
    import torch

    present = [tensor for tensor in tensors if tensor is not None]
    shapes = {tensor.shape for tensor in present}
    shape = present[0].shape if len(shapes) == 1 else tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    filled = present if len(shapes) == 1 else [_filled(tensor, shape) for tensor in present]
    if len(filled) == len(tensors):
        return torch.stack(filled)
    zeros, each = present[0].new_zeros(shape), iter(filled)
    return torch.stack([zeros if tensor is None else next(each) for tensor in tensors])


def _filled(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor with zeros behind it in each dimension up to a shape."""
    from torch.nn.functional import pad

    if tensor.shape == shape:
        return tensor
    widths = [(0, size - has) for has, size in zip(tensor.shape, shape, strict=True)]
    return pad(tensor, [n for pair in reversed(widths) for n in pair])


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b (…, outputs); a weight (rows, outputs, inputs) has a matrix for each row of x."""
    import torch
    from torch.nn.functional import linear

    if weight.ndim == 2:
        return linear(x, weight, bias)
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    if bias is None:
        y = torch.bmm(flat, weight.transpose(1, 2))
    else:
        y = torch.baddbmm(bias.unsqueeze(1), flat, weight.transpose(1, 2))
    return y.view(*x.shape[:-1], -1)


def along(vector: Tensor, x: Tensor) -> Tensor:
    """Return a vector (d,), or one for each row (rows, d), in a shape that multiplies x (rows, …, d)."""
    return vector if vector.ndim < 2 else vector.view(vector.shape[0], *(1,) * (x.ndim - 2), vector.shape[1])


def normalise(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    """Return the layer norm of x (…, d) with weight and bias (d,), or (rows, d) for each row."""
    from torch.nn.functional import layer_norm

    weight, bias = norm
    if weight.ndim == 1:
        return layer_norm(x, weight.shape, weight, bias, 1e-5)
    return layer_norm(x, weight.shape[1:], None, None, 1e-5) * along(weight, x) + along(bias, x)


def selected(mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """Return the rows of chosen where mask (rows,) is true, those of other elsewhere."""
    import torch

    return torch.where(mask.view(-1, *(1,) * (chosen.ndim - 1)), chosen, other)


def state(parameters: Sequence[Tensor]) -> tuple[int, ...]:
    """Return numbers that change when one of the tensors is written to, or gets another storage (`parameter.data = …`).

    What is written past autograd into the same storage (`parameter.data.copy_`) leaves no trace.
    """
    return (*map(_version, parameters), *map(_address, parameters))


_version = operator.attrgetter("_version")
_address = operator.methodcaller("data_ptr")
"""In C: they are asked of every tensor in every forward pass."""
