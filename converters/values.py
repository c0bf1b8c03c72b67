"""Values of tensors: which ones no adapter can work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import FormatError

if TYPE_CHECKING:
    import torch


BUFFERS = ("position_ids", "token_type_ids", "num_batches_tracked", "beta", "eps", "logit_scale")
"""What modules keep beside their weights and save with them: whole numbers, or single ones (of xIELU, of CLIP)."""

MOST_SHOWN = 20
"""Faults told one by one."""


def check_usable(groups: Mapping[str, Mapping[str, torch.Tensor]], what: str) -> None:
    """Refuse tensors without any value or dimension, or of a type that no adapter computes with; what names their file.

    Raises:
        FormatError: names every such tensor.
    """
    faults = [
        f"tensor {key!r} {fault}"
        for group in groups.values()
        for key, one in group.items()
        if (fault := _odd(key, one))
    ]
    if faults:
        more = [f"… and {len(faults) - MOST_SHOWN} more"] * (len(faults) > MOST_SHOWN)
        raise FormatError(
            f"{what} cannot be used",
            faults=faults[:MOST_SHOWN] + more,
            hint="the file is damaged or of another kind; fetch it again",
        )


def _odd(key: str, tensor: torch.Tensor) -> str:
    """Return what no tensor of an adapter is like, or ""."""
    if key.rpartition(".")[2] in BUFFERS:
        return ""
    if not tensor.ndim or not tensor.numel():
        return f"has shape {tuple(tensor.shape)}, no values that could be of a layer"
    # Some methods say at which places of a weight their values stand.
    if not tensor.is_floating_point() and not (key.endswith("_indices") and not tensor.is_complex()):
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}, expected floating-point numbers"
    return ""


def check_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse tensors that hold NaN or infinity; what names their file in the error.

    Raises:
        FormatError: names every such tensor.
    """
    faults = not_finite(tensors)
    if faults:
        raise FormatError(
            f"{what} cannot be used", faults=faults, hint="the training diverged or the file is damaged; fetch it again"
        )


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors are equal bit for bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a is b or (a.is_contiguous() and b.is_contiguous() and a.data_ptr() == b.data_ptr()):
        return True
    import torch

    return torch.equal(octets(a), octets(b))


def octets(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor as numbers, in row-major order, without a copy where it lies so already."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    # A single value counts as contiguous whatever its stride is.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return a phrase for each tensor with NaN or infinity in it."""
    return [
        f"tensor {key!r} holds {count} values that are NaN or infinite"
        for key in _suspects(tensors)
        if (count := _count(tensors[key]))
    ]


def _suspects(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the keys of the tensors whose sum is not finite: all that hold NaN or infinity, rarely another one.

    The tensors of a file are views of one block of memory, which is summed in one go where it holds little else.
    """
    import torch

    numbers = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()}
    blocks = {id(block): block for tensor in numbers.values() if (block := tensor._base) is not None}
    if sum(block.numel() for block in blocks.values()) <= sum(tensor.numel() for tensor in numbers.values()):
        finite = {key for key, block in blocks.items() if _sum(block).isfinite()}
        numbers = {key: tensor for key, tensor in numbers.items() if id(tensor._base) not in finite}
    if not numbers:
        return []
    sums = torch.stack([_sum(tensor) for tensor in numbers.values()])
    return [key for key, good in zip(numbers, sums.isfinite().tolist(), strict=True) if not good]


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return _real(tensor).sum(dtype=torch.float32)


def _count(tensor: torch.Tensor) -> int:
    return int((~_real(tensor).isfinite()).sum())


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose values can be summed: complex ones as pairs, those of 8 bits widened."""
    import torch

    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.float() if tensor.element_size() == 1 else tensor
