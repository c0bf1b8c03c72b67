"""Make adapters of PEFT of every type with random options, as that library writes and computes them.

    python make_drawn_peft_cases.py FOLDER FIRST LAST    needs peft 0.21.2 and transformers 5.23

A case follows from its number alone; FOLDER becomes what is in peft-cases.tar.gz, with `refused.json`.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import warnings
from pathlib import Path
from typing import Any

from drawn_options import often
from peft_options import BASES, Arguments, Row

BERT = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "layer.1.output.dense")
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS: dict[str, tuple[str, ...]] = {
    "bert": BERT,
    "bert_cls": BERT,
    "bert_qa": BERT,
    "roberta_cls": BERT,
    "distilbert_cls": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "gpt2": ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
    "gpt2_cls": ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
    "llama": LLAMA,
    "llama_tied": LLAMA,
    "llama_cls": LLAMA,
    "t5": ("q", "k", "v", "o", "wi", "wo"),
    "vit": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    "vit_cls": ("q_proj", "v_proj", "fc1"),
}
PATTERNS = {"bert": "layer", "roberta": "layer", "distilbert": "layer", "gpt2": "h", "llama": "layers"}
TASKS = {"cls": "SEQ_CLS", "qa": "QUESTION_ANS"}
SQUARE = {"gpt2": ("attn.c_proj",), "gpt2_cls": ("attn.c_proj",), "llama": ("q_proj", "o_proj")}
"""Targets of one size, for types that share matrices."""


def layers(draw: random.Random, base: str) -> Arguments:
    """Return in which layers an adapter acts."""
    pattern = PATTERNS.get(base.partition("_")[0])
    if pattern is None or draw.random() < 0.8:
        return {}
    return {"layers_to_transform": draw.choice(([0], [1], 1)), "layers_pattern": pattern}


def lora(draw: random.Random, base: str) -> Arguments:
    """Return the options of a LoRA."""
    names = TARGETS[base]
    found: Arguments = {
        "r": draw.choice((1, 2, 4, 8)),
        "lora_alpha": draw.choice((1, 3, 8, 16)),
        "use_rslora": often(draw, False, True),
        "use_dora": often(draw, False, True),
        "bias": often(draw, "none", "all", "lora_only"),
        "lora_bias": often(draw, False, False, True),
        "rank_pattern": often(draw, {}, {names[0]: 3, names[1]: 5}),
        "alpha_pattern": often(draw, {}, {names[0]: 7}),
        "fan_in_fan_out": base.startswith("gpt2"),
    }
    if found["lora_bias"]:
        found |= {"bias": "none", "use_dora": False}
    if base.startswith("llama") and draw.random() < 0.3:
        found |= draw.choice(
            (
                {"trainable_token_indices": [5, 28]},
                {"modules_to_save": ["embed_tokens"]},
                {"modules_to_save": ["input_layernorm"]},
            )
        )
    if base == "bert" and draw.random() < 0.3:
        found |= {"modules_to_save": draw.choice((["pooler"], ["LayerNorm"]))}
    return found


def ranked(**options: tuple[Any, ...]) -> Any:
    """Return what draws each option from its values."""

    def drawn(draw: random.Random, base: str) -> Arguments:
        found = {name: draw.choice(values) for name, values in options.items()}
        return found | ({"fan_in_fan_out": True} if base.startswith("gpt2") and "_fan" in found else {})

    return drawn


R = (1, 2, 4, 6)
FLAG = (False, True)
KINDS: dict[str, Any] = {
    "LoraConfig": lora,
    "AdaLoraConfig": ranked(init_r=R, lora_alpha=(2, 6), total_step=(10,), target_r=(1,)),
    "LoHaConfig": ranked(r=R, alpha=(2, 6), rank_pattern=({}, {"query": 3, "q_proj": 3}), use_effective_conv2d=FLAG),
    "LoKrConfig": ranked(
        r=(*R, 20), alpha=(2, 6), decompose_both=FLAG, decompose_factor=(-1, 4, 8), use_effective_conv2d=FLAG
    ),
    "HiraConfig": ranked(r=R, rank_pattern=({}, {"query": 3, "v_proj": 3})),
    "MissConfig": ranked(r=(2, 4, 5, 8), init_weights=(True, "bat"), bias=("none", "all")),
    "DeloraConfig": ranked(r=R, delora_lambda=(5, 15), rank_pattern=({}, {"query": 3}), bias=("none", "all")),
    "ShiraConfig": ranked(r=(1, 2), random_seed=(None, 3)),
    "C3AConfig": ranked(block_size=(4, 8, 16), bias=("none", "all")),
    "FourierFTConfig": ranked(n_frequency=(5, 20), scaling=(50.0, 150.0), random_loc_seed=(1, 777)),
    "OFTConfig": ranked(
        oft_block_size=(4, 8, 16),
        use_cayley_neumann=FLAG,
        block_share=FLAG,
        coft=FLAG,
        eps=(0.05,),
        bias=("none", "all"),
    ),
    "BOFTConfig": ranked(boft_block_size=(2, 4, 8), boft_n_butterfly_factor=(1, 2), bias=("none", "all")),
    "HRAConfig": ranked(r=(2, 4), apply_GS=FLAG, bias=("none", "all")),
    "RoadConfig": ranked(variant=("road_1", "road_2", "road_4"), group_size=(2, 4, 8)),
    "RandLoraConfig": ranked(
        r=(2, 4, 8), randlora_alpha=(10, 64), sparse=FLAG, save_projection=FLAG, projection_prng_key=(0, 3)
    ),
    "VBLoRAConfig": ranked(
        r=(2,), num_vectors=(8, 16), vector_length=(8, 16), topk=(2, 3), save_only_topk_weights=FLAG
    ),
    "WaveFTConfig": ranked(
        n_frequency=(10, 30), scaling=(5.0, 25.0), random_loc_seed=(1, 777), proportional_parameters=FLAG, use_idwt=FLAG
    ),
    "GraloraConfig": ranked(r=(4, 8), gralora_k=(2, 4), alpha=(4, 8), hybrid_r=(0, 2)),
    "GloraConfig": ranked(
        r=R,
        config_A_B=("lora", "vector", "constant", "none"),
        config_C=("lora", "vector", "none"),
        config_D_E=("constant", "none", "vector"),
    ),
    "PeanutConfig": ranked(r=R, depth=(0, 1, 2), act_fn=("relu", "gelu", "tanh"), scaling=(0.5, 1.0)),
    "SupertuningConfig": ranked(sparsity=(0.9, 0.97), select_top=FLAG, r=(None, 2)),
    "DeftConfig": ranked(
        r=R, alpha=(None, 6), decomposition_method=("relu", "qr"), para=FLAG, init_weights=FLAG, bias=("none", "all")
    ),
    "BeftConfig": ranked(),
    "LNTuningConfig": ranked(),
    "TrainableTokensConfig": ranked(token_indices=([5, 28], [26, 39, 46])),
    "IA3Config": ranked(),
    "VeraConfig": ranked(r=R, save_projection=FLAG, projection_prng_key=(0, 3), d_initial=(0.1, 1.0)),
    "PrefixTuningConfig": ranked(
        num_virtual_tokens=(2, 5), prefix_projection=FLAG, encoder_hidden_size=(8,), task_type=("CAUSAL_LM",)
    ),
    "PromptTuningConfig": ranked(num_virtual_tokens=(2, 5)),
    "PromptEncoderConfig": ranked(
        num_virtual_tokens=(2, 5), encoder_hidden_size=(8, 16), encoder_reparameterization_type=("MLP", "LSTM")
    ),
    "CPTConfig": ranked(
        num_virtual_tokens=(3,), cpt_token_ids=([5, 6, 7],), cpt_mask=([1] * 3,), cpt_tokens_type_mask=([1, 2, 4],)
    ),
    "CartridgeConfig": ranked(num_virtual_tokens=(3, 4), num_frozen_tokens=(1, 2)),
    "LilyConfig": ranked(r=R),
    "TinyLoraConfig": ranked(r=(2,), u=(4,)),
    "PsoftConfig": ranked(r=R),
    "UniLoraConfig": ranked(r=(2,), theta_d_length=(16,)),
    "FrodConfig": ranked(progressbar=(False,)),
    "PveraConfig": ranked(r=R),
    "OSFConfig": ranked(effective_rank=(4,)),
}
PROMPTS = ("PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig", "CPTConfig", "CartridgeConfig")
SHARING = ("VeraConfig", "RandLoraConfig", "VBLoRAConfig")
LAYERED: tuple[str, ...] = (
    "LoraConfig",
    "LoHaConfig",
    "LoKrConfig",
    "HiraConfig",
    "MissConfig",
    "DeloraConfig",
    "OFTConfig",
    "BOFTConfig",
)
LAYERED += (
    "HRAConfig",
    "FourierFTConfig",
    "RandLoraConfig",
    "VeraConfig",
    "GraloraConfig",
    "PeanutConfig",
    "DeftConfig",
)


def task_of(base: str) -> str | None:
    """Return the task of a base's class."""
    if BASES[base][0].endswith(("CausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if base == "t5" else TASKS.get(base.partition("_")[2])


def targets_of(draw: random.Random, base: str, kind: str) -> Arguments:
    """Return which modules an adapter acts on."""
    names = TARGETS[base]
    if kind in PROMPTS:
        return {}
    if kind == "LNTuningConfig":
        named = {"bert": "LayerNorm", "roberta": "LayerNorm", "gpt2": "ln_1", "t5": "layer_norm"}
        return {"target_modules": [named.get(base.partition("_")[0], "input_layernorm")]}
    if kind == "TrainableTokensConfig":
        named = {"llama": "embed_tokens", "gpt2": "wte", "t5": "shared"}
        return {"target_modules": [named.get(base.partition("_")[0], "word_embeddings")]}
    if kind == "IA3Config":
        some = draw.sample(names, 3)
        return {"target_modules": some, "feedforward_modules": draw.choice(([], some[:1], some[2:]))}
    if kind == "BeftConfig":
        return {
            "target_modules": [draw.choice([n for n in names if n in ("value", "query", "c_attn", "v_lin")] or names)]
        }
    if kind == "LoraConfig" and draw.random() < 0.3:
        return draw.choice(
            ({"target_modules": "all-linear"}, {"target_modules": [*names], "exclude_modules": [names[0]]})
        )
    return {"target_modules": draw.sample(names, draw.choice((1, 2, 3)))}


def peft_case(number: int) -> Row:
    """Return name, base, class of the configuration and its arguments."""
    draw = random.Random(f"peft {number}")
    kind = [*KINDS][number % len(KINDS)]
    base = draw.choice([*TARGETS])
    if kind in PROMPTS:
        base = draw.choice(("gpt2", "llama", "t5", "bert_cls") if kind != "CPTConfig" else ("gpt2", "llama"))
    arguments = KINDS[kind](draw, base) | targets_of(draw, base, kind)
    arguments |= layers(draw, base) if kind in LAYERED else {}
    task = task_of(base)
    if task is not None:
        arguments["task_type"] = task
    if base.startswith("gpt2") and kind in ("AdaLoraConfig", "HiraConfig", "FourierFTConfig", "WaveFTConfig"):
        arguments["fan_in_fan_out"] = True
    return f"{kind.removesuffix('Config').lower()}-{number}", base, kind, arguments


def make(root: Path, first: int, last: int) -> None:
    """Make the cases from one number to another, the last left out."""
    import torch
    import transformers
    from make_peft_cases import make_bases, make_case

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    make_bases(root)
    refused = []
    for number in range(first, last):
        row = peft_case(number)
        try:
            told = make_case(root, row)
        except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, AssertionError, IndexError) as error:
            refused.append([*row, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"])
            continue
        if told:
            print(*row[:3], told)
    (root / "refused.json").write_text(json.dumps(refused, indent=1) + "\n", encoding="utf-8")
    print(last - first - len(refused), "cases,", len(refused), "refused")


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
