"""The base models that are measured, made from their configurations with random weights."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

METHODS = ("seq_bn", "double_seq_bn", "lora")
LORA_RANK = 8


def bert_base() -> BertModel:
    """Return a model of the shape of bert-base-uncased: 12 layers, hidden size 768, 110 million parameters."""
    torch.manual_seed(0)
    model = BertModel(BertConfig())
    model.eval()
    return model


def overhead_model() -> BertModel:
    """Return 12 layers of hidden size 64: so little arithmetic that the frameworks' overhead dominates."""
    torch.manual_seed(0)
    config = BertConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256, vocab_size=1000)
    model = BertModel(config, add_pooling_layer=False)
    model.eval()
    return model


def overhead_inputs() -> dict[str, torch.Tensor]:
    """Return a batch of 16 sequences of 4 tokens."""
    torch.manual_seed(1)
    ids = torch.randint(0, 1000, (16, 4))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
