"""Compacter in files of `adapters`: bottlenecks with `phm_layer`, and parameters that all of them share.

Files that were saved from a model without a head lack what is shared: the library does not save it there.

Source: adapters 1.3.0, configuration/adapter_config.py (BnConfig), methods/modeling.py (PHMLayer,
init_shared_parameters) and model_mixin.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import CompacterConfig
from ...methods.config import config_from_json, field_types
from . import bottleneck
from .codec import Codec, Container, Entry, Fields, Places, Source, at_base

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

FIELDS = tuple(field_types(CompacterConfig))

FLAGS = ("factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "learn_phm", "phm_bias")
"""Fields that may be null, which is false."""

LEAVES = (
    ("W_left", "W_left"),
    ("W_right", "W_right"),
    ("W", "W"),
    ("phm_rule", "rule"),
    ("phm_rule_left", "rule_left"),
    ("phm_rule_right", "rule_right"),
    ("b", "bias"),
)
"""Parameters of one projection."""

SHARED = (
    *((f"W_{way}_{part}", f"shared.phm_{way}.W_{part}") for way in ("down", "up") for part in ("left", "right")),
    *((name, f"shared.{name}") for name in ("phm_rule", "phm_rule_left", "phm_rule_right")),
)

NORM_BEFORE = bottleneck.NORM_AND_DOWN[:4]


def claims(fields: Fields) -> bool:
    """Return whether a configuration has bottlenecks with PHM layers."""
    return bottleneck.has_bottlenecks(fields) and bool(fields.get("phm_layer"))


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the bottlenecks that a configuration describes."""
    found = {name: value for name, value in bottleneck.plain_fields(fields, source).items() if name in FIELDS}
    flags = {name: False for name in FLAGS if name in found and found[name] is None}
    config = config_from_json(CompacterConfig, {"method": CompacterConfig.method, **found, **flags})
    _check(config)
    return config


def encode(config: CompacterConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the library cannot make such PHM layers.
    """
    _check(config)
    return {**bottleneck.encode(config, source), "phm_layer": True}


def _check(config: CompacterConfig) -> None:
    if config.shared_W_phm and not config.factorized_phm_W:
        raise UnsupportedError(
            "shared_W_phm without factorized_phm_W has no form in the adapters format, whose library fails to make it",
            hint="write it in the native format",
        )


def entries(config: CompacterConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every site, and of what they share."""
    down = "adapter_down.1" if config.ln_before else "adapter_down.0"
    leaves = [
        *((f"{theirs}.{foreign}", f"{ours}.{leaf}") for theirs, ours in _projections(down) for foreign, leaf in LEAVES),
        *bottleneck.AROUND,
        *(NORM_BEFORE if config.ln_before else ()),
    ]
    for theirs, ours in bottleneck.sites(config, row, container):
        yield from (
            Entry(f"{theirs}.{foreign}", f"{ours}.{leaf}", left_out=config.leave_out) for foreign, leaf in leaves
        )
    for place, is_copy in at_base(row):
        theirs = f"{place}shared_parameters.{{name}}"
        yield from (Entry(f"{theirs}.{foreign}", ours, optional=is_copy) for foreign, ours in SHARED)


def _projections(down: str) -> tuple[tuple[str, str], ...]:
    return (down, "phm_down"), ("adapter_up", "phm_up")


def read(config: CompacterConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the tensors as they are.

    Raises:
        FormatError: what the sites share is not among them.
    """
    if (config.shared_phm_rule or config.shared_W_phm) and not _has_shared(tensors):
        raise FormatError(
            "the weights lack the shared_parameters of this Compacter, without which nothing can be computed;"
            " `adapters` leaves them out when it saves from a model without a head",
            hint="save the adapter again from a model with a head, as the classes …AdapterModel and …For… have one",
        )
    return tensors


def _has_shared(tensors: Mapping[str, object]) -> bool:
    return any(ours in tensors for _, ours in SHARED)


CODEC = Codec(config=CompacterConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read)
