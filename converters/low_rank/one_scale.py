"""LoRA with one scale for all maps, for libraries that know no other: what a map's differs by goes into its B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...adapter import Adapter
from ...architectures import by_name
from ...methods import LoraConfig
from ...methods.targets import chosen
from ..format import KnownBase
from ..peft import equal
from .updates import layout_of

if TYPE_CHECKING:
    from torch import Tensor


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same as a LoRA with one scale; see Format."""
    return of_one_scale(equal.rewritten(adapter, base))


def of_one_scale(adapter: Adapter, *, plain: bool = False) -> Adapter:
    """Return an adapter that computes the same, with a scale of 1 at every map if they have several.

    plain: also where ranks differ and the scale is the same, so that alpha is each map's rank.
    """
    config = next((config for config in adapter.config if isinstance(config, LoraConfig)), None)
    if config is None or config.gating:
        return adapter
    targets = chosen(
        config.targets, layout_of(adapter, by_name(adapter.manifest.base.architecture)), leave_out=config.leave_out
    )
    scales = {target.path: config.scale(target.linear) for target in targets}
    if len(set(scales.values())) == 1 and not (plain and config.ranks):
        return adapter
    tensors = {key: _scaled(key, tensor, scales) for key, tensor in adapter.tensors.items()}
    alphas = {place: float(r) for place, r in config.ranks.items()}
    one = replace(config, alpha=float(config.r), alphas=alphas, rank_stabilised=False)
    return replace(adapter, config=tuple(one if part is config else part for part in adapter.config), tensors=tensors)


def _scaled(key: str, tensor: Tensor, scales: Mapping[str, float]) -> Tensor:
    """Return a tensor with the scale of its map in it, if it is a B or the bias of an update."""
    path, _, leaf = key.rpartition(".")
    if leaf not in ("lora_B", "lora_embedding_B", "lora_bias") or scales.get(path, 1.0) == 1.0:
        return tensor
    return (tensor.double() * scales[path]).to(tensor.dtype)
