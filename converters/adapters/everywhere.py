"""What acts at some linear maps, in words that mean every map of a kind.

The format adapts each map that it names in each layer that is not left out. An adapter of some maps is one of all of
their kind that does nothing at the others: updates of zero, factors of one. Layers without any are left out. Which
there are, the base model tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...methods import IA3Config, LoraConfig
from ...methods.lora import target_shapes
from ...methods.targets import WORDS, Target, chosen
from ...sites import PROJECTIONS, Linear, Projection
from ..format import KnownBase
from ..magnitudes import norms
from . import linears

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def lora(config: LoraConfig, tensors: Tensors, base: KnownBase) -> LoraConfig:
    """Return the configuration in words that mean every layer, if there are such; tensors are changed."""
    found = _chosen(config, base)
    roles = _roles(found)
    if not roles or config.ranks or config.alphas:
        return config
    words = replace(config, targets=roles, leave_out=_left_out(config.leave_out, found, roles, base))
    known = {target.path: target for target in found}
    for target in chosen(roles, base.layout, leave_out=words.leave_out):
        if target.path in known:
            _fill_parts(known[target.path], target, tensors)
        else:
            _add_nothing(words, target, tensors, base)
    return words


def ia3(config: IA3Config, tensors: Tensors, base: KnownBase) -> IA3Config:
    """Return the configuration in words that mean every layer, if there are such; tensors are changed."""
    found = _chosen(config, base)
    roles = _roles(found)
    if not roles or config.inputs or config.alphas or (config.alpha, config.rest) != (1, 1) or config.gating:
        return config
    like = next(iter(tensors.values()))
    words = replace(config, targets=roles, leave_out=_left_out(config.leave_out, found, roles, base))
    known = {target.path: target for target in found}
    for target in chosen(roles, base.layout, leave_out=words.leave_out):
        key, parts = f"{target.path}.ia3_outputs", target.parts or (0,)
        if target.path not in known:
            tensors[key] = like.new_ones(len(parts) * target.part_size)
        elif known[target.path].parts not in ((), target.parts):
            tensors[key] = _parted(tensors[key], known[target.path], parts, fill=1.0)
    return words


def _chosen(config: LoraConfig | IA3Config, base: KnownBase) -> Sequence[Target]:
    """Return the maps of the base model that are adapted, () where it lacks some, as those of a head."""
    paths = {word for word in config.targets if word not in WORDS}
    if not config.targets or not paths <= base.layout.linear.keys():
        return ()
    return chosen(config.targets, base.layout, leave_out=config.leave_out)


def _roles(found: Sequence[Target]) -> tuple[Projection, ...]:
    """Return what maps compute, in the order of projections, () where the format has no name for one of them."""
    of = {role for target in found for role in _of(target)}
    nameless = any(target.linear.layer is None or not target.linear.roles for target in found)
    if nameless or linears.beyond(of):
        return ()
    return tuple(role for role in PROJECTIONS if role in of)


def _of(target: Target) -> tuple[Projection, ...]:
    """Return the projections that are meant of a map."""
    roles = target.linear.roles
    return tuple(roles[i] for i in target.parts) if target.parts else roles


def _left_out(
    already: Iterable[int], found: Sequence[Target], roles: Sequence[Projection], base: KnownBase
) -> tuple[int, ...]:
    """Return the layers that have maps of the kinds and none that is adapted."""
    has = {linear.layer for linear in base.layout.linears if _is_one(linear, roles) and linear.layer is not None}
    return tuple(sorted({*already, *(has - {target.linear.layer for target in found})}))


def _is_one(linear: Linear, roles: Sequence[Projection]) -> bool:
    return not set(roles).isdisjoint(linear.roles)


def _add_nothing(config: LoraConfig, target: Target, tensors: Tensors, base: KnownBase) -> None:
    """Put an update of zero at a map."""
    like = next(iter(tensors.values()))
    for name, shape in target_shapes(config, target).items():
        tensors[f"{target.path}.{name}"] = like.new_zeros(shape)
    if config.magnitude != "none":
        weight, _ = base.linear(target.path)
        a, b = tensors[f"{target.path}.lora_A"], tensors[f"{target.path}.lora_B"]
        tensors[f"{target.path}.lora_magnitude"] = norms(weight, a, b, 0.0).to(like.dtype)


def _fill_parts(has: Target, target: Target, tensors: Tensors) -> None:
    """Put updates of zero at the parts of a joint map that have none; one of the whole map is one of each part."""
    if has.parts == target.parts:
        return
    key_a, key_b = f"{target.path}.lora_A", f"{target.path}.lora_B"
    if not has.parts:
        tensors[key_a] = tensors[key_a].repeat(len(target.parts), 1)
        return
    tensors[key_a] = _parted(tensors[key_a], has, target.parts, fill=0.0)
    tensors[key_b] = _parted(tensors[key_b], has, target.parts, fill=0.0)


def _parted(tensor: torch.Tensor, has: Target, parts: Sequence[int], *, fill: float) -> torch.Tensor:
    """Return what a map has for its parts, one after the other, with further parts."""
    import torch

    blocks = dict(zip(has.parts, tensor.chunk(len(has.parts)), strict=True))
    other = torch.full_like(next(iter(blocks.values())), fill)
    return torch.cat([blocks.get(part, other) for part in parts])
