"""LoRA in files of PEFT: `peft_type` LORA with rsLoRA and DoRA, at linear maps, convolutions and embeddings.

Of a map that computes query, key and value side by side PEFT knows only the whole. An update of its parts is written
as one of the whole map with as many ranks as all parts have together: A as it is, B with a block for each part.

Source: PEFT 0.21.2, tuners/lora (config.py, model.py, layer.py, dora.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...methods import LoraConfig
from ...methods.config import config_from_json
from ...methods.targets import chosen
from ...sites import Layout
from .codec import Codec, Fields, Places

if TYPE_CHECKING:
    import torch

PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights after which the base model is what it was."""

CHANGED = {
    "alora_invocation_tokens": "it acts only behind certain tokens (aLoRA)",
    "arrow_config": "it routes between several adapters (Arrow)",
    "kasa_config": "it truncates the base model's weights (KaSA)",
    "layer_replication": "it repeats layers of the base model",
    "megatron_config": "its layers are those of Megatron",
    "monteclora_config": "it draws its weights at random (MonteCLoRA)",
    "use_bdlora": "its matrices are block-diagonal (BD-LoRA)",
    "use_qalora": "its matrices act on groups of inputs (QA-LoRA)",
    "velora_config": "its training keeps compressed activations (VeLoRA)",
}
"""Field that must be off → what the adapter does otherwise."""

MERGE = "merge it in PEFT (merge_and_unload), or train it again without"


def refused(fields: Fields) -> list[str]:
    """Return why this adapter is not read."""
    found = [f"{name} is set: {why}" for name, why in CHANGED.items() if fields.get(name) not in (None, False, [], {})]
    start = fields.get("init_lora_weights")
    if not isinstance(start, (bool, str)) or start not in PLAIN_STARTS:
        found.append(
            f"init_lora_weights is {start!r}: PEFT changes the base model's weights when it loads this adapter; save "
            "it with path_initial_model_for_weight_conversion"
        )
    parameters = fields.get("target_parameters")
    if parameters and not (isinstance(parameters, list) and all(str(item).endswith(".weight") for item in parameters)):
        found.append(f"target_parameters is {parameters!r}: only weights of linear maps are adapted")
    return found


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the updates that a configuration and its places describe."""
    r, alpha = fields["r"], fields["lora_alpha"]
    return config_from_json(
        LoraConfig,
        {
            "method": LoraConfig.method,
            "targets": list(places.targets),
            "r": r,
            "alpha": alpha,
            "rank_stabilised": fields["use_rslora"],
            "ranks": places.resolved(fields["rank_pattern"], "rank_pattern", r),
            "alphas": places.resolved(fields["alpha_pattern"], "alpha_pattern", alpha),
            "dropout": fields["lora_dropout"],
            "magnitude": "dora" if fields["use_dora"] else "none",
            "update_bias": fields["lora_bias"],
        },
    )


def beyond(config: LoraConfig, layout: Layout) -> list[str]:
    """Return why PEFT cannot say this LoRA."""
    reasons = ["its updates have gates, which depend on the input"] if config.gating else []
    if config.magnitude == "dora_adapters":
        reasons.append(
            "its DoRA divides by another norm and scales the bias; with the base model's weights it converts"
        )
    return reasons


def encode(config: LoraConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of a LoRA."""
    ranks, alphas = {}, {}
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        parts = max(1, len(target.parts))
        ranks[target.path] = config.rank(target.linear) * parts
        alphas[target.path] = _number(
            config.alpha_at(target.linear) * (math.sqrt(parts) if config.rank_stabilised else parts)
        )
    r, rank_pattern = places.pattern(ranks)
    alpha, alpha_pattern = places.pattern(alphas)
    return {
        "r": r,
        "rank_pattern": rank_pattern,
        "lora_alpha": alpha,
        "alpha_pattern": alpha_pattern,
        "use_rslora": config.rank_stabilised,
        "lora_dropout": config.dropout,
        "use_dora": config.magnitude == "dora",
        "lora_bias": config.update_bias,
    }


def read(config: LoraConfig, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return magnitudes as vectors; of a convolution the file has them as (1, outputs, 1, …)."""

    def is_of_convolution(key: str) -> bool:
        path, _, leaf = key.rpartition(".")
        a, shape = tensors.get(f"{path}.lora_A"), tensors[key].shape
        if leaf != "lora_magnitude" or a is None or a.ndim < 3 or len(shape) != a.ndim:
            return False
        return all(size == 1 for i, size in enumerate(shape) if i != 1)

    return {key: t.reshape(-1) if is_of_convolution(key) else t for key, t in tensors.items()}


def write(config: LoraConfig, tensors: dict[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """Return magnitudes as the file has them, and updates of parts as those of whole maps."""
    found = dict(tensors)
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        key = f"{target.path}.lora_magnitude"
        if key in found and target.linear.kernel:
            found[key] = found[key].reshape(1, -1, *(1,) * len(target.linear.kernel))
        if target.parts:
            key = f"{target.path}.lora_B"
            found[key] = _whole(found[key], target.parts, target.part_size, len(target.linear.roles))
    return found


def narrowed(config: LoraConfig, tensors: dict[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """Return tensors of whole maps as those of the parts that the configuration names."""
    found = dict(tensors)
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        key = f"{target.path}.lora_B"
        if target.parts and key in found:
            import torch

            blocks = found[key].split(target.part_size)
            r = found[key].shape[1] // len(target.parts)
            cut = [blocks[place][:, i * r : (i + 1) * r] for i, place in enumerate(target.parts)]
            found[key] = torch.cat(cut)
    return found


def _whole(b: torch.Tensor, parts: tuple[int, ...], size: int, count: int) -> torch.Tensor:
    """Return B (count · size, parts · r) with the outputs of each part in its rows and its ranks' columns."""
    whole = b.new_zeros((count * size, len(parts) * b.shape[1]))
    for i, (place, block) in enumerate(zip(parts, b.chunk(len(parts)), strict=True)):
        whole[place * size : (place + 1) * size, i * b.shape[1] : (i + 1) * b.shape[1]] = block
    return whole


def _number(value: float) -> JSON:
    return int(value) if value == int(value) else value


LEAVES: Mapping[str, str] = {
    "lora_A.weight": "lora_A",
    "lora_B.weight": "lora_B",
    "lora_B.bias": "lora_bias",
    "lora_embedding_A": "lora_embedding_A",
    "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude_vector": "lora_magnitude",
}

CODEC = Codec(
    type="LORA",
    config=LoraConfig,
    leaves=LEAVES,
    aliases={"lora_magnitude_vector.weight": "lora_magnitude_vector"},
    meant=(
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "use_dora", "lora_bias"),
        *CHANGED,
        *("init_lora_weights", "target_parameters"),
    ),
    idle=(
        *("corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out", "loftq_config", "lora_ga_config"),
        *("megatron_core", "qalora_group_size"),
    ),
    refused=refused,
    beyond=beyond,
    decode=decode,
    encode=encode,
    read=read,
    write=write,
    narrowed=narrowed,
)
