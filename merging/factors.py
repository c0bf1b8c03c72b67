"""Merging LoRAs factor by factor: what `adapters` and PEFT do where that is no sum of the updates.

    PEFT 0.21.2, linear, ties, dare_linear, dare_ties, magnitude_prune:
        A = merge of the A_i with the weights ±√|w_i s_i|,  B = merge of the B_i with √|w_i s_i|
    `adapters` 1.3.0, lora_delta_w_svd:
        B A = the best of rank r of Σ w_i B_i A_i, without scales; alpha stays as it was, so that the scale is alpha / r

and Zhang's rule (negate_b.py), which acts on factors by its nature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from ..methods import LoraConfig, factoring
from ..methods.lora import leaves
from ..sites import Linear
from .combination import Combination, Options, total
from .keeping import Keeper
from .negate_b import negate_b
from .parents import Parent, essence, release
from .request import Request
from .start_values import pass_over
from .tensors import dtype

Pair = tuple[Tensor, Tensor]


def acts_on_factors(request: Request) -> bool:
    """Return whether a request asks for something that is done with the factors."""
    row = request.combination
    if row.kept == "factors":
        return True
    if request.compat == "peft":
        return row.kept == "sum" and row.name not in ("cat", "slerp")
    return request.compat == "adapters" and row.name == "lora_delta_w_svd"


def reasons(parents: Sequence[Parent], request: Request) -> Iterator[str]:
    """Yield why the factors of these adapters cannot be merged."""
    configs = [config for parent in parents for config in parent.maps]
    odd = sorted({config.method for config in configs if not isinstance(config, LoraConfig)})
    if odd:
        yield f"it acts on the factors of LoRAs, and {', '.join(odd)} is none"
        return
    if any(len(parent.maps) != 1 for parent in parents):
        yield "it acts on the factors of one LoRA in each adapter"
        return
    if request.compat == "adapters" and request.rank is None and request.combination.kept != "factors":
        yield "`adapters` takes a rank and no energy"
    for parent in parents:
        yield from _plain(parent, request)
    yield from _same_sizes(parents, request)


def _plain(parent: Parent, request: Request) -> Iterator[str]:
    config = parent.maps[0]
    if not isinstance(config, LoraConfig):
        return
    special = {"gating": config.gating, "magnitude": config.magnitude != "none", "update_bias": config.update_bias}
    special |= {"rank_stabilised": config.rank_stabilised and request.compat == "peft"}
    found = [name for name, is_there in special.items() if is_there]
    if found:
        what = "PEFT computes something else there than it means" if request.compat == "peft" else "has no rule for it"
        yield f"{parent.name} has {', '.join(found)}: {what}"


def _same_sizes(parents: Sequence[Parent], request: Request) -> Iterator[str]:
    """Yield in what LoRAs differ that have to be alike."""
    first = parents[0]
    for other in parents[1:]:
        a, b = essence(first.maps[0]), essence(other.maps[0])
        free = ("alpha", "alphas", "targets", "leave_out") if request.compat == "peft" else ()
        fields = [f"{key} is {a[key]!r} and {b[key]!r}" for key in a if a[key] != b[key] and key not in free]
        if fields:
            yield f"the factors of {first.name} and {other.name} differ in size or scale: {', '.join(fields)}"


def merged(
    parents: Sequence[Parent], request: Request, options: Options, keeper: Keeper
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return configuration and tensors; reasons() has found none against it."""
    row = request.combination
    places = _places(parents)
    first = parents[0].maps[0]
    if request.compat == "peft" and isinstance(first, LoraConfig):
        pass_over(places.values(), first.r, options.generator)
    tensors: dict[str, Tensor] = {}
    for linear in places.values():
        name_a, name_b = (f"{linear.path}.{leaf}" for leaf in leaves(linear))
        having = [parent for parent in parents if name_a in parent.adapter.tensors]
        own = [parent.adapter.tensors for parent in having]
        a, b = [one[name_a].detach().double() for one in own], [one[name_b].detach().double() for one in own]
        weights = [parent.weight for parent in having]
        if row.kept == "factors":
            pair = negate_b(a, b, weights)
        elif request.compat == "adapters":
            pair = _delta_w_svd(a, b, weights, request.rank, request.energy)
        else:
            pair = _of_peft(
                row, a, b, [w * _scale(parent, linear) for w, parent in zip(weights, having, strict=True)], options
            )
        kind = dtype([one[name_a] for one in own])
        named = zip((name_a, name_b), pair, strict=True)
        tensors |= keeper.put({name: tensor.cpu().to(kind).contiguous() for name, tensor in named})
        release(parents)
    return _config(parents, request, places), tensors


def _places(parents: Sequence[Parent]) -> dict[str, Linear]:
    """Return path → map of every LoRA, in the order of the first layout that has it."""
    found: dict[str, Linear] = {}
    for parent in parents:
        keys = {key.rpartition(".")[0] for key in parent.keys(parent.maps[0])}
        found |= {one.path: one for one in parent.layout.linears if one.path in keys and one.path not in found}
    return found


def _scale(parent: Parent, linear: Linear) -> float:
    config = parent.maps[0]
    return config.scale(linear) if isinstance(config, LoraConfig) else 1.0


def _of_peft(
    row: Combination, a: Sequence[Tensor], b: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Pair:
    """Return what PEFT makes of the factors: the sign of a weight is on the side of A."""
    sides = [[math.copysign(math.sqrt(abs(w)), w) for w in weights], [math.sqrt(abs(w)) for w in weights]]
    made = []
    for tensors, numbers in zip((a, b), sides, strict=True):
        if row.matrix is not None:
            made.append(row.matrix(tensors, numbers, options))
        else:
            made.append(total(zip(numbers, tensors, strict=True)))
    return made[0], made[1]


def _delta_w_svd(
    a: Sequence[Tensor], b: Sequence[Tensor], weights: Sequence[float], rank: int | None, energy: float | None
) -> Pair:
    """Return what `adapters` makes of the products of the factors."""
    from torch.nn.functional import pad

    whole = sum((w * (up @ down) for w, up, down in zip(weights, b, a, strict=True)), a[0].new_zeros(()))
    made = factoring.of_matrix(whole, rank=rank, energy=energy)
    more = (rank or made.rank) - made.rank
    return pad(made.a, (0, 0, 0, more)), pad(made.b, (0, more))


def _config(parents: Sequence[Parent], request: Request, places: dict[str, Linear]) -> LoraConfig:
    """Return the configuration of the result."""
    first = parents[0].maps[0]
    if not isinstance(first, LoraConfig):
        raise AssertionError("reasons() refuses what is no LoRA")
    if request.compat != "peft":
        return first if request.rank is None else dataclasses.replace(first, r=request.rank, ranks={})
    alike = all(essence(parent.maps[0])["targets"] == list(first.targets) for parent in parents)
    targets = first.targets if alike else tuple(places)
    ranks = {path: float(r) for path, r in first.ranks.items()}
    return dataclasses.replace(first, targets=targets, alpha=float(first.r), alphas=ranks)
