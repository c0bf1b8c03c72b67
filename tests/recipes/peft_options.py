"""The tables of make_peft_cases.py: bases, and the configurations of PEFT that a case is made of.

A case is (name, base, configuration's class, its arguments).  `targets` are left to each case, so that lists, regular
expressions and what PEFT chooses by itself all occur.
"""

from __future__ import annotations

from typing import Any

Arguments = dict[str, Any]
Row = tuple[str, str, str, Arguments]

BERT: Arguments = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA: Arguments = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GPT2: Arguments = {
    "n_embd": 32,
    "n_inner": 48,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 100,
    "n_positions": 64,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 1,
}
VIT: Arguments = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
VOCABULARY: Arguments = {"vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 1}

# Base → class of transformers, class of its configuration, arguments of that.
BASES: dict[str, tuple[str, str, Arguments]] = {
    "bert": ("BertModel", "BertConfig", BERT | VOCABULARY),
    "bert_cls": ("BertForSequenceClassification", "BertConfig", BERT | VOCABULARY | {"num_labels": 3}),
    "bert_qa": ("BertForQuestionAnswering", "BertConfig", BERT | VOCABULARY),
    "bert_tokens": ("BertForTokenClassification", "BertConfig", BERT | VOCABULARY | {"num_labels": 5}),
    "bert_mlm": ("BertForMaskedLM", "BertConfig", BERT | VOCABULARY),
    "roberta_cls": ("RobertaForSequenceClassification", "RobertaConfig", BERT | VOCABULARY | {"num_labels": 3}),
    "distilbert_cls": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "num_labels": 3} | VOCABULARY,
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", LLAMA | {"tie_word_embeddings": True}),
    "llama_cls": ("LlamaForSequenceClassification", "LlamaConfig", LLAMA | {"num_labels": 3}),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
        | {"pad_token_id": 1, "eos_token_id": 3, "decoder_start_token_id": 1},
    ),
    "gpt2_cls": ("GPT2ForSequenceClassification", "GPT2Config", GPT2 | {"num_labels": 3}),
    "vit": ("ViTModel", "ViTConfig", VIT),
    "vit_cls": ("ViTForImageClassification", "ViTConfig", VIT | {"num_labels": 3}),
}

QV = ["query", "value"]


def lora(name: str, base: str = "bert", **arguments: Any) -> Row:
    """Return a LoRA case."""
    return name, base, "LoraConfig", {"r": 4, "lora_alpha": 6, **arguments}


LORAS: tuple[Row, ...] = (
    lora("list", target_modules=QV),
    lora("regex", target_modules=r".*layer\.1\..*(query|value)"),
    lora("all-linear", target_modules="all-linear"),
    lora("exclude", target_modules=["dense"], exclude_modules=["pooler.dense"]),
    lora("layers", target_modules=QV, layers_to_transform=[0], layers_pattern="layer"),
    lora("layer-int", target_modules=QV, layers_to_transform=1),
    lora(
        "patterns",
        target_modules=QV,
        rank_pattern={r"^encoder\.layer\.1\.attention\.self\.value": 6, "layer.0.attention.self.query": 2},
        alpha_pattern={"value": 3, r"layer\.[01]\.attention.self.(query|key)": 5},
    ),
    lora("rslora", target_modules=QV, use_rslora=True),
    lora("rslora-patterns", target_modules=QV, use_rslora=True, rank_pattern={"query": 9}, alpha_pattern={"value": 7}),
    lora("dora", target_modules=[*QV, "dense"], use_dora=True),
    lora("dora-rslora", target_modules=QV, use_dora=True, use_rslora=True),
    lora("lora-bias", target_modules=QV, lora_bias=True),
    lora("bias-all", target_modules=QV, bias="all"),
    lora("bias-only", target_modules=QV, bias="lora_only"),
    lora("bias-only-dora", target_modules=QV, bias="lora_only", use_dora=True),
    lora("bias-all-cls", "bert_cls", target_modules=QV, bias="all", task_type="SEQ_CLS"),
    lora("gaussian", target_modules=QV, init_lora_weights="gaussian"),
    lora("orthogonal", target_modules=QV, init_lora_weights="orthogonal"),
    lora("mica", target_modules=QV, init_lora_weights="mica"),
    lora("dropout", target_modules=QV, lora_dropout=0.1),
    lora("norms", target_modules=QV, modules_to_save=["LayerNorm"]),
    lora("pooler", target_modules=QV, modules_to_save=["pooler"]),
    lora("embeddings-saved", target_modules=QV, modules_to_save=["word_embeddings"]),
    lora("cls", "bert_cls", target_modules=QV, task_type="SEQ_CLS"),
    lora("cls-no-task", "bert_cls", target_modules=QV, modules_to_save=["classifier"]),
    lora("cls-adapted", "bert_cls", target_modules=["query", "classifier"]),
    lora("qa", "bert_qa", target_modules=QV, task_type="QUESTION_ANS"),
    lora("tokens", "bert_tokens", target_modules=QV, task_type="TOKEN_CLS"),
    lora("cls", "gpt2_cls", target_modules=["c_attn"], task_type="SEQ_CLS", fan_in_fan_out=True),
    lora("cls", "vit_cls", target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]),
    lora("mlm", "bert_mlm", target_modules=[*QV, "decoder"]),
    lora("mlm-saved", "bert_mlm", target_modules=QV, modules_to_save=["cls"]),
    lora("feature", target_modules=QV, task_type="FEATURE_EXTRACTION"),
    lora("cls", "roberta_cls", target_modules=QV, task_type="SEQ_CLS"),
    lora(
        "cls",
        "distilbert_cls",
        target_modules=["q_lin", "v_lin"],
        task_type="SEQ_CLS",
        modules_to_save=["pre_classifier"],
    ),
    lora("default", "llama", task_type="CAUSAL_LM"),
    lora("all-linear", "llama", target_modules="all-linear", task_type="CAUSAL_LM"),
    lora("lm-head", "llama", target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"),
    lora("lm-head-saved", "llama", target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"),
    lora("embeddings", "llama", target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM"),
    lora("dora", "llama", target_modules=["q_proj", "v_proj"], use_dora=True, task_type="CAUSAL_LM"),
    lora("embeddings-dora", "llama", target_modules=["q_proj", "embed_tokens"], use_dora=True, task_type="CAUSAL_LM"),
    lora("embeddings-saved", "llama", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    lora("tokens", "llama", target_modules=["q_proj"], trainable_token_indices=[26, 28, 39], task_type="CAUSAL_LM"),
    lora("tokens-named", "llama", target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [5, 28]}),
    lora("tokens-head", "llama", target_modules=["q_proj"], trainable_token_indices={"lm_head": [5, 28]}),
    lora(
        "tokens", "llama_tied", target_modules=["q_proj"], trainable_token_indices=[26, 28, 39], task_type="CAUSAL_LM"
    ),
    lora("tied-saved", "llama_tied", target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    lora(
        "tied-ensured-saved",
        "llama_tied",
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens"],
        ensure_weight_tying=True,
    ),
    lora("tied-ensured", "llama_tied", target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True),
    lora("embeddings", "llama_tied", target_modules=["q_proj", "embed_tokens"]),
    lora("lm-head", "llama_tied", target_modules=["q_proj", "lm_head"]),
    lora("cls", "llama_cls", target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS"),
    lora("parameters", "llama", target_modules=["q_proj"], target_parameters=["mlp.up_proj.weight"]),
    lora("default", "gpt2", task_type="CAUSAL_LM", fan_in_fan_out=True),
    lora("all", "gpt2", target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    lora("dora", "gpt2", target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True, task_type="CAUSAL_LM"),
    lora("bias-only", "gpt2", target_modules=["c_attn"], fan_in_fan_out=True, bias="lora_only", task_type="CAUSAL_LM"),
    lora("wte", "gpt2", target_modules=["c_attn", "wte"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    lora("default", "t5", task_type="SEQ_2_SEQ_LM"),
    lora("all-linear", "t5", target_modules="all-linear", task_type="SEQ_2_SEQ_LM"),
    lora("list", "vit", target_modules=["q_proj", "v_proj"]),
    lora("convolution", "vit", target_modules=["projection", "q_proj"]),
    lora("convolution-dora", "vit", target_modules=["projection"], use_dora=True),
)


def other(name: str, kind: str, base: str = "bert", **arguments: Any) -> Row:
    """Return a case of another type; query and value of BERT are its targets unless it says otherwise."""
    targets = {
        "bert": QV,
        "bert_cls": QV,
        "llama": ["q_proj", "v_proj"],
        "gpt2": ["c_attn"],
        "vit": ["projection", "q_proj"],
    }
    return name, base, kind, {"target_modules": targets[base], **arguments}


def prompt(name: str, kind: str, base: str = "llama", **arguments: Any) -> Row:
    """Return a case of a type that adds to the text or the attentions."""
    return name, base, kind, {"task_type": "CAUSAL_LM", **arguments}


OTHERS: tuple[Row, ...] = (
    other("adalora", "AdaLoraConfig", init_r=4, target_r=2, lora_alpha=6, total_step=10),
    other("adalora", "AdaLoraConfig", "gpt2", init_r=4, target_r=2, lora_alpha=6, total_step=10, fan_in_fan_out=True),
    other("loha", "LoHaConfig", r=3, alpha=5),
    other("loha-patterns", "LoHaConfig", r=3, alpha=5, rank_pattern={"query": 2}, alpha_pattern={"value": 4}),
    other("loha", "LoHaConfig", "llama", r=3, alpha=5, target_modules=["q_proj", "up_proj"]),
    other("loha", "LoHaConfig", "vit", r=3, alpha=5),
    other("loha-effective", "LoHaConfig", "vit", r=3, alpha=5, use_effective_conv2d=True),
    other("lokr", "LoKrConfig", r=3, alpha=5),
    other("lokr-wide", "LoKrConfig", r=20, alpha=5),
    other("lokr-both", "LoKrConfig", r=1, alpha=5, decompose_both=True, decompose_factor=8),
    other("lokr", "LoKrConfig", "llama", r=2, alpha=5, target_modules=["q_proj", "up_proj"]),
    other("lokr", "LoKrConfig", "vit", r=2, alpha=5),
    other("lokr-effective", "LoKrConfig", "vit", r=2, alpha=5, use_effective_conv2d=True),
    other("hira", "HiraConfig", r=4),
    other("hira-patterns", "HiraConfig", r=4, rank_pattern={"query": 2}),
    other("hira", "HiraConfig", "gpt2", r=4, fan_in_fan_out=True),
    other("miss", "MissConfig", r=4),
    other("miss-bat", "MissConfig", r=4, init_weights="bat"),
    other("miss-mini", "MissConfig", r=4, mini_r=2, init_weights="mini"),
    other("miss-uneven", "MissConfig", r=5),
    other("delora", "DeloraConfig", r=4),
    other("delora-patterns", "DeloraConfig", r=4, rank_pattern={"query": 2}, lambda_pattern={"value": 7}),
    other("shira", "ShiraConfig", r=2),
    other("shira-seed", "ShiraConfig", r=2, random_seed=3),
    other("c3a", "C3AConfig", block_size=8),
    other("c3a", "C3AConfig", "llama", block_size=8, block_size_pattern={"v_proj": 16}),
    other("fourierft", "FourierFTConfig", n_frequency=10),
    other(
        "fourierft-patterns",
        "FourierFTConfig",
        n_frequency=10,
        n_frequency_pattern={"query": 7},
        random_loc_seed=5,
        scaling=90.0,
    ),
    other("fourierft", "FourierFTConfig", "gpt2", n_frequency=10, fan_in_fan_out=True),
    other("oft", "OFTConfig", oft_block_size=8, use_cayley_neumann=False),
    other("oft-neumann", "OFTConfig", oft_block_size=8),
    other("oft-blocks", "OFTConfig", r=8, oft_block_size=0, use_cayley_neumann=False),
    other("oft-shared", "OFTConfig", oft_block_size=8, block_share=True, use_cayley_neumann=False),
    other("oft-coft", "OFTConfig", oft_block_size=8, coft=True, eps=0.05, use_cayley_neumann=False),
    other(
        "oft", "OFTConfig", "llama", oft_block_size=8, use_cayley_neumann=False, target_modules=["q_proj", "down_proj"]
    ),
    other("oft", "OFTConfig", "vit", oft_block_size=4, use_cayley_neumann=False),
    other("boft", "BOFTConfig", boft_block_size=4),
    other("boft-butterfly", "BOFTConfig", boft_block_size=4, boft_n_butterfly_factor=2),
    other("boft-blocks", "BOFTConfig", boft_block_size=0, boft_block_num=4),
    other("boft", "BOFTConfig", "llama", boft_block_size=4, target_modules=["q_proj", "v_proj"]),
    other("hra", "HRAConfig", r=4),
    other("hra-gs", "HRAConfig", r=4, apply_GS=True),
    other("hra", "HRAConfig", "vit", r=4),
    other("road", "RoadConfig", group_size=8),
    other("road-2", "RoadConfig", group_size=8, variant="road_2"),
    other("road-4", "RoadConfig", group_size=8, variant="road_4"),
    other("randlora", "RandLoraConfig", r=4, randlora_alpha=10),
    other("randlora-noproj", "RandLoraConfig", r=4, randlora_alpha=10, save_projection=False),
    other("randlora-sparse", "RandLoraConfig", r=4, randlora_alpha=10, sparse=True),
    other("randlora-very-sparse", "RandLoraConfig", r=4, very_sparse=True, save_projection=False),
    other("randlora-sizes", "RandLoraConfig", r=4, target_modules=["query", "dense"]),
    other("randlora", "RandLoraConfig", "gpt2", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True),
    other("vblora", "VBLoRAConfig", r=2, num_vectors=8, vector_length=16, topk=2),
    other("vblora-topk", "VBLoRAConfig", r=2, num_vectors=8, vector_length=16, topk=2, save_only_topk_weights=True),
    other("waveft", "WaveFTConfig", n_frequency=10),
    other("waveft-sym4", "WaveFTConfig", n_frequency=10, wavelet_family="sym4"),
    other("waveft-plain", "WaveFTConfig", n_frequency=10, use_idwt=False, n_frequency_pattern={"query": 7}),
    other(
        "waveft-all", "WaveFTConfig", n_frequency=10, proportional_parameters=True, target_modules=["query", "dense"]
    ),
    other("waveft", "WaveFTConfig", "gpt2", n_frequency=10, target_modules=["c_attn"], fan_in_fan_out=True),
    other("gralora", "GraloraConfig", r=4, gralora_k=2, alpha=6),
    other("gralora-hybrid", "GraloraConfig", r=4, gralora_k=2, alpha=6, hybrid_r=2),
    other("glora", "GloraConfig", r=4),
    other("glora-vectors", "GloraConfig", r=4, config_A_B="vector", config_C="vector", config_D_E="vector"),
    other("glora-none", "GloraConfig", r=4, config_A_B="constant", config_C="none", config_D_E="none"),
    other("gralora", "GraloraConfig", "gpt2", r=4, target_modules=["c_attn"], fan_in_fan_out=True),
    other("glora-no-bias", "GloraConfig", "llama", r=4),
    other("lily", "LilyConfig", r=4),
    other("lily-stride", "LilyConfig", r=4, stride_A=2, num_B=3, scaling=0.5),
    other("unilora", "UniLoraConfig", r=2, theta_d_length=16),
    other("tinylora", "TinyLoraConfig", r=2, u=4),
    other("psoft", "PsoftConfig", r=4, psoft_alpha=4),
    other("peanut", "PeanutConfig", r=4),
    other("peanut-deep", "PeanutConfig", r=4, depth=2, act_fn="gelu", scaling=0.5),
    other("supertuning", "SupertuningConfig", sparsity=0.9),
    other("supertuning-lora", "SupertuningConfig", sparsity=0.9, r=2, select_top=False),
    other("deft", "DeftConfig", r=4),
    other("deft-scaled", "DeftConfig", r=4, alpha=6, init_weights=False),
    other("deft-qr", "DeftConfig", r=4, decomposition_method="qr", para=True),
    other("beft", "BeftConfig", target_modules=["value"]),
    other("osf", "OSFConfig", effective_rank=4),
    other("frod", "FrodConfig", progressbar=False),
    other("pvera", "PveraConfig", r=4),
    other("ln-tuning", "LNTuningConfig", target_modules=["LayerNorm"]),
    other("ln-tuning-cls", "LNTuningConfig", "bert_cls", target_modules=["LayerNorm"], task_type="SEQ_CLS"),
    other("tokens", "TrainableTokensConfig", "llama", target_modules=["embed_tokens"], token_indices=[5, 28]),
    other("ia3", "IA3Config", target_modules=["key", "value"], feedforward_modules=[]),
    other("ia3-ff", "IA3Config", target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    other(
        "ia3-cls", "IA3Config", "bert_cls", target_modules=["key", "value"], feedforward_modules=[], task_type="SEQ_CLS"
    ),
    prompt(
        "cpt",
        "CPTConfig",
        num_virtual_tokens=3,
        cpt_token_ids=[5, 6, 7],
        cpt_mask=[1] * 3,
        cpt_tokens_type_mask=[1, 2, 4],
    ),
    prompt("cartridge", "CartridgeConfig", num_virtual_tokens=3, num_frozen_tokens=1),
    other("vera", "VeraConfig", r=4),
    other("vera-noproj", "VeraConfig", r=4, save_projection=False, projection_prng_key=3),
    other("vera-cls", "VeraConfig", "bert_cls", r=4, task_type="SEQ_CLS"),
)
