"""LoRA and DoRA in files of `adapters`.

What is scaled how differs: with a gate `adapters` leaves alpha / r out, and before 1.1.0 it did so everywhere but in
merged projections. Our configuration says the scale that acts, so alpha becomes r there.

Source: adapters 1.3.0, configuration/adapter_config.py (LoRAConfig), methods/lora.py and loading.py; 1.0.1 for
the scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import UnsupportedError, UsageError
from ...methods import LoraConfig
from ...methods.config import config_from_json
from ...sites import Projection
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

DEFAULTS: Mapping[str, JSON] = {
    "selfattn_lora": True,
    "intermediate_lora": False,
    "output_lora": False,
    "leave_out": [],
    "r": 8,
    "alpha": 8,
    "dropout": 0.0,
    "attn_matrices": ["q", "v"],
    "composition_mode": "add",
    "init_weights": "lora",
    "init_weights_seed": None,
    "use_gating": False,
    "use_dora": False,
    "vera_d": None,
    "vera_b": None,
    "dtype": None,
}
"""What a field means that a configuration leaves out."""

MATRICES: Mapping[str, Projection] = {"q": "query", "k": "key", "v": "value"}
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
        and fields.get("composition_mode", "add") == "add"
        and fields.get("vera_d") is None
    )


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the updates that a configuration describes."""
    values = {**DEFAULTS, **fields}
    init = values["init_weights"] if values["init_weights"] in ("lora", "bert") else "lora"
    return config_from_json(
        LoraConfig,
        {
            "method": LoraConfig.method,
            **{name: values[name] for name in SHARED_FIELDS},
            **_scale(values, source),
            "targets": targets(values, source.row),
            "gating": values["use_gating"],
            "magnitude": "dora_adapters" if values["use_dora"] else "none",
            "init_weights": init,
        },
    )


def _scale(values: Fields, source: Source) -> dict[str, JSON]:
    """Return alpha, and the alphas of projections where the scale is another one."""
    if values["use_gating"]:
        return {"alpha": values["r"]}
    if not _before_1_1(source.version):
        return {"alpha": values["alpha"]}
    parts = [role for role in targets(values, source.row) if role in _merged(source.row)]
    return {"alpha": values["r"], "alphas": dict.fromkeys(parts, values["alpha"])}


def _before_1_1(version: str | None) -> bool:
    """Return whether a file is of the library `adapters` before 1.1.0, which did not scale plain maps."""
    found = re.match(r"adapters\.([0-9]+)\.([0-9]+)", version or "")
    return found is not None and (int(found[1]), int(found[2])) < (1, 1)


def _merged(row: Architecture) -> set[str]:
    """Return the projections that one module computes side by side."""
    parts = [part for stack in row.layers for part in stack.attentions if part.query == part.key]
    return {"query", "key", "value"} if parts else set()


def targets(values: Fields, row: Architecture) -> list[str]:
    """Return the projections that a configuration adapts, in a fixed order.

    Raises:
        UsageError: attn_matrices names something else.
    """
    wide, narrow = ("output", "intermediate") if row.swapped else ("intermediate", "output")
    letters = values["attn_matrices"]
    if not isinstance(letters, list) or any(letter not in MATRICES for letter in letters):
        raise UsageError(f"attn_matrices is {letters!r}, expected letters of {', '.join(MATRICES)}")
    chosen = [MATRICES[letter] for letter in MATRICES if letter in letters] if values["selfattn_lora"] else []
    feed_forward = ((wide, values["intermediate_lora"]), (narrow, values["output_lora"]))
    return [*chosen, *(role for role, wanted in sorted(feed_forward) if wanted)]


def encode(config: LoraConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: with every reason.
    """
    reasons = _reasons(config, source.row)
    if reasons:
        raise UnsupportedError(f"the adapters format cannot say this LoRA: {'; '.join(reasons)}")
    data = config.to_json()
    return {
        **DEFAULTS,
        "architecture": "lora",
        **where(config.targets, source.row),
        **{name: data[name] for name in SHARED_FIELDS},
        "alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "init_weights": config.init_weights,
        "use_gating": config.gating,
        "use_dora": config.magnitude == "dora_adapters",
    }


def where(chosen: tuple[str, ...], row: Architecture) -> dict[str, JSON]:
    """Return the fields that say which projections are adapted."""
    wide, narrow = ("output", "intermediate") if row.swapped else ("intermediate", "output")
    letters = [letter for letter, role in MATRICES.items() if role in chosen]
    return {
        "selfattn_lora": bool(letters),
        "attn_matrices": letters or ["q", "v"],
        "intermediate_lora": wide in chosen,
        "output_lora": narrow in chosen,
    }


def beyond(chosen: tuple[str, ...]) -> list[str]:
    """Return the targets that the format has no word for."""
    return [target for target in chosen if target not in (*MATRICES.values(), "intermediate", "output")]


def _reasons(config: LoraConfig, row: Architecture) -> list[str]:
    reasons = [f"target {target!r} has no name in it" for target in beyond(config.targets)]
    if config.rank_stabilised:
        reasons.append("its scale is alpha / r, not alpha / √r")
    if config.ranks or config.alphas:
        reasons.append("it has one r and one alpha for all maps")
    if config.magnitude == "dora":
        reasons.append("its DoRA divides by another norm and scales the bias")
    if config.update_bias:
        reasons.append("its updates have no bias")
    if config.gating and config.alpha != config.r:
        reasons.append("its gated updates are not scaled")
    return reasons


def entries(config: LoraConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map."""
    for theirs, ours in linears(config.targets, row):
        yield from (
            Entry(f"{theirs}.{foreign}", f"{ours}.{leaf}", left_out=config.leave_out) for foreign, leaf in LEAVES
        )


def linears(chosen: tuple[str, ...], row: Architecture) -> Iterator[tuple[str, str]]:
    """Yield foreign and canonical path of every linear map that computes one of the chosen projections."""
    for stack in row.layers:
        for path, (roles, _) in stack.projections().items():
            if set(roles) & set(chosen):
                ours = f"{stack.path}.{path}"
                yield f"{row.past(ours)}.loras.{{name}}", ours


def read(config: LoraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as vectors; the file has columns."""
    return {key: t.squeeze(1) if _is_column(key, t) else t for key, t in tensors.items()}


def write(config: LoraConfig, tensors: dict[str, torch.Tensor], places: Places) -> dict[str, torch.Tensor]:
    """Return magnitudes as columns."""
    return {key: t.unsqueeze(1) if key.endswith(".lora_magnitude") else t for key, t in tensors.items()}


def _is_column(key: str, tensor: torch.Tensor) -> bool:
    return key.endswith(".lora_magnitude") and tensor.ndim == 2 and tensor.shape[1] == 1


CODEC = Codec(config=LoraConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
