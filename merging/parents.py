"""The adapters that are merged, taken apart: what changes linear maps, what else they bring, and their heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapter import Adapter, MethodConfig
from ..architectures import ARCHITECTURES, Architecture
from ..converters import accounting
from ..errors import FormatError, UnsupportedError
from ..methods import Shapes, is_head, method_of, shapes
from ..methods.deltas import Changes, changes_maps
from ..sites import Layout
from .request import KnownBase, Request, Source

TRAINING_ONLY = ("dropout", "init_weights", "init_weights_seed", "d_initial", "b_initial", "init_range")
"""Fields of configurations that say nothing of what an adapter computes."""

STAND_INS = ("layer_norm", "parameters", "trainable_tokens")
"""Methods whose tensors stand in for parameters of the base model."""

PROPORTIONAL = ("ia3", "beft", "fourierft", "waveft", "c3a", "shira")
"""Methods whose update is linear in their tensors, so that the sum of several is one of the same method."""


@dataclass(slots=True, eq=False)
class Parent:
    """One adapter that is merged.

    Attributes:
        source: the adapter with its name and digest.
        weight: its weight.
        layout: the places of its base model, or what its tensors tell of them.
        head: its head, or None.
        maps: configurations that are merged as updates of linear maps.
        tensors: configurations that are merged tensor by tensor.
    """

    source: Source
    weight: float
    layout: Layout
    head: MethodConfig | None
    rest: tuple[MethodConfig, ...]
    maps: list[MethodConfig] = field(default_factory=list)
    tensors: list[MethodConfig] = field(default_factory=list)

    @property
    def adapter(self) -> Adapter:
        """The adapter."""
        return self.source.adapter

    @property
    def name(self) -> str:
        """Its name."""
        return self.source.name

    def keys(self, config: MethodConfig) -> list[str]:
        """Return the keys of the tensors that one configuration has."""
        return list(method_of(config).shapes(config, self.layout))

    def changes(self, base: KnownBase | None) -> list[Changes]:
        """Return what its configurations change at linear maps.

        Raises:
            UnsupportedError: the base model is needed, and there is none.
        """
        read = None if base is None else base.parameter
        return [Changes(method_of(c), c, self.layout, self.adapter.tensors, read) for c in self.maps]


def release(parents: Iterable[Parent]) -> None:
    """Let the sources give back what their tensors took of memory."""
    for parent in parents:
        parent.source.release()


def essence(config: MethodConfig) -> dict[str, Any]:
    """Return the fields of a configuration that say what it computes."""
    return {key: value for key, value in config.to_json().items() if key not in TRAINING_ONLY}


def taken_apart(
    sources: Sequence[Source],
    weights: Sequence[float],
    request: Request,
    base: KnownBase | None,
    row: Architecture | None,
) -> list[Parent]:
    """Return the parents, with each configuration where it belongs.

    Raises:
        FormatError: tensors are not those of the configuration.
        UnsupportedError: the model family is unknown.
    """
    parents: list[Parent] = []
    for source, weight in zip(sources, weights, strict=True):
        parents.append(_parent(source, weight, base, row, like=parents[0] if parents else None))
    for parent in parents:
        for config in parent.rest:
            as_map = _is_map(parent, config) and not _tensor_wise(config, parents, request)
            (parent.maps if as_map else parent.tensors).append(config)
    return parents


def _parent(
    source: Source, weight: float, base: KnownBase | None, row: Architecture | None, like: Parent | None
) -> Parent:
    adapter = source.adapter
    have = _shapes(adapter)
    if like is not None and adapter.config == like.adapter.config and have == _shapes(like.adapter):
        layout, wanted = like.layout, have
    else:
        layout = base.layout if base is not None else layout_of(adapter, row)
        wanted = shapes(adapter.config, layout)
    if have != wanted:
        odd = [key for key in {**have, **wanted} if have.get(key) != wanted.get(key)]
        raise FormatError(
            f"the tensors of {source.name} are not those of its configuration",
            faults=[f"{key!r} has shape {have.get(key)}, expected {wanted.get(key)}" for key in odd[:10]],
        )
    head = next((config for config in adapter.config if is_head(config)), None)
    return Parent(source, weight, layout, head, tuple(config for config in adapter.config if not is_head(config)))


def layout_of(adapter: Adapter, row: Architecture | None = None) -> Layout:
    """Return what an adapter's tensors tell of its model.

    Raises:
        UnsupportedError: the model family is unknown.
    """
    known = row or next((one for one in ARCHITECTURES if one.name == adapter.manifest.base.architecture), None)
    if known is None:
        raise UnsupportedError(
            f"the model family {adapter.manifest.base.architecture!r} is not known",
            hint="describe it with --architecture, or name the base model",
        )
    return accounting.layout(adapter.config, _shapes(adapter), known)


def _shapes(adapter: Adapter) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}


def _is_map(parent: Parent, config: MethodConfig) -> bool:
    if config.method in STAND_INS:
        return False
    return changes_maps(method_of(config), config, parent.layout, parent.adapter.tensors)


def _tensor_wise(config: MethodConfig, parents: Iterable[Parent], request: Request) -> bool:
    """Return whether a change of linear maps is merged tensor by tensor all the same."""
    if request.compat == "adapters":
        return request.combination.by_tensor
    if config.method not in PROPORTIONAL or request.is_sized or not request.combination.by_tensor:
        return False
    return all(_fixed_alike(config, parent, parents) for parent in parents)


def _fixed_alike(config: MethodConfig, parent: Parent, parents: Iterable[Parent]) -> bool:
    """Return whether a parent has the same configuration, and its whole numbers, such as indices, are the first's."""
    own = [one for one in parent.rest if essence(one) == essence(config)]
    if len(own) != 1:
        return False
    first = next(iter(parents)).adapter.tensors
    have = parent.adapter.tensors
    return all(
        have[key].is_floating_point() or (key in first and have[key].equal(first[key])) for key in parent.keys(own[0])
    )
