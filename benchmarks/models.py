"""The base models that are measured, made from their configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from transformers import BertConfig, BertModel

LORA_RANK = 8


def bert_base() -> BertModel:
    """Return a model of the shape of bert-base-uncased: 12 layers, hidden size 768, 110 million parameters."""
    return _made(BertConfig())


def overhead_model() -> BertModel:
    """Return 12 layers of hidden size 64: so little arithmetic that the frameworks' overhead dominates."""
    return _made(BertConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256, vocab_size=1000))


def minilm() -> BertModel:
    """Return a model of the shape of MiniLM-L6-H384, with a small vocabulary."""
    return _made(BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536, vocab_size=1000))


def _made(config: BertConfig) -> BertModel:
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=config.hidden_size == BertConfig().hidden_size)
    model.eval()
    return model


def inputs(rows: int, length: int) -> dict[str, torch.Tensor]:
    """Return a batch of so many sequences of so many tokens."""
    torch.manual_seed(1)
    ids = torch.randint(0, 1000, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


BASES: dict[str, Callable[[], BertModel]] = {"overhead": overhead_model, "minilm": minilm}
"""Name → model whose forward passes are measured."""

INPUTS: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "overhead": partial(inputs, 16, 4),
    "minilm": partial(inputs, 16, 32),
}
"""Name of a model → its batch."""
