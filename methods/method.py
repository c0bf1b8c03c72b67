"""The contract between a method and the rest of the house.

A method is one file: its equation, a frozen configuration, the shapes of its tensors, how they start, and the small
callables that act in the forward pass. Where these are put, how they are stacked, swapped or merged is written once,
in loader/. Importing a method loads no torch; `initial` and `bind` do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..adapter import MethodConfig
from ..sites import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensor = torch.Tensor
    Normalise = Callable[[Tensor], Tensor]

Shapes = dict[str, tuple[int, ...]]


class SiteOp(Protocol):
    """Acts at a residual site; see sites.Site for d, x and the norm."""

    reads_residual: bool
    """Whether the call needs x; where it does not, x is None and nothing is captured."""
    replaces_norm: bool
    """Whether the result is the sublayer's final output, so that the model's own `norm(result + x)` is left out."""

    def __call__(self, d: Tensor, x: Tensor | None, norm: Normalise | None) -> Tensor:
        """Return the new d (batch, sequence, width); norm is None in pre-norm models."""
        ...


class HeadOp(Protocol):
    """Turns the base model's output into a task's."""

    labels: int

    def __call__(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return logits (batch, labels) from hidden states (batch, sequence, width)."""
        ...

    def loss(self, logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
        """Return the loss, a mean over the examples, or their sum divided by items where that is given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What one configuration does to a model, ready to be put on the forward path.

    Attributes:
        sites: path of a residual site → what acts there.
        parameters: module path → parameters that stand in for the module's own.
        head: the prediction head, or None.
    """

    sites: Mapping[str, SiteOp] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    head: HeadOp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of METHODS.

    Attributes:
        config: the configuration's class; its `method` is the name of the row.
        presets: names under which `add` and the command line know certain configurations.
        shapes: configuration and layout → canonical key → shape: the complete account of the adapter's tensors.
        initial: configuration, layout and a reader of the base's parameters → start values, float32.
        bind: configuration, tensors, layout and the module whose `training` flag tells the mode → Binding.
    """

    config: type[Any]
    presets: Mapping[str, MethodConfig]
    shapes: Callable[[Any, Layout], Shapes]
    initial: Callable[[Any, Layout, Callable[[str], Tensor]], dict[str, Tensor]]
    bind: Callable[[Any, Mapping[str, Tensor], Layout, nn.Module], Binding]

    @property
    def name(self) -> str:
        """The method's name in configurations."""
        name: str = self.config.method
        return name
