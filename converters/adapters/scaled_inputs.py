"""Scales of what the second map of a feed-forward block reads, as scales of what the first one puts out.

    W₂ (l ∘ a(G x) ∘ U x)     =  W₂ (a(G x) ∘ (l ∘ U x))     where a gate G is beside the first map U
    W₂ (l ∘ relu(W₁ x))       =  W₂ relu(l ∘ W₁ x)           where l is nowhere negative

Other activations do not let a factor through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...architectures import Architecture
from ...methods import IA3Config
from ...methods.targets import Target, chosen
from ...sites import Layout, Linear
from ..format import KnownBase

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def put_out(
    config: IA3Config, tensors: Tensors, row: Architecture, layout: Layout, base: KnownBase | None
) -> IA3Config:
    """Return the configuration with scales of outputs alone, if that computes the same; tensors are changed.

    layout: the base model's if that is known, else the smallest that the adapter can stand in.
    """
    inputs = chosen(config.inputs, layout, leave_out=config.leave_out)
    firsts = [_first(target, layout) for target in inputs]
    through = _lets_through(row, layout, base)
    if config.alphas or (config.alpha, config.rest) != (1, 1) or config.gating:
        return config
    if not all(first and through(target.linear, tensors) for target, first in zip(inputs, firsts, strict=True)):
        return config
    for target, first in zip(inputs, firsts, strict=True):
        vector = tensors.pop(f"{target.path}.ia3_inputs")
        key = f"{first}.ia3_outputs"
        tensors[key] = tensors[key] * vector if key in tensors else vector
    named = config.inputs == ("output",) and not any("." in word for word in config.targets)
    words = ("intermediate",) if named else tuple(path for path in firsts if path)
    return replace(config, targets=tuple(dict.fromkeys((*config.targets, *words))), inputs=())


def _first(target: Target, layout: Layout) -> str | None:
    """Return the path of the first map of the block whose second one this is, None if it is none."""
    if target.linear.roles != ("output",):
        return None
    return next((one.path for one in _beside(target.linear, layout) if one.roles == ("intermediate",)), None)


def _beside(linear: Linear, layout: Layout) -> Sequence[Linear]:
    return [one for one in layout.linears if one.layer == linear.layer and one.layer is not None]


def _lets_through(row: Architecture, layout: Layout, base: KnownBase | None) -> Callable[[Linear, Tensors], bool]:
    """Return what tells whether the block of a second map lets its factors through."""
    blocks = [stack.feed_forward for stack in row.layers if stack.feed_forward is not None]
    gated = all(block.gate is not None and block.ungated is None for block in blocks)

    def through(linear: Linear, tensors: Tensors) -> bool:
        if gated or (base is not None and any(one.roles == ("gate",) for one in _beside(linear, layout))):
            return True
        positive = bool((tensors[f"{linear.path}.ia3_inputs"] >= 0).all())
        return base is not None and base.activation() == "relu" and positive

    return through
