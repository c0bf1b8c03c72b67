"""Bottlenecks in files of `adapters` and adapter-transformers of every era.

Source: adapters 1.3.0, configuration/adapter_config.py (BnConfig) and methods/bottleneck.py; loading.py for what older
files called it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import BottleneckConfig
from ...methods.config import config_from_json, field_types
from .codec import Codec, Container, Entry, Fields, Source

OLD_NAMES = (
    ("LN_after", "ln_after"),
    ("LN_before", "ln_before"),
    ("MH_Adapter", "mh_adapter"),
    ("Output_Adapter", "output_adapter"),
)
"""Field names before adapter-transformers 1.0, and since."""

ACTIVATIONS = (("gelu", "gelu_new"), ("gelu_orig", "gelu"))
"""Names in files without a version, and what they mean by now."""

WITH_WEIGHTS = ("prelu", "xielu")
"""Activations that have tensors of their own."""

FIELDS = tuple(field_types(BottleneckConfig))

UP = (
    ("adapter_up.weight", "bottleneck_up.weight"),
    ("adapter_up.bias", "bottleneck_up.bias"),
)
AROUND = (
    ("adapter_norm_after.weight", "bottleneck_norm_after.weight"),
    ("adapter_norm_after.bias", "bottleneck_norm_after.bias"),
    ("scaling", "bottleneck_scaling"),
    ("gate.weight", "bottleneck_gate.weight"),
    ("gate.bias", "bottleneck_gate.bias"),
)
DOWN = (("adapter_down.0.weight", "bottleneck_down.weight"), ("adapter_down.0.bias", "bottleneck_down.bias"))
NORM_AND_DOWN = (
    ("adapter_norm_before.weight", "bottleneck_norm_before.weight"),
    ("adapter_norm_before.bias", "bottleneck_norm_before.bias"),
    ("adapter_down.0.weight", "bottleneck_norm_before.weight"),
    ("adapter_down.0.bias", "bottleneck_norm_before.bias"),
    ("adapter_down.1.weight", "bottleneck_down.weight"),
    ("adapter_down.1.bias", "bottleneck_down.bias"),
)
"""With ln_before the norm stands in the file twice: by its own name, and as first module of the down projection."""


INVERSE = ("inv_adapter", "inv_adapter_reduction_factor", "invertible_adapter")
"""Fields that say something of an invertible adapter."""

PLACES = ("mh_adapter", "MH_Adapter", "output_adapter", "Output_Adapter", "cross_adapter")
"""Fields that say where bottlenecks stand."""


def claims(fields: Fields) -> bool:
    """Return whether a configuration has bottlenecks with plain projections, or nothing at all."""
    return has_bottlenecks(fields) and not fields.get("phm_layer")


def has_bottlenecks(fields: Fields) -> bool:
    """Return whether a configuration has bottlenecks of any kind; one may have an invertible adapter alone."""
    return fields.get("architecture") is None and (
        any(fields.get(name) for name in PLACES) or not any(fields.get(name) for name in INVERSE)
    )


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the bottlenecks that a configuration describes."""
    found = plain_fields(fields, source)
    plain = {name: value for name, value in found.items() if name in FIELDS}
    return config_from_json(BottleneckConfig, {"method": BottleneckConfig.method, **plain})


def plain_fields(fields: Fields, source: Source) -> dict[str, JSON]:
    """Return the fields under today's names and with today's names of activations."""
    found = dict(fields)
    for old, new in OLD_NAMES:
        if old in found:
            if new in found:
                raise FormatError(f"adapter_config.json: config has both {old} and {new}")
            found[new] = found.pop(old)
    activation = found.get("non_linearity")
    if isinstance(activation, str) and activation.lower() in WITH_WEIGHTS:
        raise UnsupportedError(f"the activation {activation} has weights, which this version does not run")
    if isinstance(activation, str):
        found["non_linearity"] = present(activation, source)
    return found


def present(activation: str, source: Source) -> str:
    """Return today's name of an activation."""
    return dict(ACTIVATIONS).get(activation, activation) if source.old_activations else activation


def past(activation: str, source: Source) -> str:
    """Return what an activation is called in a file; present(past(a, source), source) == a."""
    former = {new: old for old, new in ACTIVATIONS}
    return former.get(activation, activation) if source.old_activations else activation


def encode(config: BottleneckConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling."""
    fields: dict[str, JSON] = {name: value for name, value in config.to_json().items() if name != "method"}
    # `adapters` wants a number with a point here.
    fields["scaling"] = float(fields["scaling"]) if isinstance(fields["scaling"], int) else fields["scaling"]
    fields["non_linearity"] = past(fields["non_linearity"], source)
    return fields


def entries(config: BottleneckConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every site."""
    leaves = (*UP, *AROUND, *(NORM_AND_DOWN if config.ln_before else DOWN))
    for theirs, ours in sites(config, row, container):
        yield from (
            Entry(f"{theirs}.{foreign}", f"{ours}.{leaf}", left_out=config.leave_out) for foreign, leaf in leaves
        )


def sites(config: BottleneckConfig, row: Architecture, container: Container) -> Iterator[tuple[str, str]]:
    """Yield foreign and canonical path of every site that a configuration takes."""
    wanted = {
        "attention": config.mh_adapter,
        "feed_forward": config.output_adapter,
        "cross_attention": config.cross_adapter,
    }
    for stack in row.layers:
        for part in stack.sublayers:
            if wanted[part.role]:
                theirs = f"{row.past(stack.path)}.{part.adapters}.{container.at(part)}.{{name}}"
                yield theirs, f"{stack.path}.{part.path}"


CODEC = Codec(config=BottleneckConfig, claims=claims, decode=decode, encode=encode, entries=entries)
