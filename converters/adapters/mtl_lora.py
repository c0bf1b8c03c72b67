"""MTL-LoRA in files of `adapters`.

Source: adapters 1.3.0, configuration/adapter_config.py (MTLLoRAConfig) and methods/lora.py (MTLLoRA). What the library
would multiply from the right, a row of r numbers times `task_specific.values`, our Λ multiplies from the left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import UnsupportedError, UsageError
from ...methods import MtlLoraConfig
from ...methods.config import config_from_json
from . import linears
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

SHARED_FIELDS = ("leave_out", "r", "dropout", "init_weights_seed")
OWN_FIELDS = (
    ("n_up_projection", "ups", 1),
    ("task_specific_matrix_type", "task_matrix", "singular_values"),
    ("weights_sharpness", "sharpness", 0.05),
)
"""Their name, ours, and the default."""
LEAVES = (
    ("lora_A", "mtl_A"),
    ("lora_B", "mtl_B"),
    ("weights", "mtl_weights"),
    ("task_specific.values", "mtl_task"),
    ("gate.weight", "mtl_gate.weight"),
    ("gate.bias", "mtl_gate.bias"),
)


def claims(fields: Fields) -> bool:
    """Return whether a configuration is of MTL-LoRA."""
    return fields.get("architecture") == "mtl_lora"


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the updates that a configuration describes.

    Raises:
        UsageError: a value is wrong, or one that the library cannot run either.
    """
    found = linears.values(fields)
    odd = [name for name, plain in (("composition_mode", "add"), ("use_dora", False)) if found[name] != plain]
    if odd:
        raise UsageError(f"mtl_lora does not go with {', '.join(f'{name}={found[name]!r}' for name in odd)}")
    return config_from_json(
        MtlLoraConfig,
        {
            "method": MtlLoraConfig.method,
            **{name: found[name] for name in SHARED_FIELDS},
            **{ours: found.get(theirs, default) for theirs, ours, default in OWN_FIELDS},
            "alpha": found["r"] if found["use_gating"] else found["alpha"],
            "targets": linears.targets(found, source.row),
            "gating": found["use_gating"],
            "init_weights": found["init_weights"] if found["init_weights"] in ("lora", "bert") else "lora",
        },
    )


def encode(config: MtlLoraConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    reasons = linears.beyond(config.targets)
    if config.gating and config.alpha != config.r:
        reasons.append("there is no alpha with a gate")
    if reasons:
        raise UnsupportedError(f"the adapters format cannot say this MTL-LoRA: {'; '.join(reasons)}")
    data = config.to_json()
    return {
        **linears.DEFAULTS,
        "architecture": "mtl_lora",
        **linears.where(config.targets, source.row),
        **{name: data[name] for name in SHARED_FIELDS},
        **{theirs: data[ours] for theirs, ours, _ in OWN_FIELDS},
        "alpha": linears.whole_number(config.alpha),
        "init_weights": config.init_weights,
        "use_gating": config.gating,
    }


def entries(config: MtlLoraConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map."""
    return linears.entries(config.targets, row, LEAVES, config.leave_out)


def read(config: MtlLoraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return the matrices of the tasks transposed."""
    return {key: _turned(key, tensor) for key, tensor in tensors.items()}


def _turned(key: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t().contiguous() if key.endswith(".mtl_task") and tensor.ndim == 2 else tensor


CODEC = Codec(config=MtlLoraConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=read)
