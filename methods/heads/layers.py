"""What heads are made of: linear layers one behind the other, with dropout in front of each.

    W_L · drop(… norm(act(W_1 · drop(h) + b_1)) …) + b_L

The k-th linear layer has the keys `head.<k>.weight` and `head.<k>.bias`, the norm behind it, where there are norms,
`head.<k>.norm.weight` and `head.<k>.norm.bias`.

Sources: `adapters` 1.3.0, heads/base.py (`PredictionHead.build`); transformers, modeling_modernbert.py, for the norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...sites import Layout
from ..activations import function, known
from ..config import Config
from ..method import Facts, Live, Problem, Roles, Shapes
from .entering import entering

if TYPE_CHECKING:
    from torch import Tensor

OF_THE_BASE = "hidden_act"
"""Stands for the name of the base model's own activation."""

MOST_LABELS = 1_000_000
MOST_LAYERS = 64


@dataclass(frozen=True, kw_only=True)
class LayeredConfig(Config):
    """What every head of linear layers has.

    Attributes:
        layers: number of linear layers; all but the last keep the width.
        activation_function: between two linear layers, or None; `hidden_act` is the base model's own.
        layer_norm: whether a norm follows there.
        bias: whether the last layer has a bias.
        inner_bias: whether the others have one.
        norm_bias: whether the norms have one.
        dropout_prob: in front of every linear layer, while training; None takes the base model's own.
    """

    layers: int = 1
    activation_function: str | None = "tanh"
    layer_norm: bool = False
    bias: bool = True
    inner_bias: bool = True
    norm_bias: bool = True
    dropout_prob: float | None = None

    @property
    def labels(self) -> int:
        """Number of classes that have names."""
        return 0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return self._faults()

    def _faults(self, **counts: int | None) -> list[str]:
        """Return what is wrong with the values; counts: the numbers of what the head tells apart."""
        known_counts = {name: n for name, n in {**counts, "layers": self.layers}.items() if n is not None}
        found = [f"{name} must be at least 1" for name, count in known_counts.items() if count < 1]
        if max(known_counts.values()) > MOST_LABELS or self.layers > MOST_LAYERS:
            found.append(f"at most {MOST_LABELS} labels and {MOST_LAYERS} layers are allowed")
        act = self.activation_function
        if act is not None and act != OF_THE_BASE and not known(act):
            found.append(f"activation_function {act!r} is unknown")
        if self.dropout_prob is not None and not 0 <= self.dropout_prob < 1:
            found.append("dropout_prob must lie in [0, 1)")
        return found


def shapes(config: LayeredConfig, layout: Layout, rows: int) -> Shapes:
    """Return key → shape of the layers, the last one with so many rows."""
    found: Shapes = {}
    for k in range(config.layers):
        last = k == config.layers - 1
        size = rows if last else layout.width
        found[f"head.{k}.weight"] = (size, layout.width)
        if config.bias if last else config.inner_bias:
            found[f"head.{k}.bias"] = (size,)
        if config.layer_norm and not last:
            found |= norm_shapes(k, size, bias=config.norm_bias)
    return found


def norm_shapes(k: int, size: int, *, bias: bool) -> Shapes:
    """Return key → shape of the norm behind the k-th layer."""
    leaves = ("weight", "bias") if bias else ("weight",)
    return {f"head.{k}.norm.{leaf}": (size,) for leaf in leaves}


def start(wanted: Shapes) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases, as BERT initialises its heads; norms change nothing."""
    import torch

    def value(key: str, shape: tuple[int, ...]) -> Tensor:
        if key.endswith(".norm.weight"):
            return torch.ones(shape)
        return torch.zeros(shape) if key.endswith(".bias") else torch.empty(shape).normal_(std=0.02)

    return {key: value(key, shape) for key, shape in wanted.items()}


def facts(config: object, have: Shapes, roles: Roles) -> Facts:
    """Return the width that the first layer reads."""
    return Facts(widths=have.get("head.0.weight", ())[1:2])


def activation(name: str | None, live: Live) -> Callable[[Tensor], Tensor] | None:
    """Return the function that a head's configuration names, or None."""
    return None if name is None else function(live.settings.activation if name == OF_THE_BASE else name)


class Dense:
    """The layers in the forward pass."""

    __slots__ = ("act", "dropout", "linears", "mode", "norm_eps", "norms")

    def __init__(self, config: LayeredConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        self.mode = live.mode
        self.dropout = live.settings.dropout if config.dropout_prob is None else config.dropout_prob
        self.act = activation(config.activation_function, live)
        self.norm_eps = live.settings.norm_eps
        self.norms = [
            (tensors.get(f"head.{k}.norm.weight"), tensors.get(f"head.{k}.norm.bias")) for k in range(config.layers)
        ]
        self.linears: Sequence[tuple[Tensor, Tensor | None]] = [
            (tensors[f"head.{k}.weight"], tensors.get(f"head.{k}.bias")) for k in range(config.layers)
        ]

    def __call__(self, h: Tensor) -> Tensor:
        """Return (…, rows) for h (…, width)."""
        from torch.nn.functional import dropout, layer_norm, linear

        last = len(self.linears) - 1
        for k, ((weight, bias), (gain, offset)) in enumerate(zip(self.linears, self.norms, strict=True)):
            if self.dropout and self.mode.training:
                h = dropout(h, self.dropout)
            h = linear(h, weight, bias)
            if k < last and self.act is not None:
                h = self.act(h)
            if gain is not None:
                h = layer_norm(h, gain.shape, gain, offset, self.norm_eps)
        return h


class LayeredHead:
    """What heads of linear layers have in common in the forward pass; each adds its answer and its loss."""

    __slots__ = ("dense", "labels", "problem", "settings")

    generates = False
    takes: tuple[str, ...] = ("labels",)

    def __init__(self, config: LayeredConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        self.settings = live.settings
        self.dense = Dense(config, tensors, live)
        self.labels = config.labels
        self.problem: Problem | None = None

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the base model's inputs."""
        return entering(inputs, self.takes, self.settings)
