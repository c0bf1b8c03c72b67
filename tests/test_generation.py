"""`generate` with its cache under every composition: each row comes out as if it were alone with its adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from adapterhub import Average, BatchSplit, Parallel, Stack
from adapterhub.composition import Composition
from adapterhub.loader import AdapterSet, attach

SMALL: dict[str, Any] = {"vocab_size": 60, "eos_token_id": None, "bos_token_id": 1, "pad_token_id": 0}


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SMALL))


def llama() -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(intermediate_size=48, **sizes, **SMALL))


def t5() -> PreTrainedModel:
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    return T5ForConditionalGeneration(T5Config(**sizes, **SMALL))


METHODS = {"bottleneck": "seq_bn[reduction_factor=4]", "lora": "lora[r=4]", "both": "double_seq_bn+lora"}


@pytest.fixture(params=[gpt2, llama, t5])
def adapters(request: pytest.FixtureRequest) -> AdapterSet:
    torch.manual_seed(0)
    made = attach(request.param().eval())
    for name, method in METHODS.items():
        made.add(name, method)
        for parameter in made.model.adapterhub._modules[name].parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def prompts(rows: int = 3) -> dict[str, Tensor]:
    ids = torch.randint(2, 60, (rows, 5), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0  # padded on the left, as for generation
    return {"input_ids": ids, "attention_mask": mask}


def generated(adapters: AdapterSet, rows: slice = slice(None), **settings: Any) -> Tensor:
    given = {key: value[rows] for key, value in prompts().items()}
    found: Tensor = adapters.model.generate(**given, max_new_tokens=8, do_sample=False, suppress_tokens=[0], **settings)
    return found


@pytest.mark.parametrize(
    "setup", ["bottleneck", "lora", "both", Stack("bottleneck", "lora"), Average("bottleneck", "both")], ids=str
)
def test_the_cache_changes_nothing(adapters: AdapterSet, setup: str | Composition) -> None:
    plain = generated(adapters)
    with adapters.using(setup):
        found = generated(adapters)
        assert torch.equal(found, generated(adapters, use_cache=False))
        assert torch.equal(found[1:2], generated(adapters, slice(1, 2)))
    assert not torch.equal(found, plain)


def test_each_row_generates_with_its_own_adapter(adapters: AdapterSet) -> None:
    names = ["lora", None, "bottleneck"]
    wanted = []
    for row, name in enumerate(names):
        with adapters.using(name):
            wanted.append(generated(adapters, slice(row, row + 1)))
    with adapters.per_row(names):
        assert torch.equal(generated(adapters), torch.cat(wanted))


def test_batch_split_generates_by_rows(adapters: AdapterSet) -> None:
    with adapters.using(BatchSplit("lora", Stack("bottleneck", "lora"), batch_sizes=[1, 2])):
        found = generated(adapters)
    with adapters.using("lora"):
        assert torch.equal(found[:1], generated(adapters, slice(0, 1)))
    with adapters.using(Stack("bottleneck", "lora")):
        assert torch.equal(found[1:], generated(adapters, slice(1, 3)))


def test_parallel_generates_for_each_adapter(adapters: AdapterSet) -> None:
    setup = Parallel("lora", "bottleneck")
    with adapters.using(setup):
        found = generated(adapters)
        beams = generated(adapters, num_beams=2)
    wanted, wanted_beams = [], []
    for name in setup:
        with adapters.using(name):
            wanted.append(generated(adapters))
            wanted_beams.append(generated(adapters, num_beams=2))
    assert torch.equal(found, torch.cat(wanted))
    assert torch.equal(beams, torch.cat(wanted_beams))
    assert "generate" not in adapters.model.__dict__
