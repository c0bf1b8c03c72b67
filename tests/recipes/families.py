"""Tiny models of every family that adapterhub knows, as data: they can be made with transformers 4 and 5.

`make` needs torch and transformers; reading the tables needs nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Sizes = dict[str, Any]

TEXT: Sizes = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 100,
    "max_position_embeddings": 40,
}
GROUPED: Sizes = {**TEXT, "num_key_value_heads": 2}
DISENTANGLED: Sizes = {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}
WIDE_HEADS: Sizes = {**GROUPED, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}
GPT: Sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 100, "n_positions": 40}
SEQ2SEQ: Sizes = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "vocab_size": 100,
    "max_position_embeddings": 40,
}
T5: Sizes = {
    "d_model": 32,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "d_kv": 6,
    "d_ff": 48,
    "vocab_size": 100,
}
IMAGE: Sizes = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
}
IDS: Sizes = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
LANGUAGES: Sizes = {"languages": ["en_XX", "de_DE"], "default_language": "de_DE", "adapter_reduction_factor": 4}


@dataclass(frozen=True)
class Family:
    """One tiny model.

    Attributes:
        row: name of the architecture's row.
        model: class of the bare model.
        sizes: arguments of its configuration.
        parts: families of encoder and decoder, for models that are put together.
        padded: whether adapters 1.3.0 minds padding in it as the plain model does.
    """

    row: str
    model: str
    sizes: Sizes = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    padded: bool = True


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "BertModel", TEXT),
    "roberta": Family("roberta", "RobertaModel", TEXT),
    "xlm-roberta": Family("xlm-roberta", "XLMRobertaModel", TEXT),
    "distilbert": Family(
        "distilbert",
        "DistilBertModel",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 100, "max_position_embeddings": 40},
    ),
    "albert": Family(
        "albert",
        "AlbertModel",
        {**TEXT, "embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "electra": Family("electra", "ElectraModel", {**TEXT, "embedding_size": 16}),
    "deberta": Family("deberta", "DebertaModel", DISENTANGLED),
    "deberta-v2": Family("deberta-v2", "DebertaV2Model", DISENTANGLED),
    "xmod": Family("xmod", "XmodModel", {**TEXT, **LANGUAGES}),
    "xmod-pre-norm": Family("xmod", "XmodModel", {**TEXT, **LANGUAGES, "pre_norm": True}),
    "bert-generation": Family("bert-generation", "BertGenerationEncoder", TEXT),
    "modernbert": Family(
        "modernbert",
        "ModernBertModel",
        {**TEXT, **IDS, "cls_token_id": 4, "sep_token_id": 5, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "gpt2": Family("gpt2", "GPT2Model", {**GPT, **IDS}),
    "gptj": Family("gptj", "GPTJModel", {**GPT, **IDS, "rotary_dim": 4}),
    "llama": Family("llama", "LlamaModel", GROUPED),
    "mistral": Family("mistral", "MistralModel", {**GROUPED, "sliding_window": 16}),
    "qwen2": Family("qwen2", "Qwen2Model", {**GROUPED, **IDS}),
    "qwen3": Family("qwen3", "Qwen3Model", {**GROUPED, **IDS, "head_dim": 16}),
    # transformers 4 takes another attention by default, which leaves the soft cap out.
    "gemma2": Family("gemma2", "Gemma2Model", {**WIDE_HEADS, "attn_implementation": "eager"}),
    "gemma3_text": Family("gemma3_text", "Gemma3TextModel", WIDE_HEADS),
    "phi": Family("phi", "PhiModel", GROUPED),
    "t5": Family("t5", "T5Model", T5),
    "mt5": Family("mt5", "MT5Model", {**T5, "feed_forward_proj": "gated-gelu"}),
    "bart": Family("bart", "BartModel", SEQ2SEQ),
    "mbart": Family("mbart", "MBartModel", SEQ2SEQ),
    "plbart": Family("plbart", "PLBartModel", SEQ2SEQ),
    "whisper": Family(
        "whisper",
        "WhisperModel",
        {
            **{name: size for name, size in SEQ2SEQ.items() if name != "max_position_embeddings"},
            **IDS,
            "decoder_start_token_id": 4,
            "max_source_positions": 8,
            "max_target_positions": 40,
            "num_mel_bins": 8,
        },
    ),
    "vit": Family("vit", "ViTModel", IMAGE),
    "beit": Family("beit", "BeitModel", {**IMAGE, "layer_scale_init_value": 0.3, "use_relative_position_bias": True}),
    "clip": Family(
        "clip",
        "CLIPModel",
        {
            "text_config": {**TEXT, **IDS, "hidden_size": 24},
            "vision_config": {**IMAGE, "num_hidden_layers": 3},
            "projection_dim": 16,
        },
    ),
    "clip_text_model": Family("clip_text_model", "CLIPTextModel", {**TEXT, **IDS}),
    "clip_vision_model": Family("clip_vision_model", "CLIPVisionModel", IMAGE),
    "encoder-decoder": Family("encoder-decoder", "EncoderDecoderModel", parts=("bert", "bert")),
    "encoder-decoder-gpt2": Family("encoder-decoder", "EncoderDecoderModel", parts=("distilbert", "gpt2")),
    "encoder-decoder-roberta": Family("encoder-decoder", "EncoderDecoderModel", parts=("albert", "xlm-roberta")),
    "encoder-decoder-electra": Family(
        "encoder-decoder", "EncoderDecoderModel", parts=("electra", "electra"), padded=False
    ),
}


def configuration(name: str) -> Any:
    """Return the configuration of a family's tiny model."""
    import transformers

    family = FAMILIES[name]
    model_class = getattr(transformers, family.model)
    if not family.parts:
        return model_class.config_class(**family.sizes)
    encoder, decoder = (configuration(part) for part in family.parts)
    return model_class.config_class.from_encoder_decoder_configs(encoder, decoder, **IDS, decoder_start_token_id=4)


def make(name: str, model: str | None = None, *, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny model in evaluation mode; every part of it matters for what it computes.

    model: another class of the family than the bare one; changes: of its configuration.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    config = configuration(name)
    for key, value in changes.items():
        setattr(config, key, value)
    made = getattr(transformers, model or FAMILIES[name].model)(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.dim() == 1 and not key.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if is_scale else 0.15 * noise)
    return made.eval()


def values(name: str, shape: Any, wide: float, mean: float = 0.0) -> Any:
    """Return a tensor of multiples of 1/64 around mean, which follow from the name alone, on every machine."""
    import torch

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")
    places = torch.arange(max(1, math.prod(shape)))
    mixed = (places * 40503 + seed) % 65521
    mixed = (mixed * mixed + places * 12345 + seed) % 65521
    return (mean + torch.round((mixed / 65521 * 2 - 1) * wide * 64) / 64).reshape(shape)


def settle(model: Any, rename: Callable[[str], str] = str) -> Any:
    """Return the model with weights that follow from the names of its parameters; rename gives those of 4.57.6."""
    import torch

    names: dict[Any, str] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter] = min(rename(key), names.get(parameter, rename(key)))  # which of tied ones comes first, varies
    with torch.no_grad():
        for parameter, name in names.items():
            is_scale = parameter.dim() == 1 and not name.endswith("bias")
            parameter.copy_(values(name, parameter.shape, 0.3, 1.0 if is_scale else 0.0))
    return model.eval()


def batch(model: Any, *, padded: bool = True) -> dict[str, Any]:
    """Return what a bare model is asked: tokens, perhaps with padding, an image, speech, or several of them."""
    import torch

    taken = inspect.signature(model.forward).parameters
    found: dict[str, Any] = {}
    if "input_ids" in taken:
        found["input_ids"] = torch.tensor([[39, 26, 46, 55, 3], [36, 96, 3, 28, 29]])
        found["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1 - padded, 1 - padded]])
    if "decoder_input_ids" in taken:
        found["decoder_input_ids"] = torch.tensor([[68, 10, 73, 5], [7, 81, 12, 94]])
    if "pixel_values" in taken:
        found["pixel_values"] = values("pixels", (2, 3, 12, 12), 1.0)
    if "input_features" in taken:
        found["input_features"] = values("features", (2, 8, 16), 1.0)
    return found
