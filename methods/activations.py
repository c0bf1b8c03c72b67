"""Activation functions by the names that transformers and `adapters` write into configurations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NAMES = (
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "leakyrelu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
)
"""Every name that is understood, in lower case."""

WITH_WEIGHTS = ("prelu", "xielu")
"""Activations with weights of their own, which no adapter here has a place for."""


def known(name: str) -> bool:
    """Return whether an activation of this name, in any case, is understood."""
    return name.lower() in NAMES


def function(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation called name, in any case.

    The common ones are torch's own functions, one kernel and at most one Python call each; the rest is transformers'.
    """
    import torch
    from torch.nn import functional

    direct: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "gelu": functional.gelu,
        "gelu_new": partial(functional.gelu, approximate="tanh"),
        "silu": functional.silu,
        "swish": functional.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "leakyrelu": functional.leaky_relu,
        "leaky_relu": functional.leaky_relu,
    }
    name = name.lower()
    if name in direct:
        return direct[name]
    from transformers.activations import get_activation

    activation: Callable[[Tensor], Tensor] = get_activation(name)
    return activation
