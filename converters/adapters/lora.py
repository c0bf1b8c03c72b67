"""LoRA and DoRA in files of `adapters`; linears.py tells what is common to all that acts at linear maps.

Source: adapters 1.3.0, configuration/adapter_config.py (LoRAConfig, DoRAConfig) and methods/lora.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture, named
from ...errors import UnsupportedError, UsageError
from ...methods import LoraConfig
from ...methods.config import config_from_json
from . import linears
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

SHARED_FIELDS = ("leave_out", "r", "dropout", "init_weights_seed")
LEAVES = (
    ("lora_A", "lora_A"),
    ("lora_B", "lora_B"),
    ("gate.weight", "lora_gate.weight"),
    ("gate.bias", "lora_gate.bias"),
    ("m.weight", "lora_magnitude"),
)


def claims(fields: Fields) -> bool:
    """Return whether a configuration adds low-rank updates without shared random matrices."""
    return (
        fields.get("architecture") == "lora"
        and fields.get("composition_mode") != "scale"
        and not linears.has_vera(fields)
    )


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the updates that a configuration describes."""
    found = linears.values(fields)
    if found["composition_mode"] != "add":
        raise UsageError(f"composition_mode is {found['composition_mode']!r}, expected 'add' or 'scale'")
    return config_from_json(
        LoraConfig,
        {
            "method": LoraConfig.method,
            **{name: found[name] for name in SHARED_FIELDS},
            **linears.factors(found, source, found["r"]),
            "targets": linears.targets(found, source.row),
            "gating": found["use_gating"],
            "magnitude": "dora_adapters" if found["use_dora"] else "none",
            "init_weights": found["init_weights"] if found["init_weights"] in ("lora", "bert") else "lora",
        },
    )


def encode(config: LoraConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    alpha = linears.alpha_of(
        config.alpha, config.alphas, config.targets, source, unscaled=config.r, gating=config.gating
    )
    reasons = _reasons(config) + ([] if alpha is not None else ["its alpha is one for all maps, and none with a gate"])
    if reasons or alpha is None:
        raise UnsupportedError(
            f"the adapters format cannot say this LoRA: {'; '.join(reasons)}",
            hint=linears.hint(config.targets, "write it in the native format"),
        )
    data = config.to_json()
    return {
        **linears.DEFAULTS,
        "architecture": "lora",
        **linears.where(config.targets, source.row),
        **{name: data[name] for name in SHARED_FIELDS},
        "alpha": linears.whole_number(alpha),
        "init_weights": config.init_weights,
        "use_gating": config.gating,
        "use_dora": config.magnitude == "dora_adapters",
    }


def _reasons(config: LoraConfig) -> list[str]:
    reasons = linears.beyond(config.targets)
    if config.rank_stabilised:
        reasons.append("its scale is alpha / r, not alpha / √r")
    if config.ranks:
        reasons.append("it has one r for all maps")
    if config.magnitude == "dora":
        reasons.append("its DoRA divides by another norm and scales the bias")
    if config.update_bias:
        reasons.append("its updates have no bias")
    return reasons


def entries(config: LoraConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map."""
    return linears.entries(config.targets, row, LEAVES, config.leave_out)


def read(config: LoraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as vectors; the file has columns.

    Raises:
        UnsupportedError: the library has magnitudes of a map and does not use them.
    """
    joint = [key for key in tensors if key.endswith(".lora_magnitude") and _is_joint(key, places.row)]
    if joint:
        raise UnsupportedError(
            f"{joint[0]} is of a map that computes query, key and value side by side, where `adapters` saves the"
            " magnitudes of DoRA and computes without them",
            hint="save it again with use_dora=False, which is what the library computes, or selfattn_lora=False",
        )
    return linears.squeezed(tensors, "lora_magnitude")


def _is_joint(key: str, row: Architecture) -> bool:
    path = key.rpartition(".")[0]
    return any(
        len(roles) > 1 and named(f"{stack.path}.{name}", path)
        for stack in row.layers
        for name, (roles, _) in stack.projections().items()
    )


def write(config: LoraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as columns."""
    return linears.unsqueezed(tensors, "lora_magnitude")


CODEC = Codec(config=LoraConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
