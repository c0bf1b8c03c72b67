"""(IA)³ in files of `adapters`: a LoRA whose composition_mode is `scale`, with nothing but a B of one column.

It scales what maps put out, their bias included. Where one module computes query, key and value, alpha multiplies all
of its output, the parts without a vector too.

Source: adapters 1.3.0, configuration/adapter_config.py (IA3Config) and methods/lora.py (IA3, LoRAMergedLinear).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import UnsupportedError, UsageError
from ...methods import IA3Config
from ...methods.config import config_from_json
from . import linears
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

LEAVES = (
    ("lora_B", "ia3_outputs"),
    ("gate.weight", "ia3_gate.weight"),
    ("gate.bias", "ia3_gate.bias"),
)


def claims(fields: Fields) -> bool:
    """Return whether a configuration scales."""
    return fields.get("architecture") == "lora" and fields.get("composition_mode") == "scale"


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the vectors that a configuration describes.

    Raises:
        UsageError: it asks for what scaling does not have.
    """
    found = linears.values(fields)
    odd = [name for name, plain in (("r", 1), ("dropout", 0), ("use_dora", False)) if found[name] != plain]
    if odd:
        raise UsageError(f"composition_mode 'scale' does not go with {', '.join(f'{k}={found[k]!r}' for k in odd)}")
    alphas = linears.factors(found, source, 1.0)
    return config_from_json(
        IA3Config,
        {
            "method": IA3Config.method,
            **alphas,
            **{name: found[name] for name in ("leave_out", "init_weights_seed")},
            "targets": linears.targets(found, source.row),
            "inputs": [],
            "rest": _rest(found, source),
            "gating": found["use_gating"],
        },
    )


def _rest(found: Fields, source: Source) -> JSON:
    """Return the factor of the parts of a merged map that have no vector."""
    whole = set(linears.merged(source.row))
    parts = whole & set(linears.targets(found, source.row))
    return 1.0 if found["use_gating"] or not parts or parts == whole else found["alpha"]


def encode(config: IA3Config, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    alpha = linears.alpha_of(config.alpha, config.alphas, config.targets, source, unscaled=1.0, gating=config.gating)
    reasons = linears.beyond(config.targets)
    if config.inputs:
        reasons.append("it scales outputs, not what maps read")
    if alpha is None:
        reasons.append("its alpha is one for all maps, and none with a gate")
    fields: dict[str, JSON] = {
        **linears.DEFAULTS,
        "architecture": "lora",
        **linears.where(config.targets, source.row),
        **{name: config.to_json()[name] for name in ("leave_out", "init_weights_seed")},
        "r": 1,
        "alpha": 1 if alpha is None else linears.whole_number(alpha),
        "composition_mode": "scale",
        "init_weights": "ia3",
        "use_gating": config.gating,
    }
    if alpha is not None and _rest(fields, source) != config.rest:
        reasons.append("alpha multiplies the parts of a map without a vector too, and nothing else does")
    if reasons:
        raise UnsupportedError(
            f"the adapters format cannot say this (IA)³: {'; '.join(reasons)}",
            hint=linears.hint(
                config.targets,
                "it can say ia3 with targets of query, key, value, intermediate and output, and inputs=[]",
            ),
        )
    return fields


def entries(config: IA3Config, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map."""
    return linears.entries(config.targets, row, LEAVES, config.leave_out)


def read(config: IA3Config, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return vectors; the file has columns."""
    return linears.squeezed(tensors, "ia3_outputs")


def write(config: IA3Config, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return columns."""
    return linears.unsqueezed(tensors, "ia3_outputs")


CODEC = Codec(config=IA3Config, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
