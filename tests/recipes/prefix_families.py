"""The tiny bases of the cases of prefixes and prompts, one for each family, with inputs that have padding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_models import fill_base, generator

Options = dict[str, Any]

BERT: Options = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
BART: Options = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
}
T5: Options = {"d_model": 16, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
GPT2: Options = {"n_embd": 16, "n_layer": 2, "n_head": 2}
LLAMA: Options = BERT | {"num_key_value_heads": 1, "num_attention_heads": 2}
VIT: Options = BERT | {"image_size": 8, "patch_size": 4, "num_channels": 3}
TEXT: Options = {"vocab_size": 40, "max_position_embeddings": 40, "pad_token_id": 1}
WHISPER: Options = BART | {"num_mel_bins": 6, "max_source_positions": 8, "max_target_positions": 40}
SHORT: Options = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
CLIP_TOWERS: Options = {
    "text_config": BERT | {"projection_dim": 8, "vocab_size": 40, "eos_token_id": 2, "max_position_embeddings": 12},
    "vision_config": VIT | {"projection_dim": 8},
    "projection_dim": 8,
}
DEBERTA: Options = BERT | TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}

STARTS: Options = {"decoder_start_token_id": 2, "pad_token_id": 1}

IDS = [[9, 26, 36, 35, 14], [36, 6, 28, 1, 1]]
MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
ENCODER: Options = {"input_ids": IDS, "attention_mask": MASK}
DECODER: Options = {"input_ids": IDS, "attention_mask": MASK}
BOTH: Options = ENCODER | {
    "decoder_input_ids": [[2, 11, 7, 30], [2, 20, 5, 1]],
    "decoder_attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
}


@dataclass(frozen=True)
class Family:
    """How a family's base is made and run.

    Attributes:
        cls: class of transformers.
        config: of the base.
        inputs: token inputs, if it reads tokens.
        key: the output that is compared.
        floats: float input → shape.
        attention: implementation, None for the default.
        parts: families of encoder and decoder where the two are models of their own.
    """

    cls: str
    config: Options
    inputs: Options
    key: str = "last_hidden_state"
    floats: tuple[tuple[str, tuple[int, ...]], ...] = ()
    attention: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def unpadded(self) -> Options:
        """One row of the inputs without its masks, {} where the model reads something else too."""
        return {} if self.floats else {k: v[:1] for k, v in self.inputs.items() if not k.endswith("mask")}

    def tensors(self, inputs: Options) -> Options:
        """Return token inputs as tensors, with the float ones."""
        import torch

        found = {name: torch.tensor(value) for name, value in inputs.items()}
        for name, shape in self.floats:
            found[name] = torch.round(torch.randn(shape, generator=generator(name)) * 64) / 64
        return found


PIXELS = (("pixel_values", (2, 3, 8, 8)),)
FAMILIES: dict[str, Family] = {
    "bert": Family("BertModel", BERT | TEXT, ENCODER),
    "roberta": Family("RobertaModel", BERT | TEXT, ENCODER),
    "xlm-roberta": Family("XLMRobertaModel", BERT | TEXT, ENCODER),
    "distilbert": Family("DistilBertModel", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20} | TEXT, ENCODER),
    "electra": Family("ElectraModel", BERT | TEXT | {"embedding_size": 12}, ENCODER),
    "albert": Family("AlbertModel", BERT | TEXT | {"embedding_size": 12, "num_hidden_groups": 2}, ENCODER),
    "bert-generation": Family("BertGenerationEncoder", BERT | TEXT, ENCODER),
    "deberta": Family("DebertaModel", DEBERTA, ENCODER),
    "deberta-v2": Family("DebertaV2Model", DEBERTA | {"position_buckets": 4, "norm_rel_ebd": "layer_norm"}, ENCODER),
    "gpt2": Family("GPT2Model", GPT2 | TEXT | {"n_positions": 40}, DECODER, attention="eager"),
    "gptj": Family("GPTJModel", GPT2 | TEXT | {"n_positions": 40, "rotary_dim": 4}, DECODER),
    "llama": Family("LlamaModel", LLAMA | TEXT, DECODER, attention="eager"),
    "mistral": Family("MistralModel", LLAMA | TEXT | {"sliding_window": 3}, DECODER, attention="eager"),
    "bart": Family("BartModel", BART | TEXT, BOTH, attention="eager"),
    "mbart": Family("MBartModel", BART | TEXT, BOTH, attention="eager"),
    "plbart": Family("PLBartModel", BART | TEXT, BOTH, attention="eager"),
    "t5": Family("T5Model", T5 | SHORT | {"vocab_size": 40, "pad_token_id": 1}, BOTH),
    "mt5": Family("MT5Model", T5 | SHORT | {"vocab_size": 40, "pad_token_id": 1}, BOTH),
    "whisper": Family(
        "WhisperModel",
        WHISPER | TEXT | {"decoder_start_token_id": 2, "bos_token_id": 2, "eos_token_id": 2},
        {name: BOTH[name] for name in ("decoder_input_ids", "decoder_attention_mask")},
        floats=(("input_features", (2, 6, 16)),),
        attention="eager",
    ),
    "encoder-decoder": Family("EncoderDecoderModel", STARTS, BOTH, "logits", attention="eager", parts=("bert", "bert")),
    "encoder-decoder-gpt2": Family(
        "EncoderDecoderModel", STARTS, BOTH, "logits", attention="eager", parts=("albert", "gpt2")
    ),
    "vit": Family("ViTModel", VIT, {}, floats=PIXELS),
    "beit": Family("BeitModel", VIT | {"use_absolute_position_embeddings": True}, {}, floats=PIXELS),
    "clip": Family(
        "CLIPModel",
        CLIP_TOWERS,
        {"input_ids": [[0, 9, 26, 36, 2], [0, 7, 2, 2, 2]], "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]},
        key="logits_per_text",
        floats=PIXELS,
    ),
}


def made_config(family: Family) -> Any:
    """Return the configuration of a family's base, or of a part of one."""
    import transformers

    return getattr(transformers, family.cls).config_class(**family.config)


def make_base(root: Path, name: str) -> None:
    """Save the randomly filled base of a family under bases/."""
    import transformers

    family = FAMILIES[name]
    cls = getattr(transformers, family.cls)
    if family.parts:
        encoder, decoder = (made_config(FAMILIES[part]) for part in family.parts)
        model = cls(cls.config_class.from_encoder_decoder_configs(encoder, decoder, **family.config))
    else:
        model = cls(made_config(family))
    fill_base(model, name)
    model.save_pretrained(root / "bases" / name)


def load_base(root: Path, name: str) -> Any:
    """Return the base of a family in eval mode; the path is not written into what it saves."""
    import transformers

    family = FAMILIES[name]
    settings = {} if family.attention is None else {"attn_implementation": family.attention}
    model = getattr(transformers, family.cls).from_pretrained(root / "bases" / name, **settings)
    model.config.name_or_path = f"bases/{name}"
    return model.eval()


def ran(name: str, model: Any) -> Options:
    """Return the output of a family's base under "", and for inputs without padding under "_unpadded"."""
    import torch

    family, outputs = FAMILIES[name], {}
    for suffix, inputs in (("", family.inputs), ("_unpadded", family.unpadded)):
        if inputs or not suffix:
            with torch.no_grad():
                outputs[suffix] = model(**family.tensors(inputs))[family.key].contiguous()
    assert all(bool(torch.isfinite(output).all()) for output in outputs.values()), "output is not finite"
    return outputs
