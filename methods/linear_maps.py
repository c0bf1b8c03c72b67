"""Linear maps of base models: their weights as numbers, and products with low-rank factors beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from ..sites import Linear

if TYPE_CHECKING:
    from torch import Tensor


def reduced(x: Tensor, a: Tensor, linear: Linear, dropout: float) -> Tensor:
    """Return A x (tokens, r), of a convolution (batch, r, …), with dropout on x unless x are ids."""
    from torch.nn import functional

    if linear.kind == "embedding":
        return functional.embedding(x.reshape(-1), a.t())
    if dropout:
        x = functional.dropout(x, dropout)
    if linear.kind == "convolution":
        found: Tensor = convolution(linear)(x, a, None, linear.stride, linear.padding, linear.dilation)
        return found
    return functional.linear(x.reshape(-1, x.shape[-1]), a)


def joined(y: Tensor, h: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return y + scale · B h (…, outputs): one kernel for the product, the scale and the sum."""
    import torch

    flat = torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), b.t(), alpha=scale)
    return flat.view(y.shape)


def gates(x: Tensor, gate: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean over the tokens of sigmoid(w·x + b) (…, 1, gates)."""
    from torch.nn import functional

    return functional.linear(x, *gate).sigmoid().mean(dim=-2, keepdim=True)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return B A in float32, in the shape (outputs, inputs[, kernel])."""
    flat = b.float().flatten(1) @ a.float().flatten(1)
    found: Tensor = flat.view(flat.shape[0], *a.shape[1:])
    return found


def is_transposed(linear: Linear) -> bool:
    """Return whether the module of a map keeps its weight as (inputs, outputs)."""
    return linear.kind in ("conv1d", "embedding")


def magnitudes(weight: Tensor, linear: Linear) -> Tensor:
    """Return the norms of a weight's rows (outputs,), float32, on the CPU: what a magnitude starts from."""
    weight = readable(weight, linear.path).detach().float()
    norms: Tensor = (weight.t() if is_transposed(linear) else weight).flatten(1).norm(dim=1).cpu()
    return norms


def holds_numbers(weight: Tensor) -> bool:
    """Return whether the numbers of a weight are what they mean.

    Quantised weights are whole numbers (bitsandbytes), or a class of tensors of their own (torchao, quanto).
    """
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return weight.is_floating_point() and not is_traceable_wrapper_subclass(weight)


def readable(weight: Tensor, path: str) -> Tensor:
    """Return a weight whose numbers are what they mean.

    Raises:
        UnsupportedError: it is quantised.
    """
    if not holds_numbers(weight):
        kind = f"{type(weight).__name__}, {weight.dtype}"
        raise UnsupportedError(
            f"what the adapter computes at {path} needs the numbers of its weight, which is quantised ({kind})",
            hint="load the base model without quantisation, or take one that adds to what the map computes (lora)",
        )
    return weight


def convolution(linear: Linear) -> Callable[..., Tensor]:
    """Return torch's convolution over as many dimensions as a map's kernel has."""
    import torch

    return {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(linear.kernel)]
