"""Merging adapters into one: everything is checked first, then it is done map by map and tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapter import Adapter, MethodConfig
from ..architectures import Architecture
from ..errors import UnsupportedError, UsageError
from ..methods import LoraConfig
from ..methods.deltas import LOW_RANK, Changes
from ..methods.dora import Magnitude
from ..sites import Linear
from . import factors, heads, tensors
from .combination import Options
from .keeping import InMemory, Keeper
from .lora import Growing, Site
from .manifest import base_of, manifest
from .maps import Mixer
from .parents import Parent, essence, release, taken_apart
from .request import KnownBase, Request, Source
from .start_values import pass_over

IDENTITY = ("linear", "task_arithmetic", "cat")
"""Methods that give a single adapter of weight 1 back as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """An adapter made of others, and what was done.

    Attributes:
        adapter: the result.
        weights: the weight of each parent.
        sites: what was done at each linear map.
        tensors: methods that were merged tensor by tensor.
        head: what became of the heads.
        seed: the seed of what was drawn, or None.
    """

    adapter: Adapter
    weights: tuple[float, ...]
    sites: tuple[Site, ...]
    tensors: tuple[str, ...]
    head: str
    seed: int | None


def merge(
    sources: Sequence[Source],
    request: Request,
    *,
    name: str,
    base: KnownBase | None = None,
    row: Architecture | None = None,
    keeper: Keeper | None = None,
) -> Merged:
    """Return one adapter made of several.

    It is made tensor by tensor, and the sources are told to give back what each took: where these lie on the disk, and
    the keeper puts the result there, no more than the updates of one map are in memory at a time.

    Args:
        sources: the adapters.
        request: how.
        name: of the result.
        base: the base model, for methods whose updates depend on its weights.
        row: the model family, where it is none of those that are known.
        keeper: takes the tensors of the result; None keeps them in memory.

    Raises:
        UsageError: the options mean nothing.
        BaseMismatchError: the adapters were made for different base models.
        UnsupportedError: they cannot be merged in this way; every reason.
    """
    weights = request.checked_weights(len(sources))
    base_of(sources, allow_mismatch=request.allow_base_mismatch)
    parents = taken_apart(sources, weights, request, base, row)
    head = heads.head_for(parents, request.head)
    if len(parents) == 1 and weights == (1.0,) and request.method in IDENTITY and not request.is_sized:
        return _same(parents[0], request, head, name)
    changes = _checked(parents, request, base)
    options, seed = _options(request)
    kept = keeper or InMemory()
    configs: list[MethodConfig] = []
    found: dict[str, Tensor] = {}
    sites: list[Site] = []
    if any(parent.maps for parent in parents):
        updates, own, sites = _maps(parents, changes, request, options, base, kept)
        configs.append(updates)
        found |= own
    for config in parents[0].tensors:
        changed, own = tensors.merged(config, parents, request, base, kept)
        configs.append(changed)
        found |= own
    return _result(parents, request, (configs, found, sites), head, name, seed)


def _same(parent: Parent, request: Request, head: heads.Head, name: str) -> Merged:
    """Return a single adapter of weight 1: itself."""
    # The result is nobody's view: the source may be a file that is written over.
    found = {key: parent.adapter.tensors[key].clone() for config in parent.rest for key in parent.keys(config)}
    return _result([parent], request, (list(parent.rest), found, []), head, name, None)


def _result(
    parents: Sequence[Parent],
    request: Request,
    content: tuple[list[MethodConfig], dict[str, Tensor], list[Site]],
    head: heads.Head,
    name: str,
    seed: int | None,
) -> Merged:
    configs, found, sites = content
    if not (configs or head.config):
        raise UsageError("the adapters bring nothing that could be merged")
    known = manifest(
        parents,
        request,
        seed,
        name=name,
        labels=head.labels,
        exact=all(one.kept > 1 - 1e-12 for one in sites),
    )
    adapter = Adapter((*configs, *head.config), {**found, **(head.tensors or {})}, known)
    by_tensor = tuple(dict.fromkeys(config.method for config in parents[0].tensors))
    return Merged(adapter, tuple(p.weight for p in parents), tuple(sites), by_tensor, head.how, seed)


def _checked(parents: Sequence[Parent], request: Request, base: KnownBase | None) -> list[list[Changes]]:
    """Return what each adapter changes at linear maps.

    Raises:
        UnsupportedError: the adapters cannot be merged; every reason.
    """
    found = list(tensors.reasons(parents, request, base))
    hint = ""
    changes: list[list[Changes]] = []
    if any(parent.maps for parent in parents):
        if factors.acts_on_factors(request):
            found += factors.reasons(parents, request)
        else:
            hint, more = _map_reasons(parents, base, changes)
            found += more
    if found:
        raise UnsupportedError(
            f"the adapters cannot be merged by {request.combination.name}: {'; '.join(dict.fromkeys(found))}",
            hint=hint,
        )
    return changes


def _map_reasons(
    parents: Sequence[Parent], base: KnownBase | None, changes: list[list[Changes]]
) -> tuple[str, list[str]]:
    """Return a hint and why the updates of linear maps cannot be merged; put what is changed into changes."""
    found, hint = [], ""
    for parent in parents:
        try:
            own = parent.changes(base)
            for change in own:
                change.at(next(iter(change.linears)))
            changes.append(own)
        except UnsupportedError as error:
            found.append(f"{parent.name}: {error.message}")
            gated = any(config.to_json().get("gating") for config in parent.maps)
            hint = hint or ("compat='adapters' averages the tensors of gated adapters" if gated else error.hint)
    found += _form_reasons(parents)
    return hint, found


def _form_reasons(parents: Sequence[Parent]) -> Iterator[str]:
    """Yield why no one form of LoRA holds the result."""
    configs = [config for parent in parents for config in parent.maps]
    forms = {form for config in configs if (form := _form(config)) != "none"}
    if len(forms) > 1:
        yield "some are DoRAs as in the paper, others as in `adapters`, which treat biases differently"
    biased = [parent.name for parent in parents for config in parent.maps if config.to_json().get("update_bias")]
    if forms and biased:
        yield f"{', '.join(biased)} adds to biases, and a DoRA has no place for that"


def _form(config: MethodConfig) -> Magnitude:
    found: Magnitude = config.to_json().get("magnitude", "none")
    return found


def _options(request: Request) -> tuple[Options, int | None]:
    """Return what the method is told, and the seed if it draws random numbers."""
    density = 1.0 if request.density is None else request.density
    seed = None
    if "seed" in request.combination.takes and density < 1:
        seed = int(torch.randint(2**31, ())) if request.seed is None else request.seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return Options(
        density=density, majority=request.majority, generator=generator, favours_plus=request.compat == "peft"
    ), seed


def _maps(
    parents: Sequence[Parent],
    changes: Sequence[Sequence[Changes]],
    request: Request,
    options: Options,
    base: KnownBase | None,
    keeper: Keeper,
) -> tuple[LoraConfig, dict[str, Tensor], list[Site]]:
    """Return the LoRA that the updates of linear maps are merged into, and what was done at each."""
    if factors.acts_on_factors(request):
        return *factors.merged(parents, request, options, keeper), []
    like = _alike(parents)
    mixer = _mixer(parents, request, options, base, by_parts=like is not None)
    weights = [parent.weight for parent in parents]
    places = _places(changes)
    if request.compat == "peft" and mixer.rank is not None:
        pass_over(places.values(), mixer.rank, options.generator)
    growing = Growing(keeper, mixer.dtype)
    for path, linear in places.items():
        found = [next((own.at(path) for own in mine if path in own.linears), None) for mine in changes]
        growing.add(mixer.at(linear, found, weights))
        release(parents)
    config, own = growing.finished(like, magnitude=mixer.magnitude, padded=mixer.rank is not None)
    return config, own, growing.sites


def _mixer(
    parents: Sequence[Parent], request: Request, options: Options, base: KnownBase | None, *, by_parts: bool
) -> Mixer:
    row = request.combination
    configs = [config for parent in parents for config in parent.maps]
    forms = [form for config in configs if (form := _form(config)) != "none"]
    keeps_form = row.coefficients is not None and all(config.method in LOW_RANK for config in configs)
    rank = request.rank
    if row.kept == "rank" and not request.is_sized:
        rank = _largest_rank(configs)
    return Mixer(
        row=row,
        options=options,
        rank=rank,
        energy=request.energy,
        magnitude=forms[0] if forms and keeps_form else "none",
        by_parts=by_parts and row.coefficients is not None,
        read=None if base is None else base.parameter,
        report=request.report,
        turns=request.compat == "peft",
        dtype=tensors.dtype([tensor for parent in parents for tensor in _own(parent)]),
    )


def _own(parent: Parent) -> list[Tensor]:
    """Return the tensors of the updates of linear maps."""
    return [parent.adapter.tensors[key] for config in parent.maps for key in parent.keys(config)]


def _largest_rank(configs: Sequence[MethodConfig]) -> int:
    """Return the largest rank of the parents, which is what PEFT takes.

    Raises:
        UsageError: none of them has one.
    """
    data = [config.to_json() for config in configs]
    ranks = [r for one in data for r in (one.get("r"), *one.get("ranks", {}).values()) if isinstance(r, int)]
    if not ranks:
        raise UsageError("the adapters have no rank of their own", hint="give --rank or --energy")
    return max(ranks)


def _alike(parents: Sequence[Parent]) -> LoraConfig | None:
    """Return the first LoRA if all parents are LoRAs of the same targets, whose words and parts can be kept."""
    configs = [config for parent in parents for config in parent.maps]
    first = configs[0]
    if not isinstance(first, LoraConfig) or len(configs) != len(parents):
        return None
    where = [(essence(config).get("targets"), essence(config).get("leave_out")) for config in configs]
    same = all(isinstance(config, LoraConfig) for config in configs) and all(one == where[0] for one in where)
    return first if same else None


def _places(changes: Sequence[Sequence[Changes]]) -> dict[str, Linear]:
    """Return path → every map that changes, in the order of the first adapter that changes it."""
    found: dict[str, Linear] = {}
    for own in changes:
        for one in own:
            found |= {path: linear for path, linear in one.linears.items() if path not in found}
    return found
