"""Tiny real models of transformers for the tests, made from configurations, and ready adapters for them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from families import make
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import method_of

WIDTH, VOCABULARY = 32, 100
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
}
DISTILBERT: dict[str, Any] = {"dim": WIDTH, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": VOCABULARY}


def model(family: str = "bert", seed: int = 0) -> PreTrainedModel:
    """Return a bare model in evaluation mode."""
    torch.manual_seed(seed)
    made = {
        "bert": lambda: BertModel(BertConfig(**SIZES)),
        "roberta": lambda: RobertaModel(RobertaConfig(**SIZES)),
        "distilbert": lambda: DistilBertModel(DistilBertConfig(**DISTILBERT)),
    }[family]()
    return made.eval()


def classifier(labels: int = 2, seed: int = 0) -> BertForSequenceClassification:
    """Return a BERT with a classification head of its own, in evaluation mode."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**{**SIZES, "num_labels": labels})).eval()


def family(name: str, model: str | None = None, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a tiny model of a family, bare or of the class that is asked for, in evaluation mode."""
    made: PreTrainedModel = make(name, model, seed=seed, **changes)
    return made


def family_inputs(base: PreTrainedModel, rows: int = 2, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return what a model of any family takes: tokens with padding, an image, speech, or several of them."""
    taken = inspect.signature(base.forward).parameters
    generator = torch.Generator().manual_seed(seed)
    found = inputs(rows=rows, length=9, seed=seed) if "input_ids" in taken else {}
    if "decoder_input_ids" in taken:
        found["decoder_input_ids"] = inputs(rows=rows, length=5, seed=seed + 1)["input_ids"]
    if "pixel_values" in taken:
        found["pixel_values"] = torch.randn(rows, 3, 12, 12, generator=generator)
    if "input_features" in taken:
        found["input_features"] = torch.randn(rows, 8, 16, generator=generator)
    return found


@torch.no_grad()
def answers(base: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what a model of any family answers: hidden states, or what stands for them in models with a head."""
    output = base(**batch)
    name = next(name for name in ("last_hidden_state", "logits", "logits_per_image") if name in output)
    found: torch.Tensor = output[name]
    return found


def cast(base: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model itself, its weights in another dtype."""
    nn.Module.to(base, dtype)
    return base


def inputs(rows: int = 4, length: int = 9, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return token ids and a mask (rows, length); the last row has padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def randomise(adapters: AdapterSet, name: str, seed: int = 2) -> None:
    """Give an adapter random weights, so that it changes the outputs clearly; what never trains stays."""
    generator = torch.Generator().manual_seed(seed)
    loaded = adapters._loaded[name]
    with torch.no_grad():
        for key, parameter in loaded.bank.tensors().items():
            if not any(method_of(config).frozen(config, key) for config in loaded.config):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def with_adapters(base: PreTrainedModel, **methods: str) -> AdapterSet:
    """Return an attached set with one random adapter per name and method."""
    adapters = attach(base)
    for number, (name, method) in enumerate(methods.items()):
        adapters.add(name, method)
        randomise(adapters, name, seed=number + 10)
    return adapters


@torch.no_grad()
def hidden(base: PreTrainedModel, batch: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Return the last hidden state (rows, length, width)."""
    found: torch.Tensor = base(**(batch or inputs())).last_hidden_state
    return found


@torch.no_grad()
def logits(base: PreTrainedModel, batch: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Return the logits (rows, labels)."""
    found: torch.Tensor = base(**(batch or inputs())).logits
    return found


def generated(base: PreTrainedModel, rows: slice = slice(None), **settings: Any) -> torch.Tensor:
    """Return what a decoder generates behind texts of which the first is padded on the left."""
    ids = torch.randint(5, 99, (3, 5), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0  # padded on the left, as for generation
    given = {"input_ids": ids[rows], "attention_mask": mask[rows]}
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 1} | settings
    settings |= {"decoder_start_token_id": 2} if base.config.is_encoder_decoder else {}
    found: torch.Tensor = base.generate(**given, **settings)
    return found
