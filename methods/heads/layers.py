"""What heads are made of: linear layers one behind the other, with dropout in front of each.

    W_L · drop(… act(W_1 · drop(h) + b_1) …) + b_L

The k-th linear layer has the keys `head.<k>.weight` and `head.<k>.bias`.

Source: `adapters` 1.3.0, heads/base.py (`PredictionHead.build`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...sites import Layout
from ..activations import function, known
from ..config import Config
from ..method import Facts, Live, Problem, Roles, Shapes
from .entering import entering

if TYPE_CHECKING:
    from torch import Tensor

MOST_LABELS = 1_000_000
MOST_LAYERS = 64


@dataclass(frozen=True, kw_only=True)
class LayeredConfig(Config):
    """What every head of linear layers has.

    Attributes:
        layers: number of linear layers; all but the last keep the width.
        activation_function: between two linear layers, or None.
        bias: whether the last layer has a bias.
        dropout_prob: in front of every linear layer, while training; None takes the base model's own.
    """

    layers: int = 1
    activation_function: str | None = "tanh"
    bias: bool = True
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
        if self.activation_function is not None and not known(self.activation_function):
            found.append(f"activation_function {self.activation_function!r} is unknown")
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
        if config.bias or not last:
            found[f"head.{k}.bias"] = (size,)
    return found


def start(wanted: Shapes) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases, as BERT initialises its heads."""
    import torch

    return {
        key: torch.zeros(shape) if key.endswith(".bias") else torch.empty(shape).normal_(std=0.02)
        for key, shape in wanted.items()
    }


def facts(config: object, have: Shapes, roles: Roles) -> Facts:
    """Return the width that the first layer reads."""
    return Facts(widths=have.get("head.0.weight", ())[1:2])


class Dense:
    """The layers in the forward pass."""

    __slots__ = ("act", "dropout", "linears", "mode")

    def __init__(self, config: LayeredConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        self.mode = live.mode
        self.dropout = live.settings.dropout if config.dropout_prob is None else config.dropout_prob
        self.act = None if config.activation_function is None else function(config.activation_function)
        self.linears: Sequence[tuple[Tensor, Tensor | None]] = [
            (tensors[f"head.{k}.weight"], tensors.get(f"head.{k}.bias")) for k in range(config.layers)
        ]

    def __call__(self, h: Tensor) -> Tensor:
        """Return (…, rows) for h (…, width)."""
        from torch.nn.functional import dropout, linear

        for k, (weight, bias) in enumerate(self.linears):
            if k and self.act is not None:
                h = self.act(h)
            if self.dropout and self.mode.training:
                h = dropout(h, self.dropout)
            h = linear(h, weight, bias)
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
