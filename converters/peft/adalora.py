"""AdaLoRA in files of PEFT: every map begins with `init_r` ranks, of which `rank_pattern` tells those that are left.

The scale stays that of `init_r`. A `rank_pattern` has a list of truth values under `<module>.lora_E` for each module;
the tensors hold the ranks that are left.

Source: PEFT 0.21.2, tuners/adalora (config.py, model.py, layer.py).
"""

from __future__ import annotations

from ...adapter import JSON, MethodConfig
from ...methods import AdaloraConfig
from ...methods.config import config_from_json
from ...sites import Layout
from . import lora
from .codec import Codec, Fields, Places

TRAINING = ("r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step")


def refused(fields: Fields) -> list[str]:
    """Return why this adapter is not read."""
    found = [
        f"{name} is set: {why}" for name, why in lora.CHANGED.items() if fields.get(name) not in (None, False, [], {})
    ]
    odd = [name for name in ("use_dora", "use_rslora", "lora_bias", "target_parameters") if fields.get(name)]
    return found + [f"{name} is set, which AdaLoRA does not have" for name in odd]


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the updates that a configuration and its places describe."""
    r = fields["init_r"]
    left = {path: places.shape(path, "lora_A")[0] for path in places.theirs if places.shape(path, "lora_A")}
    return config_from_json(
        AdaloraConfig,
        {
            "method": AdaloraConfig.method,
            "targets": list(places.targets),
            "r": r,
            "alpha": fields["lora_alpha"],
            "ranks": {path: rank for path, rank in left.items() if rank != r},
            "dropout": fields["lora_dropout"],
        },
    )


def encode(config: AdaloraConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of an AdaLoRA."""
    r, pattern = config.r, {}
    for ours, theirs in places.theirs.items():
        left = places.shape(ours, "lora_A")[0]
        if left != r:
            pattern[f"{theirs}.lora_E"] = [place < left for place in range(r)]
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    return {
        "init_r": r,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "rank_pattern": pattern or None,
        "total_step": 1,
    }


CODEC = Codec(
    type="ADALORA",
    config=AdaloraConfig,
    leaves={"lora_A": "lora_A", "lora_B": "lora_B", "lora_E": "lora_E"},
    meant=(
        "init_r",
        "lora_alpha",
        "lora_dropout",
        "rank_pattern",
        *lora.CHANGED,
        *("use_dora", "use_rslora", "lora_bias"),
        "target_parameters",
    ),
    idle=(*TRAINING, "init_lora_weights", "alpha_pattern", *lora.CODEC.idle),
    refused=refused,
    decode=decode,
    encode=encode,
)
