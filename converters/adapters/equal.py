"""LoRA in words that the adapters format has: another configuration and other tensors that compute the same.

The format has one rank and one alpha for all maps, scales by alpha / r, and knows maps that compute query, key and
value side by side only by their parts:

    B A at the whole map     is A for each part, and the stretches of B
    fewer ranks              are as many as elsewhere, the further ones zero
    another scale            is a factor of B
    maps of some layers      are all of their kind, with updates of zero (everywhere.py)
    VeRA, AdaLoRA            are LoRA with other factors (as_lora.py)
    scaled inputs            are scaled outputs of the map in front, where these compute the same (scaled_inputs.py)
    DoRA after the paper     is the format's with other magnitudes, where the map has no bias

A prefix that shifts the text's positions is one beside which they stay, with keys turned back, where positions turn
keys. An intervention that subtracts no projection, W h + b, is one with W + R that does, (W + R) h + b − R h, if there
is no activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ...adapter import JSON, Adapter
from ...architectures import Architecture, by_name
from ...methods import AdaloraConfig, IA3Config, LoraConfig, PrefixTuningConfig, ReftConfig, VeraConfig, is_head
from ...methods.reft import Rotation
from ...methods.targets import JOINT, Target, chosen
from ...sites import Layout
from .. import accounting, as_lora, prefixes
from ..format import KnownBase
from ..joint import mixed
from ..magnitudes import norms
from . import everywhere, heads, linears, scaled_inputs
from .documents import NAME

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same, nearer to the format's words; what came in them stays as it is."""
    row = by_name(adapter.manifest.base.architecture)
    came = NAME in adapter.manifest.extra
    adapter = _with_class(adapter, row)
    config, tensors = list(adapter.config), dict(adapter.tensors)
    for i, part in enumerate(config):
        if isinstance(part, ReftConfig):
            config[i] = _subtracting(part, tensors)
        elif came:
            continue
        elif isinstance(part, AdaloraConfig):
            config[i] = _in_words_of_lora(as_lora.of_adalora(part, tensors, row), tensors, row, base)
        elif isinstance(part, VeraConfig) and _is_lora(part) and (base or as_lora.tells_inputs(part, tensors, row)):
            config[i] = _in_words_of_lora(as_lora.of_vera(part, tensors, row, base), tensors, row, base)
        elif isinstance(part, LoraConfig) and _known(part, tensors):
            config[i] = _in_words_of_lora(part, tensors, row, base)
        elif isinstance(part, PrefixTuningConfig) and part.positions == "shifted" and base is not None:
            config[i] = prefixes.kept(part, tensors, row, base)
        elif isinstance(part, IA3Config):
            config[i] = _scaling(part, tensors, row, base)
    return adapter if config == list(adapter.config) else Adapter(tuple(config), tensors, adapter.manifest)


def _in_words_of_lora(config: LoraConfig, tensors: Tensors, row: Architecture, base: KnownBase | None) -> LoraConfig:
    """Return the configuration with one rank and scale, of maps that are meant by their kind; tensors are changed."""
    # Ranks and alphas may be those of whole maps.
    config = _in_parts(_even(config, tensors, row), tensors, row)
    config = _directed(config, tensors, row, base)
    if base is None or config.magnitude == "dora" or not linears.beyond(config.targets):
        return config
    return everywhere.lora(config, tensors, base)


def _is_lora(config: VeraConfig) -> bool:
    """Return whether the format's VeRA is not enough for this one, and a LoRA is."""
    plain = not config.gating and config.magnitude == "none" and config.projection_seed is None
    return plain and (config.form == "vectors" or config.alpha is None)


def _with_class(adapter: Adapter, row: Architecture) -> Adapter:
    """Return an adapter that keeps the class whose head it has, where the format has no flexible one like it."""
    head = next((part for part in adapter.config if is_head(part)), None)
    if head is None or NAME in adapter.manifest.extra:
        return adapter
    found = heads.of_class(head, adapter.tensors, row)
    if found is None:
        return adapter
    fixed, made = found
    config = tuple(made if part is head else part for part in adapter.config)
    # Some classes of transformers call the base model otherwise than the family does.
    other = "transformer" in row.prefixes and fixed.endswith("QuestionAnswering")
    own: dict[str, JSON] = {"fixed_head": fixed} | ({"prefix": "transformer"} if other else {})
    extra = {**adapter.manifest.extra, NAME: own}
    return replace(adapter, config=config, manifest=replace(adapter.manifest, extra=extra))


def _scaling(config: IA3Config, tensors: Tensors, row: Architecture, base: KnownBase | None) -> IA3Config:
    """Return the configuration with scaled outputs, of maps that are meant by their kind; tensors are changed."""
    if config.inputs:
        layout = _layout(config, tensors, row) if base is None else base.layout
        config = scaled_inputs.put_out(config, tensors, row, layout, base)
    if JOINT in config.targets and not mixed(row):
        config = replace(config, targets=_in_words(_roles(config, tensors, row), config.targets))
    if base is not None and linears.beyond(config.targets):
        return everywhere.ia3(config, tensors, base)
    return config


def _known(config: LoraConfig, tensors: Tensors) -> bool:
    """Return whether the format may have words for an update: none for those of embeddings, and their own for gates."""
    return not (config.gating or config.update_bias or any(key.endswith(".lora_embedding_A") for key in tensors))


def _targets(config: LoraConfig | IA3Config, tensors: Tensors, row: Architecture) -> list[Target]:
    return chosen(config.targets, _layout(config, tensors, row), leave_out=config.leave_out)


def _layout(config: LoraConfig | IA3Config, tensors: Tensors, row: Architecture) -> Layout:
    return accounting.layout((config,), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, row)


def _in_parts(config: LoraConfig, tensors: Tensors, row: Architecture) -> LoraConfig:
    """Return the configuration with the parts of maps that it names whole; tensors are changed."""
    if JOINT not in config.targets or config.magnitude != "none" or mixed(row):
        return config
    for target in _targets(config, tensors, row):
        if len(target.linear.roles) > 1:
            key = f"{target.path}.lora_A"
            tensors[key] = tensors[key].repeat(len(target.linear.roles), 1)
    return replace(config, targets=_in_words(_roles(config, tensors, row), config.targets))


def _roles(config: LoraConfig | IA3Config, tensors: Tensors, row: Architecture) -> list[str]:
    """Return what the joint maps compute."""
    return [role for one in _targets(config, tensors, row) if len(one.linear.roles) > 1 for role in one.linear.roles]


def _in_words(roles: Iterable[str], targets: Iterable[str]) -> tuple[str, ...]:
    """Return targets with the projections of joint maps in place of their word."""
    return (*dict.fromkeys(roles), *(word for word in targets if word != JOINT))


def _even(config: LoraConfig, tensors: Tensors, row: Architecture) -> LoraConfig:
    """Return the configuration with one rank and one alpha; tensors are changed."""
    if not (config.rank_stabilised or config.ranks or config.alphas):
        return config
    targets = _targets(config, tensors, row)
    ranks = {target.path: config.rank(target.linear) for target in targets}
    scales = {target.path: config.scale(target.linear) for target in targets}
    r, (scale, _) = max(ranks.values()), Counter(scales.values()).most_common(1)[0]
    uneven = [target for target in targets if (ranks[target.path], scales[target.path]) != (r, scale)]
    # The magnitudes of the format's DoRA see B as it is.
    if uneven and config.magnitude != "none":
        return config
    for target in uneven:
        _widen(target, tensors, ranks[target.path], r, scales[target.path] / scale if scale else 0.0)
    if not scale and any(scales.values()):
        return config
    return replace(config, r=r, alpha=scale * r, rank_stabilised=False, ranks={}, alphas={})


def _widen(target: Target, tensors: Tensors, has: int, r: int, factor: float) -> None:
    """Fill the factors of a map up to r ranks in each part, and multiply B."""
    from torch.nn.functional import pad

    key_a, key_b = f"{target.path}.lora_A", f"{target.path}.lora_B"
    parts = max(1, len(target.parts))
    a = tensors[key_a].unflatten(0, (parts, has))
    tensors[key_a] = pad(a, (0, 0, 0, r - has)).flatten(0, 1)
    tensors[key_b] = pad(tensors[key_b] * factor, (0, r - has))


def _directed(config: LoraConfig, tensors: Tensors, row: Architecture, base: KnownBase | None) -> LoraConfig:
    """Return the configuration with magnitudes as the format has them, if the base is known; tensors are changed."""
    if config.magnitude != "dora" or base is None:
        return config
    targets = _targets(config, tensors, row)
    if any(base.linear(target.path)[1] is not None for target in targets):
        return config
    for target in targets:
        weight, _ = base.linear(target.path)
        key = f"{target.path}.lora_magnitude"
        a, b = tensors[f"{target.path}.lora_A"], tensors[f"{target.path}.lora_B"]
        ratio = norms(weight, a, b, 1.0) / norms(weight, a, b, config.scale(target.linear))
        tensors[key] = (tensors[key].double() * ratio).to(tensors[key].dtype)
    return replace(config, magnitude="dora_adapters")


def _subtracting(config: ReftConfig, tensors: Tensors) -> ReftConfig:
    """Return the interventions with a projection that is subtracted; tensors are changed."""
    if config.subtract_projection or config.non_linearity is not None:
        return config
    for key in [key for key in tensors if key.endswith(".source.weight")]:
        unit = key.removesuffix(".source.weight")
        tensors[key] = (tensors[key].double() + _projection(unit, tensors).double()).to(tensors[key].dtype)
    return replace(config, subtract_projection=True)


def _projection(unit: str, tensors: Tensors) -> torch.Tensor:
    """Return R (r, width)."""
    dense = tensors.get(f"{unit}.projection.weight")
    if dense is not None:
        return dense
    return Rotation(tensors[f"{unit}.projection.{name}"] for name in ("reflections", "signs", "base")).computed()
