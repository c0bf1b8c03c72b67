"""The rows of simple types; see simple.py."""

from __future__ import annotations

from typing import Any

from ...methods import (
    BoftConfig,
    C3aConfig,
    DeloraConfig,
    FourierftConfig,
    HiraConfig,
    HraConfig,
    LohaConfig,
    LokrConfig,
    MissConfig,
    RoadConfig,
    ShiraConfig,
)
from .codec import Codec, Fields
from .simple import Own, Row, codec

RANKS = Own(ours=("r", "ranks"), theirs="r", pattern="rank_pattern")
ALPHAS = Own(ours=("alpha", "alphas"), theirs="alpha", pattern="alpha_pattern")


def _variants(fields: Fields) -> list[str]:
    start = fields.get("init_weights")
    known = isinstance(start, bool) or start in ("bat", "mini")
    return [] if known else [f"init_weights is {start!r}, an unknown variant of MiSS"]


def _to_variant(value: Any) -> str:
    return value if value in ("bat", "mini") else "plain"


def _from_variant(value: str) -> Any:
    return True if value == "plain" else value


ROWS: tuple[Row, ...] = (
    Row(
        type="LOHA",
        config=LohaConfig,
        leaves=("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        fields={"use_effective_conv2d": "effective"},
        own=(RANKS, ALPHAS),
        idle=("init_weights", "rank_dropout", "module_dropout"),
    ),
    Row(
        type="LOKR",
        config=LokrConfig,
        leaves=("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        fields={"use_effective_conv2d": "effective", "decompose_both": "both", "decompose_factor": "factor"},
        own=(RANKS, ALPHAS),
        idle=("init_weights", "rank_dropout", "module_dropout", "rank_dropout_scale"),
    ),
    Row(
        type="HIRA",
        config=HiraConfig,
        leaves=("hira_A", "hira_B", "hira_embedding_A", "hira_embedding_B"),
        fields={"hira_dropout": "dropout"},
        # PEFT does not look at rank_pattern when it makes the first adapter of a model.
        own=(Own(ours=("r", "ranks"), theirs="r", leaf=("hira_A", 0)),),
        idle=("init_weights", "fan_in_fan_out", "rank_pattern"),
    ),
    Row(
        type="MISS",
        config=MissConfig,
        leaves=("miss_block",),
        fields={"r": "r", "mini_r": "width", "init_weights": "variant", "miss_dropout": "dropout"},
        turns={"init_weights": (_to_variant, _from_variant)},
        refused=_variants,
    ),
    Row(
        type="DELORA",
        config=DeloraConfig,
        leaves=("delora_A", "delora_B", "delora_lambda", "delora_w_norm"),
        fields={"delora_lambda": "strength"},
        own=(RANKS,),
        idle=("init_weights", "module_dropout", "lambda_pattern"),
    ),
    Row(
        type="SHIRA",
        config=ShiraConfig,
        leaves=("shira_weight", "shira_indices"),
        fields={"r": "r"},
        idle=("init_weights", "mask_type", "random_seed", "fan_in_fan_out"),
    ),
    Row(
        type="C3A",
        config=C3aConfig,
        leaves=("c3a_kernel",),
        own=(
            Own(
                ours=("block_size", "block_sizes"),
                theirs="block_size",
                pattern="block_size_pattern",
                leaf=("c3a_kernel", 2),
                dotted=True,
            ),
        ),
        idle=("init_weights",),
    ),
    Row(
        type="FOURIERFT",
        config=FourierftConfig,
        leaves=("fourierft_spectrum",),
        fields={"scaling": "scale", "random_loc_seed": "seed"},
        own=(
            Own(
                ours=("frequencies", "own_frequencies"),
                theirs="n_frequency",
                pattern="n_frequency_pattern",
                leaf=("fourierft_spectrum", 0),
                dotted=True,
            ),
        ),
        idle=("init_weights", "fan_in_fan_out"),
    ),
    Row(
        type="BOFT",
        config=BoftConfig,
        leaves=("boft_R", "boft_s"),
        fields={
            "boft_block_size": "block_size",
            "boft_block_num": "blocks",
        },
        # Without its CUDA extension PEFT makes one factor, whatever the field says.
        counted={"factors": ("boft_n_butterfly_factor", "boft_R", 0)},
        idle=("init_weights", "boft_dropout", "fan_in_fan_out"),
    ),
    Row(
        type="HRA",
        config=HraConfig,
        leaves=("hra_u",),
        fields={"r": "r", "apply_GS": "orthogonal"},
        idle=("init_weights",),
    ),
    Row(
        type="ROAD",
        config=RoadConfig,
        leaves=("road_theta", "road_alpha"),
        fields={"variant": "variant", "group_size": "group_size"},
        turns={
            "variant": (
                {"road_1": 1, "road_2": 2, "road_4": 4}.get,
                {1: "road_1", 2: "road_2", 4: "road_4"}.__getitem__,
            )
        },
        idle=("init_weights",),
    ),
)

CODECS: tuple[Codec, ...] = tuple(codec(row) for row in ROWS)
