"""Single linear maps of every kind with what an adapter does to them, for tests of laws."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapterhub.adapter import MethodConfig
from adapterhub.loader.layout import _linear
from adapterhub.methods import LinearOp, Live, method_of
from adapterhub.sites import Layout, Linear

PATH = "encoder.layer.0.map"


@dataclass(frozen=True)
class Map:
    """A module, what the layout says of it, and an input.

    Attributes:
        module: the map, with random weights.
        linear: its description.
        x: something that it reads.
    """

    module: Any
    linear: Linear
    x: Tensor

    @property
    def layout(self) -> Layout:
        """A layout with nothing but this map."""
        return Layout(architecture="bert", layers=1, width=12, sites=(), norms=(), linears=(self.linear,))

    @property
    def weight(self) -> Tensor:
        """The weight as (outputs, inputs[, kernel])."""
        weight: Tensor = self.module.weight.detach()
        return weight.t() if self.linear.kind in ("conv1d", "embedding") else weight

    @property
    def bias(self) -> Tensor | None:
        """The bias, or None."""
        return None if self.linear.bias is False else self.module.bias.detach()

    def base(self, path: str) -> Tensor:
        """Return a parameter by its path in the layout."""
        found: Tensor = self.module.get_parameter(path.removeprefix(f"{PATH}."))
        return found

    def with_weights(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Return a copy of the module with a weight (outputs, inputs[, kernel]) and a bias."""
        other = copy.deepcopy(self.module)
        oriented = weight.t() if self.linear.kind in ("conv1d", "embedding") else weight
        other.weight = nn.Parameter(oriented.to(other.weight.dtype).contiguous())
        if bias is not None:
            other.bias = nn.Parameter(bias.to(other.weight.dtype))
        return other


def _ids() -> Tensor:
    return torch.tensor([[0, 5, 19], [3, 3, 7]])


MAKERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (lambda: nn.Linear(10, 12), lambda: torch.randn(2, 5, 10)),
    "linear without bias": (lambda: nn.Linear(10, 12, bias=False), lambda: torch.randn(2, 5, 10)),
    "Conv1D": (lambda: Conv1D(12, 10), lambda: torch.randn(2, 5, 10)),
    "convolution of one dimension": (
        lambda: nn.Conv1d(10, 12, 3, stride=2, padding=1, dilation=2),
        lambda: torch.randn(2, 10, 9),
    ),
    "convolution of two dimensions": (
        lambda: nn.Conv2d(10, 12, (3, 5), padding="same", bias=False),
        lambda: torch.randn(2, 10, 5, 4),
    ),
    "convolution of three dimensions": (lambda: nn.Conv3d(10, 12, 2), lambda: torch.randn(2, 10, 3, 4, 3)),
    "embedding": (lambda: nn.Embedding(20, 12), _ids),
}
"""Kind → what makes the module, and its input."""

KINDS = tuple(MAKERS)
FLAT = ("linear", "linear without bias", "Conv1D")


def make(kind: str, **known: Any) -> Map:
    """Return a map of a kind; known are further fields of its description, such as roles."""
    torch.manual_seed(5)
    maker, reads = MAKERS[kind]
    module = maker()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    known = {"roles": (), "layer": 0, "cross": False} | known
    return Map(module, _linear(PATH, module, **known), reads())


def tensors(config: MethodConfig, place: Map, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return random tensors of an adapter of one map."""
    generator = torch.Generator().manual_seed(seed)
    found = method_of(config).shapes(config, place.layout)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in found.items()}


def start(config: MethodConfig, place: Map) -> dict[str, Tensor]:
    """Return the start values of an adapter of one map."""
    return method_of(config).initial(config, place.layout, place.base)


def bound(config: MethodConfig, place: Map, own: dict[str, Tensor], *, training: bool = False) -> LinearOp:
    """Return what an adapter with these tensors does at a map."""
    live = Live(layout=place.layout, mode=nn.Module().train(training), base=place.base)
    return method_of(config).bind(config, own, live).linears[PATH]


def attached(config: MethodConfig, place: Map, own: dict[str, Tensor]) -> Tensor:
    """Return the output of a map with an adapter."""
    return bound(config, place, own)(place.module, place.x)


def merged(config: MethodConfig, place: Map, own: dict[str, Tensor]) -> Tensor:
    """Return the output of the map with the weights that the adapter merges to."""
    found: Tensor = place.with_weights(*bound(config, place, own).merged(place.weight.float(), _float(place.bias)))(
        place.x
    )
    return found


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Return whether two outputs are the same, in relation to the largest value."""
    return bool((a.float() - b.float()).abs().max() <= tolerance * b.abs().max())


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()
