"""Updates in words that PEFT has: another configuration and other tensors that compute the same.

A VeRA with whole matrices or a scale is a LoRA, with A and Λ_b B Λ_d as its factors. A DoRA of `adapters` is PEFT's
with other magnitudes and with biases of the adapter's own. A prefix beside which the text keeps its positions is one
that shifts them, with keys turned on as far, where positions turn keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...adapter import Adapter, MethodConfig
from ...architectures import Architecture, by_name
from ...methods import LoraConfig, ParametersConfig, PrefixTuningConfig, VeraConfig
from ...methods.targets import Target, chosen
from .. import accounting, as_lora, prefixes
from ..format import KnownBase
from ..magnitudes import norms

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same, nearer to PEFT's words; base: the base model, if known."""
    row = by_name(adapter.manifest.base.architecture)
    config: list[MethodConfig] = []
    tensors = dict(adapter.tensors)
    for part in adapter.config:
        if isinstance(part, VeraConfig) and _beyond(part) and (base or as_lora.tells_inputs(part, tensors, row)):
            part = as_lora.of_vera(part, tensors, row, base)
        elif isinstance(part, LoraConfig) and part.magnitude == "dora_adapters" and base is not None:
            part, biases = _directed(part, tensors, row, base)
            config += [ParametersConfig(names=biases, tied=biases)] if biases else []
        elif isinstance(part, PrefixTuningConfig) and part.positions == "kept" and base is not None:
            part = prefixes.shifted(part, tensors, row, base)
        config.append(part)
    return adapter if config == list(adapter.config) else Adapter(tuple(config), tensors, adapter.manifest)


def _beyond(config: VeraConfig) -> bool:
    """Return whether PEFT's VeRA is too little for this one, and its LoRA is enough."""
    plain = not config.gating and config.magnitude == "none" and config.projection_seed is None
    return plain and (config.form != "vectors" or config.scale != 1)


def _targets(config: LoraConfig, tensors: Tensors, row: Architecture) -> list[Target]:
    layout = accounting.layout((config,), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, row)
    return chosen(config.targets, layout, leave_out=config.leave_out)


def _directed(
    config: LoraConfig, tensors: Tensors, row: Architecture, base: KnownBase
) -> tuple[LoraConfig, tuple[str, ...]]:
    """Return the configuration with PEFT's magnitudes, and the names of the biases; tensors are changed."""
    biases = []
    for target in _targets(config, tensors, row):
        weight, bias = base.linear(target.path)
        key = f"{target.path}.lora_magnitude"
        a, b, m = tensors[f"{target.path}.lora_A"], tensors[f"{target.path}.lora_B"], tensors[key].double()
        theirs = norms(weight, a, b, 1.0)
        tensors[key] = (m * norms(weight, a, b, config.scale(target.linear)) / theirs).to(a.dtype)
        if bias is not None:
            biases.append(f"{target.path}.bias")
            tensors[biases[-1]] = (bias.detach().double() * m / theirs).to(bias.dtype)
    return replace(config, magnitude="dora"), tuple(biases)
