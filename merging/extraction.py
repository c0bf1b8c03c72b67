"""A LoRA out of a fine-tuned model: the best low-rank factors of what training did to each linear map.

    T - B ≈ B' A'      at every linear map, by singular values (methods/factoring.py)

What else differs is kept as it is: layer norms as trained layer norms, biases, embeddings and the like as trained
parameters. Weights are asked for one after the other, so that no more than one of each model is held.

Source: Eckart and Young 1936, Psychometrika 1, 211-218; PEFT 0.21.2, tuners/lora/conversion.py, for the two ways to say
how much is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapter import Adapter, Base, Manifest, MethodConfig, Provenance
from ..converters.identity import own_version
from ..errors import BaseMismatchError, UnsupportedError, UsageError
from ..methods import LayerNormConfig, ParametersConfig, factoring
from ..methods.deltas import Block
from ..methods.linear_maps import is_transposed
from ..sites import Layout, Linear
from .keeping import InMemory
from .lora import Growing, Site
from .maps import Made
from .request import KnownBase


@dataclass(frozen=True, slots=True)
class Whole:
    """A parameter that is kept as it is in the tuned model.

    Attributes:
        path: the parameter.
        values: how many it has.
        norm: norm of what training did to it.
    """

    path: str
    values: int
    norm: float


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """An adapter taken out of a fine-tuned model.

    Attributes:
        adapter: the adapter.
        sites: rank and kept energy at each linear map that differs; `exact` is the norm of the difference.
        kept: parameters that no LoRA holds, which are kept whole: biases, norms, embeddings, weights used twice, ….
        same: how many parameters do not differ.
    """

    adapter: Adapter
    sites: tuple[Site, ...]
    kept: tuple[Whole, ...]
    same: int


@dataclass(slots=True)
class _Found:
    """What differs between two models.

    Attributes:
        tied: parameters that stand for several in one of them.
    """

    tied: frozenset[str]
    lora: Growing = field(default_factory=lambda: Growing(InMemory(), torch.float32))
    others: dict[str, Tensor] = field(default_factory=dict)
    kept: list[Whole] = field(default_factory=list)
    same: int = 0


def extract(
    base: KnownBase,
    tuned: KnownBase,
    *,
    of: Base,
    name: str,
    rank: int | None = None,
    energy: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extracted:
    """Return what a fine-tuned model has learnt as an adapter of its base model.

    Args:
        base: the base model.
        tuned: the fine-tuned one.
        of: what the manifest says of the base model.
        name: of the adapter.
        rank: rank at each linear map.
        energy: in place of it, the part of the squared norm of each difference that is to be kept.
        on_progress: told how many of the parameters are done.

    Raises:
        UsageError: neither rank nor energy is given, or the models do not differ.
        BaseMismatchError: the models have other parameters or shapes; every one.
    """
    factoring.check_size(rank, energy)
    if rank is None and energy is None:
        raise UsageError("extracting needs a size", hint="give --rank or --energy")
    _check_shapes(base.layout, tuned.layout)
    found = _Found(tied=frozenset({*base.layout.tied, *tuned.layout.tied}))
    maps = {f"{linear.path}.weight": linear for linear in base.layout.linears if _is_map(linear, base.layout)}
    paths = list(_once(base.layout))
    for number, path in enumerate(paths):
        on_progress(number, len(paths))
        before, after = base.parameter(path).detach(), tuned.parameter(path).detach()
        if after.equal(before.to(after.dtype)):
            found.same += 1
        elif path in maps and path not in tuned.layout.tied:
            found.lora.add(_of_map(maps[path], before, after, rank, energy))
        else:
            found.others[path] = after
            found.kept.append(Whole(path, after.numel(), float((after.double() - before.double()).norm())))
    return _extracted(found, base.layout, of, name, rank, energy)


def _is_map(linear: Linear, layout: Layout) -> bool:
    """Return whether the weight of a map is taken as an update.

    Tables of embeddings are kept whole; so are weights that other modules use too, where an update of one map is none.
    """
    return linear.kind != "embedding" and linear.groups == 1 and f"{linear.path}.weight" not in layout.tied


def _once(layout: Layout) -> Iterator[str]:
    """Yield the paths of all parameters, of shared ones the first."""
    for path in layout.parameters:
        if path not in layout.tied or layout.tied[path][0] == path:
            yield path


def _check_shapes(base: Layout, tuned: Layout) -> None:
    """Raise where the models are not of one shape."""
    odd = [
        f"{path} has shape {base.parameters.get(path)} in the base model, {tuned.parameters.get(path)} in the tuned one"
        for path in {**base.parameters, **tuned.parameters}
        if base.parameters.get(path) != tuned.parameters.get(path)
    ]
    if odd:
        shown = "; ".join(odd[:5]) + (f"; and {len(odd) - 5} more" if odd[5:] else "")
        raise BaseMismatchError(f"the tuned model was not made of this base model: {shown}")


def _of_map(linear: Linear, before: Tensor, after: Tensor, rank: int | None, energy: float | None) -> Made:
    """Return the best factors of the difference at one map."""
    change = after.double() - before.double()
    oriented = (change.t() if is_transposed(linear) else change).flatten(1)
    made = factoring.of_matrix(oriented, rank=rank, energy=energy)
    length = float(oriented.norm())
    return Made(
        linear=linear,
        blocks=(Block(made.a, made.b),),
        kept=made.kept,
        exact=length,
        error=max(0.0, 1 - made.kept) ** 0.5,
    )


def _extracted(found: _Found, layout: Layout, of: Base, name: str, rank: int | None, energy: float | None) -> Extracted:
    configs: list[MethodConfig] = []
    tensors: dict[str, Tensor] = {}
    sites = tuple(found.lora.sites)
    if sites:
        config, own = found.lora.finished(None, magnitude="none", padded=rank is not None)
        configs.append(config)
        tensors |= own
    norms, others = _parted(found.others, layout)
    if norms:
        configs.append(LayerNormConfig(modules=tuple(norms)))
    if others:
        configs.append(ParametersConfig(names=tuple(others), tied=tuple(path for path in others if path in found.tied)))
    tensors |= {path: tensor.cpu().contiguous() for path, tensor in found.others.items()}
    if not configs:
        raise UsageError("the two models do not differ", hint="name the fine-tuned model with --tuned")
    exact = all(one.kept > 1 - 1e-12 for one in sites)
    settings: dict[str, float] = {"rank": rank} if rank is not None else {"energy": energy or 0.0}
    origin = Provenance(
        format="extract", converter=f"adapterhub {own_version()}", exact=exact, method="svd", settings=settings
    )
    manifest = Manifest(name=name, base=of, provenance=origin)
    return Extracted(Adapter(tuple(configs), tensors, manifest), sites, tuple(found.kept), found.same)


def _parted(others: dict[str, Tensor], layout: Layout) -> tuple[list[str], list[str]]:
    """Return the norms that differ in all their parameters, and the paths of all else."""
    norms = [norm.path for norm in layout.norms if all(f"{norm.path}.{leaf}" in others for leaf in norm.shapes)]
    inside = {path for path in others if path.rpartition(".")[0] in norms}
    return norms, [path for path in others if path not in inside]


def refuse_further(names: Sequence[str], what: str) -> None:
    """Refuse weights that only the tuned model has.

    Raises:
        UnsupportedError: names them.
    """
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
        raise UnsupportedError(
            f"{what} has weights that the base model lacks: {shown}",
            hint="--without-head leaves them out",
        )
