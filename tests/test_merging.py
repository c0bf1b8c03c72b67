"""Merging: the base model's weights take over what the adapter does, and give it back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import inputs, model
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2Model

from adapterhub import Average, BatchSplit, Stack
from adapterhub.errors import StateError, UnsupportedError
from adapterhub.loader import AdapterSet, attach

METHODS = {
    "lora": "lora[r=3,alpha=5]",
    "everywhere": 'lora[r=2,targets=["all-linear","embeddings.word_embeddings"]]',
    "rslora": "rslora[r=4]",
    "dora": "dora",
    "dora_adapters": "dora[magnitude=dora_adapters]",
    "bias": "lora[update_bias=true]",
    "norms": "layer_norm",
    "both": "layer_norm+lora",
}


def filled(base: nn.Module, *, gpt2: bool = False) -> AdapterSet:
    torch.manual_seed(0)
    adapters = attach(base)
    for name, method in METHODS.items():
        adapters.add(name, _for_gpt2(method) if gpt2 else method)
        for parameter in adapters.model.adapterhub._modules[name].parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return adapters


def run(adapters: AdapterSet) -> Tensor:
    with torch.no_grad():
        found: Tensor = adapters.model(**inputs(4))[0]
    return found


def state(base: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in base.state_dict().items() if not name.startswith("adapterhub.")}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_merged_is_attached_and_unmerged_is_the_base_bit_for_bit(name: str, family: str) -> None:
    if family == "gpt2":
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 40}
        base = GPT2Model(GPT2Config(**sizes)).eval()
    else:
        base = model(family)
    adapters = filled(base, gpt2=family == "gpt2")
    before, plain = state(base), run(adapters)
    with adapters.using(name):
        wanted = run(adapters)
    adapters.merge(name)
    merged = run(adapters)
    assert torch.allclose(merged, wanted, atol=5e-5, rtol=1e-4), float((merged - wanted).abs().max())
    assert not torch.allclose(merged, plain, atol=1e-3)
    assert state(base).keys() >= before.keys()
    adapters.unmerge()
    assert torch.equal(run(adapters), plain)
    assert all(torch.equal(value, before[key]) for key, value in state(base).items())
    assert state(base).keys() == before.keys()


def _for_gpt2(method: str) -> str:
    """DoRA and biases of updates are defined for whole maps; gpt2 computes query, key and value in one."""
    if "targets" in method:
        return method.replace("embeddings.word_embeddings", "wte")
    if method == "dora":
        return 'dora[targets=["all-linear"]]'
    return method.replace("[", '[targets=["all-linear"],') if method.startswith(("dora[", "lora[")) else method


def test_a_composition_can_be_merged_where_its_adapters_can() -> None:
    adapters = filled(model())
    for setup in (Stack("lora", "rslora", "norms"), Average("lora", "everywhere", weights=[0.25, 0.75])):
        with adapters.using(setup):
            wanted = run(adapters)
        adapters.merge(setup)
        assert torch.allclose(run(adapters), wanted, atol=5e-5, rtol=1e-4)
        adapters.unmerge()


def test_the_head_stays_active() -> None:
    adapters = attach(model())
    adapters.add("a", "lora", labels=["no", "yes"], set_active=True)
    for parameter in adapters.model.adapterhub.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    wanted = run(adapters)
    adapters.merge("a")
    assert torch.allclose(run(adapters), wanted, atol=1e-5)
    adapters.unmerge()
    assert adapters.active is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merging_in_half_precision_is_as_good_as_its_dtype(dtype: torch.dtype) -> None:
    base = model()
    nn.Module.to(base, dtype)
    adapters = filled(base)
    with adapters.using("lora"):
        wanted = run(adapters).float()
    before = state(base)
    adapters.merge("lora")
    assert (run(adapters).float() - wanted).abs().max() < 60 * torch.finfo(dtype).eps
    adapters.unmerge()
    assert all(torch.equal(value, before[key]) for key, value in state(base).items())


def test_a_tied_weight_is_refused_or_untied() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    base = BertForMaskedLM(BertConfig(vocab_size=100, **sizes)).eval()
    adapters = attach(base)
    adapters.add("a", 'lora[targets=["cls.predictions.decoder"]]')
    for parameter in adapters.model.adapterhub.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with adapters.using("a"):
        wanted = run(adapters)
    with pytest.raises(UnsupportedError, match=r"cls\.predictions\.decoder shares its weight .* untie=True"):
        adapters.merge("a")
    decoder, embeddings = base.cls.predictions.decoder, base.bert.embeddings.word_embeddings
    assert decoder.weight is embeddings.weight
    adapters.merge("a", untie=True)
    assert torch.allclose(run(adapters), wanted, atol=1e-5)
    assert base.config.tie_word_embeddings is False
    assert decoder.weight is not embeddings.weight
    adapters.unmerge()
    assert base.config.tie_word_embeddings is True
    assert decoder.weight is embeddings.weight


@pytest.mark.parametrize(
    ("act", "error", "reason"),
    [
        (lambda a: a.merge("bottleneck"), UnsupportedError, "bottlenecks, which depend on their input"),
        (lambda a: a.merge("gated"), UnsupportedError, "gate"),
        (lambda a: a.merge(BatchSplit("lora", "rslora", batch_sizes=2)), UnsupportedError, "rows of a batch"),
        (lambda a: a.unmerge(), StateError, "nothing is merged"),
    ],
)
def test_what_cannot_be_merged_is_told_and_changes_nothing(
    act: Callable[[AdapterSet], object], error: type[Exception], reason: str
) -> None:
    adapters = filled(model())
    adapters.add("bottleneck", "seq_bn")
    adapters.add("gated", "lora[gating=true]")
    before = state(adapters.model)
    with pytest.raises(error, match=reason):
        act(adapters)
    assert all(torch.equal(value, before[key]) for key, value in state(adapters.model).items())


@pytest.mark.parametrize("verb", ["load", "add", "save", "merge"])
def test_while_merged_the_base_is_another_model_and_nothing_is_mixed_up_with_it(verb: str) -> None:
    adapters = filled(model())
    value = adapters.adapter("rslora")
    acts: dict[str, Callable[[], object]] = {
        "load": lambda: adapters.load(value, name="x"),
        "add": lambda: adapters.add("x", "lora"),
        "save": lambda: adapters.save("rslora", "nowhere"),
        "merge": lambda: adapters.merge("rslora"),
    }
    adapters.merge("lora")
    with pytest.raises(StateError, match=f"cannot {verb} while an adapter is merged"):
        acts[verb]()


def test_a_weight_that_was_replaced_meanwhile_is_not_overwritten() -> None:
    adapters = filled(model())
    adapters.merge("lora")
    query = adapters.model.encoder.layer[0].attention.self.query
    query.weight = nn.Parameter(query.weight.detach() + 1)
    with pytest.raises(StateError, match="was replaced by other code"):
        adapters.unmerge()


def test_detach_takes_the_merged_weights_out() -> None:
    base = model()
    before = state(base)
    adapters = filled(base)
    adapters.merge("lora")
    adapters.detach()
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
