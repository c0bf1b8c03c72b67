"""The classification head: linear layers with dropout in front of each, on one vector per text.

    logits = W_L · drop(… act(W_1 · drop(pool(h)) + b_1) …) + b_L

Sources: Houlsby et al. 2019 (arXiv 1902.00751) §3.1 (a linear layer on the first token, trained with the adapter);
`adapters` 1.3.0, heads/base.py, for the two-layer form; Reimers & Gurevych 2019 (arXiv 1908.10084) §3 for mean pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError
from ..sites import Layout
from .activations import function, known
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ClassificationHeadConfig(Config):
    """What the head computes.

    Attributes:
        num_labels: number of classes; 1 means regression.
        layers: number of linear layers; all but the last keep the width.
        activation_function: between two linear layers, or None.
        pooling: what the first layer reads: the `first` token, the `mean` over the tokens that are not padding,
            or the base model's `pooler` output.
        bias: whether the last layer has a bias.
        dropout_prob: in front of every linear layer, while training; None takes the base model's own.
    """

    method: ClassVar[str] = "classification_head"

    num_labels: int
    layers: int = 1
    activation_function: str | None = "tanh"
    pooling: Literal["first", "mean", "pooler"] = "first"
    bias: bool = True
    dropout_prob: float | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [f"{name} must be at least 1" for name in ("num_labels", "layers") if getattr(self, name) < 1]
        if self.num_labels > MOST_LABELS or self.layers > MOST_LAYERS:
            faults.append(f"at most {MOST_LABELS} labels and {MOST_LAYERS} layers are allowed")
        if self.activation_function is not None and not known(self.activation_function):
            faults.append(f"activation_function {self.activation_function!r} is unknown")
        if self.dropout_prob is not None and not 0 <= self.dropout_prob < 1:
            faults.append("dropout_prob must lie in [0, 1)")
        return faults


MOST_LABELS = 1_000_000
MOST_LAYERS = 64


def shapes(config: ClassificationHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors; `head.<k>` is the k-th linear layer.

    Raises:
        UnsupportedError: the head reads a pooler that the model does not have.
    """
    if config.pooling == "pooler" and not layout.pooler:
        raise UnsupportedError(
            "the head reads the output of the base model's pooler, and this model has none",
            hint="load the model class that keeps its pooler",
        )
    found: Shapes = {}
    for k in range(config.layers):
        last = k == config.layers - 1
        rows = config.num_labels if last else layout.width
        found[f"head.{k}.weight"] = (rows, layout.width)
        if config.bias or not last:
            found[f"head.{k}.bias"] = (rows,)
    return found


def initial(config: ClassificationHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: N(0, 0.02²) weights, zero biases, as BERT initialises its heads."""
    import torch

    return {
        key: torch.zeros(shape) if key.endswith(".bias") else torch.empty(shape).normal_(std=0.02)
        for key, shape in shapes(config, layout).items()
    }


def facts(config: ClassificationHeadConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the width that the first layer reads."""
    shape = have.get("head.0.weight", ())
    return Facts(widths=shape[1:2])


def bind(config: ClassificationHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=ClassificationHead(config, tensors, live.mode))


class ClassificationHead:
    """The head in the forward pass."""

    __slots__ = ("act", "config", "labels", "linears", "mode")

    def __init__(self, config: ClassificationHeadConfig, tensors: Mapping[str, Tensor], mode: nn.Module) -> None:
        self.config = config
        self.labels = config.num_labels
        self.mode = mode
        self.act = None if config.activation_function is None else function(config.activation_function)
        self.linears = [(tensors[f"head.{k}.weight"], tensors.get(f"head.{k}.bias")) for k in range(config.layers)]

    def __call__(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return logits (batch, labels)."""
        from torch.nn.functional import dropout, linear

        h = self._pool(hidden, pooled, mask)
        for k, (weight, bias) in enumerate(self.linears):
            if k and self.act is not None:
                h = self.act(h)
            if self.config.dropout_prob and self.mode.training:
                h = dropout(h, self.config.dropout_prob)
            h = linear(h, weight, bias)
        return h

    def loss(self, logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
        """Return cross entropy, or the squared error where there is one label."""
        from torch.nn.functional import cross_entropy, mse_loss

        reduction = "mean" if items is None else "sum"
        if self.labels == 1:
            loss = mse_loss(logits.view(-1), labels.view(-1).to(logits.dtype), reduction=reduction)
        else:
            loss = cross_entropy(logits, labels.view(-1), reduction=reduction)
        return loss if items is None else loss / items

    def _pool(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.config.pooling == "pooler" and pooled is not None:
            return pooled
        if self.config.pooling == "first":
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(dim=1)
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


METHOD = Method(
    config=ClassificationHeadConfig,
    presets={"classification_head": ClassificationHeadConfig(num_labels=2)},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
