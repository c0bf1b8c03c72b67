"""The rows of simple types; see simple.py."""

from __future__ import annotations

from typing import Any

from ...errors import UsageError
from ...methods import (
    BeftConfig,
    BoftConfig,
    C3aConfig,
    DeftConfig,
    DeloraConfig,
    FourierftConfig,
    GloraConfig,
    GraloraConfig,
    HiraConfig,
    HraConfig,
    LohaConfig,
    LokrConfig,
    MissConfig,
    PeanutConfig,
    RoadConfig,
    ShiraConfig,
    SupertuningConfig,
    VbloraConfig,
    WaveftConfig,
)
from ...methods.peanut import MOST_DEPTH
from .codec import Codec, Fields
from .simple import Own, Row, Turn, codec

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


def _turn(**words: Any) -> Turn:
    """Return how PEFT's words, the keys, are turned into ours and back; the others are left to the configuration.

    What is a word of ours alone is refused with a UsageError.
    """
    back = {ours: theirs for theirs, ours in words.items()}

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return words[value]
        if isinstance(value, (str, int)) and value in back:
            raise UsageError(f"{value!r} is none of PEFT's values, such as {back[value]!r}")
        return value

    return read, lambda value: back.get(value, value)


def _wavelets(fields: Fields) -> list[str]:
    family = fields.get("wavelet_family")
    haar = family == "db1" or not fields.get("use_idwt")
    return [] if haar else [f"wavelet_family is {family!r}, and only db1 (Haar's) is computed; {CONVERT}"]


def _places(fields: Fields) -> list[str]:
    saved = fields.get("save_precomputed_indices")
    return [] if saved else ["save_precomputed_indices is off: the file does not say which entries were trained"]


CONVERT = "make a LoRA of it with peft.convert_to_lora and save that"

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
            "variant": _turn(road_1=1, road_2=2, road_4=4),
        },
        idle=("init_weights",),
    ),
    Row(
        type="GRALORA",
        config=GraloraConfig,
        leaves=("gralora_A", "gralora_B", "gralora_A_general.weight", "gralora_B_general.weight"),
        fields={
            "r": "r",
            "alpha": "alpha",
            "gralora_k": "blocks",
            "hybrid_r": "hybrid_r",
            "gralora_dropout": "dropout",
        },
        idle=("init_weights", "fan_in_fan_out"),
    ),
    Row(
        type="GLORA",
        config=GloraConfig,
        leaves=tuple(f"glora_{letter}.{leaf}" for letter in "ABCDE" for leaf in ("Xd", "Xu", "X", "zeros")),
        fields={"r": "r", "config_A_B": "weight", "config_C": "inputs", "config_D_E": "outputs"},
        turns={
            "config_A_B": _turn(lora="product", constant="number"),
            "config_C": _turn(lora="product"),
            "config_D_E": _turn(constant="number"),
        },
        idle=("init_weights",),
    ),
    Row(
        type="VBLORA",
        config=VbloraConfig,
        leaves=tuple(f"vblora_logits_{side}{end}" for side in "AB" for end in ("", "_topk_indices", "_topk_weights")),
        shared=("vblora_vector_bank",),
        fields={
            "r": "r",
            "num_vectors": "vectors",
            "vector_length": "length",
            "topk": "topk",
            "save_only_topk_weights": "only_top",
            "vblora_dropout": "dropout",
        },
        idle=("init_logits_std", "init_vector_bank_bound", "fan_in_fan_out"),
    ),
    Row(
        type="WAVEFT",
        config=WaveftConfig,
        leaves=("waveft_spectrum",),
        fields={"scaling": "scale", "random_loc_seed": "seed", "use_idwt": "haar"},
        own=(
            Own(
                ours=("frequencies", "own_frequencies"),
                theirs="n_frequency",
                pattern="n_frequency_pattern",
                leaf=("waveft_spectrum", 0),
            ),
        ),
        idle=("init_weights", "fan_in_fan_out", "wavelet_family", "proportional_parameters"),
        refused=_wavelets,
    ),
    Row(type="BEFT", config=BeftConfig, leaves=("beft_bias",), idle=("init_weights",)),
    Row(
        type="DEFT",
        config=DeftConfig,
        leaves=("deft_P", "deft_R"),
        fields={"r": "r", "alpha": "alpha", "decomposition_method": "projection", "para": "removes_only"},
        idle=("init_weights", "init_scale", "deft_dropout", "fan_in_fan_out"),
    ),
    Row(
        type="PEANUT",
        config=PeanutConfig,
        leaves=(
            "peanut_A.weight",
            "peanut_B.weight",
            *(f"peanut_{part}.{i}.weight" for part in ("encoders", "decoders") for i in range(MOST_DEPTH)),
        ),
        fields={"r": "r", "depth": "depth", "scaling": "scale", "act_fn": "activation"},
        idle=("init_weights",),
    ),
    Row(
        type="SUPERTUNING",
        config=SupertuningConfig,
        leaves=(
            "supertuning_values",
            "supertuning_indices",
            "supertuning_lora_A.weight",
            "supertuning_lora_B.weight",
        ),
        fields={
            "sparsity": "sparsity",
            "select_top": "largest",
            "r": "r",
            "lora_alpha": "alpha",
            "lora_dropout": "dropout",
        },
        idle=("init_weights", "save_precomputed_indices"),
        refused=_places,
    ),
)

CODECS: tuple[Codec, ...] = tuple(codec(row) for row in ROWS)
