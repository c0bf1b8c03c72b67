"""AdapterFusion layers in files of `adapters`: adapter_fusion_config.json and its weights.

Source: adapters 1.3.0, configuration/adapter_fusion_config.py, loading.py and methods/modeling.py (BertFusion).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures import Architecture
from ...errors import FormatError, UsageError
from ...methods import FusionConfig
from ...methods.config import config_from_json
from ...sites import Role
from .codec import Codec, Container, Entry, Fields, Source
from .keys import Table, naming

if TYPE_CHECKING:
    import torch

    from .keys import Naming

ROLES: tuple[Role, ...] = ("attention", "feed_forward", "cross_attention")
FLAGS = (
    "query",
    "key",
    "value",
    "query_before_ln",
    "residual_before",
    "temperature",
    "value_before_softmax",
    "value_initialized",
    "regularization",
)
LEAVES = (
    ("query.weight", "fusion_query.weight"),
    ("query.bias", "fusion_query.bias"),
    ("key.weight", "fusion_key.weight"),
    ("key.bias", "fusion_key.bias"),
    ("value.weight", "fusion_value.weight"),
    ("dense.weight", "fusion_dense.weight"),
    ("dense.bias", "fusion_dense.bias"),
)


def decode(document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture) -> FusionConfig:
    """Return the fusion layer that a document and the keys beside it describe; the keys say where it stands.

    Raises:
        FormatError: a field has a wrong value, or no key is one of a fusion layer of this name.
    """
    fields = document.get("config")
    if not isinstance(fields, dict):
        raise FormatError("adapter_fusion_config.json: config is no object", hint=_AGAIN)
    config = meaning(fields)
    names = document.get("adapter_names")
    if names is None:
        names = str(document["name"]).split(",")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise FormatError("adapter_fusion_config.json: adapter_names is no list of names", hint=_AGAIN)
    config = dataclasses.replace(config, adapters=tuple(names), sites=ROLES)
    found = naming(list(tensors), [(config, CODEC)], row, document["name"])
    return dataclasses.replace(config, sites=_roles(config, tensors, row, found))


def _roles(config: FusionConfig, keys: Mapping[str, object], row: Architecture, names: Naming) -> tuple[Role, ...]:
    """Return the kinds of sublayers for which there are keys."""
    tables = {role: Table([(dataclasses.replace(config, sites=(role,)), CODEC)], row, names, keys) for role in ROLES}
    return tuple(role for role, table in tables.items() if any(table.ours(key) for key in keys))


def meaning(fields: Fields) -> FusionConfig:
    """Return the configuration that the fields of a document describe, at whatever sites.

    Raises:
        FormatError: a field has a wrong value.
    """
    given = {name: value for name, value in fields.items() if name in (*FLAGS, "dropout_prob")}
    # "static" and older files write null for what is off.
    flags = {name: bool(given.get(name)) if given.get(name) is None else given[name] for name in FLAGS if name in given}
    try:
        return config_from_json(FusionConfig, {"method": FusionConfig.method, **given, **flags})
    except UsageError as error:
        raise FormatError(f"adapter_fusion_config.json: {error.message}", hint=_AGAIN) from None


def meaning_or_nothing(fields: Fields) -> dict[str, JSON]:
    """Return what the fields of a document say, {} if it is nothing right."""
    try:
        return meaning(fields).to_json()
    except FormatError:
        return {}


def encode(config: FusionConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a document in the current spelling."""
    data = config.to_json()
    return {name: data[name] for name in (*FLAGS, "dropout_prob")}


def entries(config: FusionConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every site."""
    for stack in row.layers:
        for part in stack.sublayers:
            if part.role in config.sites:
                theirs = f"{row.past(stack.path)}.{part.adapters}.adapter_fusion_layer.{{name}}"
                ours = f"{stack.path}.{part.path}"
                yield from (
                    Entry(f"{theirs}.{foreign}", f"{ours}.{leaf}", left_out=config.leave_out)
                    for foreign, leaf in LEAVES
                )


_AGAIN = "correct adapter_fusion_config.json, or save the fusion layer again with the library that made it"


def _no(fields: Fields) -> bool:
    """No adapter_config.json describes a fusion layer; it has a document of its own."""
    return False


def _never(fields: Fields, source: Source) -> FusionConfig:
    return meaning(fields)


CODEC = Codec(config=FusionConfig, claims=_no, decode=_never, encode=encode, entries=entries)
