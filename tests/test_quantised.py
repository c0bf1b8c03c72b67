"""Quantised bases: adapters act on what a map computes, whatever holds its weight; what needs its numbers is refused.

The maps stand for those of bitsandbytes (whole numbers, packed into another shape) and of torchao and quanto (a class
of tensors): both were tried, and differ from these in how they compute only.
"""

from __future__ import annotations

import pytest
import torch
from tiny_models import answers, family, family_inputs, with_adapters
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import PreTrainedModel

from adapterhub.errors import BaseMismatchError, UnsupportedError
from adapterhub.loader import attach

STEP = 1 / 64

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


class Packed(nn.Module):
    """A map whose weight is kept as bytes, two dimensions folded into one."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        whole = (linear.weight.detach() / STEP).round().clamp(-127, 127).to(torch.int8)
        self.weight = nn.Parameter(whole.reshape(-1, 1), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype).mul(STEP).view(self.out_features, self.in_features)
        return nn.functional.linear(x, weight, self.bias)


class PackedLinear(Packed, nn.Linear):  # type: ignore[misc]  # the weight is of whole numbers
    """The same as a subclass of Linear, as bitsandbytes has it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)


def subclassed(linear: nn.Linear) -> nn.Linear:
    """A Linear whose weight is a tensor of another class, as torchao has it."""
    linear.weight = nn.Parameter(TwoTensor(linear.weight.detach(), linear.weight.detach()), requires_grad=False)
    return linear


def rounded(base: PreTrainedModel, kind: str) -> PreTrainedModel:
    """Return the model, the weights of its layers in steps, and kept in some kind of map."""
    for path, module in list(base.named_modules()):
        if type(module) is nn.Linear and "layer" in path:
            with torch.no_grad():
                module.weight.copy_((module.weight / STEP).round().clamp(-127, 127) * STEP)
            if kind != "plain":
                parent, _, name = path.rpartition(".")
                made = PackedLinear(module) if kind == "packed" else subclassed(module)
                setattr(base.get_submodule(parent), name, made)
    return base


@pytest.mark.parametrize("kind", ["packed", "subclassed"])
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("method", ADDING)
def test_an_adapter_acts_on_a_quantised_base_as_on_one_with_the_same_numbers(method: str, name: str, kind: str) -> None:
    plain = with_adapters(rounded(family(name), "plain"), a=method)
    batch = family_inputs(plain.model)
    plain.activate("a")
    base = rounded(family(name), kind)
    before = answers(base, batch)
    adapters = attach(base)
    adapters.load(plain.adapter("a"), name="a", set_active=True)
    assert torch.allclose(answers(base, batch), answers(plain.model, batch), atol=1e-5)
    assert not torch.allclose(answers(base, batch), before, atol=1e-3)
    if method != "layer_norm":
        with pytest.raises(UnsupportedError, match=r"is quantised|depend on their input"):
            adapters.merge("a")
    adapters.detach()
    assert torch.equal(answers(base, batch), before)


@pytest.mark.parametrize("kind", ["packed", "subclassed"])
@pytest.mark.parametrize("method", READING)
def test_what_needs_the_numbers_of_a_quantised_weight_is_refused(method: str, kind: str) -> None:
    plain = with_adapters(rounded(family("bert"), "plain"), a=method)
    adapters = attach(rounded(family("bert"), kind))
    for act in (
        lambda: adapters.load(plain.adapter("a"), name="a", set_active=True),
        lambda: adapters.add("b", method),
    ):
        with pytest.raises(UnsupportedError, match=r"needs the numbers of its weight, which is quantised"):
            act()
    assert adapters.active is None


def test_an_adapter_made_on_a_quantised_base_is_known_again_on_a_plain_one() -> None:
    adapters = with_adapters(rounded(family("bert"), "packed"), a="lora[r=2]")
    plain = attach(rounded(family("bert"), "plain"))
    plain.load(adapters.adapter("a"), name="a")
    with pytest.raises(BaseMismatchError, match="made for another base model"):
        attach(family("bert", seed=1)).load(adapters.adapter("a"), name="a")
