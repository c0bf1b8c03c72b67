"""Other methods that are a LoRA of their own rank: with other factors they compute the same.

VeRA      Λ_b B Λ_d A     is the LoRA of Λ_b B Λ_d and A
AdaLoRA   B diag(e) A     is the LoRA of B and diag(e) A
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..adapter import MethodConfig
from ..architectures import Architecture
from ..methods import AdaloraConfig, LoraConfig, VeraConfig
from ..methods.targets import Target, at, chosen
from ..methods.vera import SHARED_A, SHARED_B
from ..sites import Layout
from . import accounting
from .format import KnownBase

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


HIDDEN = ("query", "key", "value", "intermediate", "gate")
"""What reads hidden states."""


def tells_inputs(config: MethodConfig, tensors: Mapping[str, torch.Tensor], row: Architecture) -> bool:
    """Return whether the tensors of a method tell what its maps read, without the base model.

    A VeRA with vectors has one A, as wide as the widest map reads; it tells that only where all maps read the same.
    """
    if not isinstance(config, VeraConfig) or config.form != "vectors":
        return True
    return len({_read(target, row) for target in _targets(config, tensors, row)}) == 1


def _read(target: Target, row: Architecture) -> tuple[object, ...]:
    """Return what a map reads: (stack, what), and its own path where nothing tells."""
    stack = next((k for k, stack in enumerate(row.layers) if stack.index(target.path) is not None), -1)
    roles = target.linear.roles
    if not roles or stack < 0:
        return (target.path,)
    if target.linear.cross and roles[0] != "query":
        return (stack, "encoder")
    return (stack, "hidden" if roles[0] in HIDDEN else roles[0])


def of_vera(config: VeraConfig, tensors: Tensors, row: Architecture, base: KnownBase | None) -> LoraConfig:
    """Return the configuration of a LoRA; tensors are changed.

    base: the base model; without it tells_inputs must hold.
    """
    targets = _targets(config, tensors, row, None if base is None else base.layout)
    a, b = tensors.pop(SHARED_A), tensors.pop(SHARED_B)
    for target in targets:
        inner, outer = tensors.pop(f"{target.path}.vera_d"), tensors.pop(f"{target.path}.vera_b")
        own = b[: target.linear.outputs]
        tensors[f"{target.path}.lora_A"] = a[:, : target.linear.inputs].clone()
        vectors = config.form == "vectors"
        tensors[f"{target.path}.lora_B"] = own * inner * outer.unsqueeze(1) if vectors else outer @ own @ inner
    return LoraConfig(
        targets=config.targets,
        r=config.r,
        alpha=config.r if config.alpha is None else config.alpha,
        leave_out=config.leave_out,
        dropout=config.dropout,
    )


def of_adalora(config: AdaloraConfig, tensors: Tensors, row: Architecture) -> LoraConfig:
    """Return the configuration of a LoRA; tensors are changed."""
    from torch.nn.functional import pad

    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for target in _targets(config, tensors, row):
        key, left = f"{target.path}.lora_A", at(config.ranks, target.linear, config.r)
        tensors[key] = tensors[key] * tensors.pop(f"{target.path}.lora_E")
        if not left:  # a LoRA has a rank
            tensors[key] = pad(tensors[key], (0, 0, 0, 1))
            tensors[f"{target.path}.lora_B"] = pad(tensors[f"{target.path}.lora_B"], (0, 1))
        ranks[target.path] = max(1, left)
        alpha = config.alpha if config.alpha > 0 else left
        alphas[target.path] = alpha / (config.r + 1e-5) * max(1, left)
    return LoraConfig(
        targets=config.targets,
        r=config.r,
        ranks=ranks,
        alphas=alphas,
        leave_out=config.leave_out,
        dropout=config.dropout,
    )


def _targets(
    config: AdaloraConfig | VeraConfig,
    tensors: Mapping[str, torch.Tensor],
    row: Architecture,
    layout: Layout | None = None,
) -> list[Target]:
    have = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return chosen(config.targets, layout or accounting.layout((config,), have, row), leave_out=config.leave_out)
