"""Quantised bases: adapters act on what a map computes, whatever holds its weight; what needs its numbers is refused.

The maps are those of bitsandbytes, of four bits (packed into another shape) and of eight. A tensor of torch's own tests
stands for those of torchao and quanto, which are classes of tensors; torchao itself was tried, and acts the same.
"""

from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch
from tiny_models import answers, family, family_inputs, with_adapters
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import PreTrainedModel

from adapterhub.errors import BaseMismatchError, UnsupportedError
from adapterhub.loader import attach

KINDS = ("nf4", "int8", "subclassed")

ADDING = (
    "seq_bn[reduction_factor=4]",
    "compacter[phm_dim=2,reduction_factor=4]",
    'lora[r=2,targets=["all-linear"]]',
    "vera[r=2]",
    "ia3",
    "mtl_lora[r=2]",
    "prefix_tuning[prefix_length=2,bottleneck_size=3]",
    "loreft[r=2]",
    "layer_norm",
    "loha[r=2]",
    "lokr[r=2]",
    "oft[block_size=4]",
    "c3a[block_size=8]",
    "shira[r=2]",
    "delora[r=2]",
)
READING = ("dora[r=2]", "boft[block_size=4]", "hira[r=2]", "peanut[r=2]", "deft[r=2]", "glora[r=2]")


def packed(path: str, plain: nn.Module, kind: str) -> nn.Linear:
    """Return a map of bitsandbytes for a Linear of a model, whose weight becomes what the map stands for."""
    linear = plain.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    sizes, bias = (linear.in_features, linear.out_features), linear.bias is not None
    if kind == "nf4":
        made = bnb.nn.Linear4bit(*sizes, bias=bias, compute_dtype=torch.float32, quant_type="nf4")
    else:
        made = bnb.nn.Linear8bitLt(*sizes, bias=bias, has_fp16_weights=False)
    made.load_state_dict(linear.state_dict())
    made.to("cpu")  # which quantises
    weight = made.weight
    with torch.no_grad():
        if kind == "nf4":
            linear.weight.copy_(bnb.functional.dequantize_4bit(weight.data, weight.quant_state))
        else:
            linear.weight.copy_(weight.data * weight.SCB[:, None] / 127)
    return made


def subclassed(linear: nn.Linear) -> nn.Linear:
    """A Linear whose weight is a tensor of another class, as torchao has it."""
    linear.weight = nn.Parameter(TwoTensor(linear.weight.detach(), linear.weight.detach()), requires_grad=False)
    return linear


def pair(name: str, kind: str, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a model whose layers are quantised, and a plain one of the same numbers."""
    plain, base = family(name, seed=seed), family(name, seed=seed)
    for path, module in list(base.named_modules()):
        if type(module) is nn.Linear and "layer" in path:
            made = subclassed(module) if kind == "subclassed" else packed(path, plain, kind)
            parent, _, last = path.rpartition(".")
            setattr(base.get_submodule(parent), last, made)
    return base, plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("method", ADDING)
def test_an_adapter_acts_on_a_quantised_base_as_on_one_with_the_same_numbers(method: str, name: str, kind: str) -> None:
    base, model = pair(name, kind)
    plain = with_adapters(model, a=method)
    batch = family_inputs(model)
    plain.activate("a")
    before = answers(base, batch)
    adapters = attach(base)
    adapters.load(plain.adapter("a"), name="a", set_active=True)
    assert torch.allclose(answers(base, batch), answers(model, batch), atol=1e-5)
    assert not torch.allclose(answers(base, batch), before, atol=1e-3)
    if method != "layer_norm":
        with pytest.raises(UnsupportedError, match=r"is quantised|depend on their input"):
            adapters.merge("a")
    adapters.detach()
    assert torch.equal(answers(base, batch), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", READING)
def test_what_needs_the_numbers_of_a_quantised_weight_is_refused(method: str, kind: str) -> None:
    base, model = pair("bert", kind)
    plain, adapters = with_adapters(model, a=method), attach(base)
    with pytest.raises(UnsupportedError, match="needs the numbers of its weight, which is quantised"):
        adapters.load(plain.adapter("a"), name="a", set_active=True)
    with pytest.raises(UnsupportedError, match="needs the numbers of its weight, which is quantised"):
        adapters.add("b", method)
    assert adapters.active is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_made_on_a_quantised_base_is_known_again_on_a_plain_one(kind: str) -> None:
    base, model = pair("bert", kind)
    adapters = with_adapters(base, a="lora[r=2]")
    plain = attach(model)
    plain.load(adapters.adapter("a"), name="a")
    with pytest.raises(BaseMismatchError, match="made for another base model"):
        attach(family("bert", seed=1)).load(adapters.adapter("a"), name="a")
