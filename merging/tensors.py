"""Merging tensor by tensor: the weighted sum of each, for methods that are no update of weights, or proportional to it.

    t = Σ w_i t_i + (1 - Σ w_i) t_0

t_0 is where nothing is changed: 1 for the factors of (IA)³, the base model's own parameter for those that stand in for
one, 0 for all others. With weights that add up to 1 it does not matter. For bottlenecks, prefixes, prompts and the like
this is what `adapters` calls averaging: what they compute is not linear in their tensors, so it is no mean of outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..adapter import MethodConfig
from ..methods import IA3Config
from .keeping import Keeper
from .parents import STAND_INS, Parent, essence, release
from .request import KnownBase, Request

CLOSE = 1e-9
"""Weights that miss a sum of 1 by less are taken to add up to it."""


def reasons(parents: Sequence[Parent], request: Request, base: KnownBase | None) -> Iterator[str]:
    """Yield why what is to be merged tensor by tensor cannot be."""
    row, first = request.combination, parents[0]
    everything = {config.method for parent in parents for config in parent.tensors}
    if everything and not row.by_tensor:
        yield f"{row.name} is defined for updates of weights, and {', '.join(sorted(everything))} is none"
        return
    if everything and request.is_sized and not any(parent.maps for parent in parents):
        yield f"a rank or energy means nothing for {', '.join(sorted(everything))}"
    for parent in parents[1:]:
        yield from _different(first, parent)
    for config in first.tensors:
        yield from _own_reasons(config, first, parents, request, base)


def _different(first: Parent, other: Parent) -> Iterator[str]:
    """Yield in what two parents are not alike."""
    theirs = {config.method: config for config in other.tensors}
    ours = {config.method: config for config in first.tensors}
    for method in sorted(theirs.keys() ^ ours.keys()):
        has, lacks = (first, other) if method in ours else (other, first)
        yield f"{has.name} has {method}, {lacks.name} has none of it"
    for method in sorted(theirs.keys() & ours.keys()):
        a, b = essence(ours[method]), essence(theirs[method])
        fields = [f"{key} is {a[key]!r} and {b[key]!r}" for key in a if a[key] != b[key]]
        if fields:
            yield f"the {method} of {first.name} and {other.name} differ: {', '.join(fields[:4])}"
            continue
        one, two = first.adapter.tensors, other.adapter.tensors
        sizes = [key for key in first.keys(ours[method]) if key not in two or one[key].shape != two[key].shape]
        if sizes:
            yield f"{sizes[0]} has another shape in {other.name} than in {first.name}"
        elif any(not one[k].is_floating_point() and not one[k].equal(two[k]) for k in first.keys(ours[method])):
            yield f"the {method} of {first.name} and {other.name} act at different entries"


def _own_reasons(
    config: MethodConfig, first: Parent, parents: Sequence[Parent], request: Request, base: KnownBase | None
) -> Iterator[str]:
    """Yield why tensors of one method cannot be added up."""
    data = config.to_json()
    if config.method == "reft" and data["orthogonality"]:
        yield "the rotations of reft are orthogonal, and a weighted sum of them is not"
    if request.compat is not None:
        return
    if isinstance(config, IA3Config):
        if config.gating:
            yield "ia3 has a gate, which depends on the input (compat='adapters' averages its tensors)"
        both = [key for key in first.keys(config) if key.endswith(".ia3_inputs")]
        both = [key for key in both if key.replace(".ia3_inputs", ".ia3_outputs") in first.adapter.tensors]
        if both:
            yield f"ia3 scales inputs and outputs of {both[0].rpartition('.')[0]}, a product that is no sum"
    if config.method in STAND_INS and not sums_to_one(parents):
        if config.method == "trainable_tokens":
            yield "trainable_tokens stand in for rows of the base model, so their weights must add up to 1"
        elif base is None:
            yield f"the weights do not add up to 1, so {config.method} needs the base model's own values (--base)"


def sums_to_one(parents: Sequence[Parent]) -> bool:
    """Return whether the weights add up to 1."""
    return abs(sum(parent.weight for parent in parents) - 1) < CLOSE


def merged(
    config: MethodConfig, parents: Sequence[Parent], request: Request, base: KnownBase | None, keeper: Keeper
) -> tuple[MethodConfig, dict[str, Tensor]]:
    """Return the configuration and the tensors of one method; reasons() has found none against it."""
    rest = 1 - sum(parent.weight for parent in parents)
    plain = request.compat is not None or sums_to_one(parents)
    found: dict[str, Tensor] = {}
    for key in parents[0].keys(config):
        like = [parent.adapter.tensors[key] for parent in parents]
        if not like[0].is_floating_point():
            found |= keeper.put({key: like[0].clone()})
            continue
        total = torch.zeros(like[0].shape, dtype=torch.float64)
        for parent, tensor in zip(parents, like, strict=True):
            total += parent.weight * tensor.detach().cpu().double()
        if not plain:
            total += rest * _still(config, key, parents[0], base)
        found |= keeper.put({key: total.to(dtype(like))})
        release(parents)
    if isinstance(config, IA3Config) and not plain:
        # The parts of a map that are left alone are multiplied by `rest`.
        config = dataclasses.replace(config, rest=1 + (1 - rest) * (config.rest - 1))
    return config, found


def _still(config: MethodConfig, key: str, parent: Parent, base: KnownBase | None) -> Tensor | float:
    """Return the value of a tensor with which nothing is changed."""
    if config.method in STAND_INS:
        if base is None:
            raise AssertionError("reasons() asks for the base")
        return base.parameter(key).detach().cpu().double()
    if isinstance(config, IA3Config):
        if key.endswith(".ia3_outputs"):
            return 1 / config.factor(parent.layout.linear[key.rpartition(".")[0]])
        return 1.0
    return 0.0


def dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype of a result: the widest, float32 at least, so that sums lose nothing to half precision."""
    found = torch.float32
    for tensor in tensors:
        found = torch.promote_types(found, tensor.dtype) if tensor.is_floating_point() else found
    return found
