"""VeRA and DVoRA in files of `adapters`: a LoRA with vera_d and vera_b, whose A and B stand once for all maps.

They stand beside the layers, and a model without a head does not save them: such a file cannot be used.

Source: adapters 1.3.0, configuration/adapter_config.py (VeraConfig, DvoRAConfig) and methods/lora.py (Vera).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError, UsageError
from ...methods import VeraConfig
from ...methods.config import config_from_json
from . import linears
from .codec import Codec, Container, Entry, Fields, Places, Source, at_base

if TYPE_CHECKING:
    import torch

SHARED_FIELDS = ("leave_out", "r", "dropout", "init_weights_seed")
SHARED = (("lora_A", "shared.vera_A"), ("lora_B", "shared.vera_B"))
LEAVES = (
    ("vera_D", "vera_d"),
    ("vera_B", "vera_b"),
    ("gate.weight", "vera_gate.weight"),
    ("gate.bias", "vera_gate.bias"),
    ("m.weight", "vera_magnitude"),
)


def claims(fields: Fields) -> bool:
    """Return whether a configuration adds low-rank updates from shared random matrices."""
    return (
        fields.get("architecture") == "lora" and fields.get("composition_mode") != "scale" and linears.has_vera(fields)
    )


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the updates that a configuration describes.

    Raises:
        UsageError: a value is wrong.
    """
    found = linears.values(fields)
    if found["composition_mode"] != "add":
        raise UsageError(f"composition_mode is {found['composition_mode']!r}, expected 'add' or 'scale'")
    if found["vera_d"] is None or found["vera_b"] is None:
        raise UsageError("vera_d and vera_b go together: one of them is null")
    alphas = linears.factors(found, source, found["r"])
    return config_from_json(
        VeraConfig,
        {
            "method": VeraConfig.method,
            **{name: found[name] for name in SHARED_FIELDS},
            "alpha": alphas["alpha"],
            "targets": linears.targets(found, source.row),
            "form": "matrices",
            "gating": found["use_gating"],
            "magnitude": "dora_adapters" if found["use_dora"] else "none",
            "d_initial": found["vera_d"],
            "b_initial": found["vera_b"],
        },
    )


def encode(config: VeraConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    alpha = linears.alpha_of(
        config.r if config.alpha is None else config.alpha,
        {},
        (),
        source,
        unscaled=config.r,
        gating=config.gating,
    )
    reasons = linears.beyond(config.targets)
    if config.form == "vectors":
        reasons.append("its VeRA has matrices (form=matrices)")
    if config.projection_seed is not None:
        reasons.append("its random matrices are written, not what they are drawn with")
    if config.alpha is None:
        reasons.append("its scale is alpha / r, with a number for alpha")
    if alpha is None:
        reasons.append("there is no alpha with a gate")
    if config.magnitude == "dora":
        reasons.append("its DoRA divides by another norm and scales the bias")
    if reasons or alpha is None:
        hint = "it may be a LoRA, if the base model is named" if config.form == "vectors" else ""
        raise UnsupportedError(f"the adapters format cannot say this VeRA: {'; '.join(reasons)}", hint=hint)
    data = config.to_json()
    return {
        **linears.DEFAULTS,
        "architecture": "lora",
        **linears.where(config.targets, source.row),
        **{name: data[name] for name in SHARED_FIELDS},
        "alpha": linears.whole_number(alpha),
        "init_weights": "vera",
        "use_gating": config.gating,
        "use_dora": config.magnitude == "dora_adapters",
        # Only numbers with a point switch it on.
        "vera_d": float(config.d_initial),
        "vera_b": float(config.b_initial),
    }


def entries(config: VeraConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map, and of the two that stand once."""
    for place, is_copy in at_base(row):
        theirs = f"{place}shared_parameters.{{name}}"
        yield from (Entry(f"{theirs}.{foreign}", ours, optional=is_copy) for foreign, ours in SHARED)
    yield from linears.entries(config.targets, row, LEAVES, config.leave_out)


def read(config: VeraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as vectors; the file has columns.

    Raises:
        FormatError: the shared matrices are missing.
    """
    missing = [f"shared_parameters.….{theirs}" for theirs, ours in SHARED if ours not in tensors]
    if missing:
        raise FormatError(
            f"the weights lack {' and '.join(missing)}, the random matrices that this VeRA was trained with",
            hint="save the adapter again from a model with a head: a model without one leaves them out",
        )
    return linears.squeezed(tensors, "vera_magnitude")


def write(config: VeraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as columns."""
    return linears.unsqueezed(tensors, "vera_magnitude")


CODEC = Codec(config=VeraConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
