"""(IA)³: its equations at outputs and inputs, and the laws of merging, starting and training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from maps import FLAT, KINDS, PATH, Map, attached, bound, close, make, merged, start, tensors
from tiny_models import inputs, model, with_adapters
from torch import nn

from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.loader.layout import _linear
from adapterhub.methods import IA3Config, shapes

QKV: dict[str, Any] = {"roles": ("query", "key", "value")}
VARIANTS = {
    "outputs": IA3Config(targets=(PATH,), inputs=()),
    "outputs with a factor": IA3Config(targets=(PATH,), inputs=(), alpha=2.5),
    "inputs": IA3Config(targets=(), inputs=(PATH,)),
    "both": IA3Config(targets=(PATH,), inputs=(PATH,), alphas={PATH: 0.5}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_compute_what_the_attached_adapter_does(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    if config.inputs and kind == "embedding":
        with pytest.raises(UnsupportedError, match="input are ids"):
            tensors(config, place)
        return
    own = tensors(config, place)
    output = attached(config, place, own)
    assert not close(output, place.module(place.x), 0.1)
    assert close(merged(config, place, own), output)


@pytest.mark.parametrize("kind", FLAT)
def test_it_computes_its_equation(kind: str) -> None:
    place = make(kind)
    own = tensors(VARIANTS["both"], place)
    rows, columns = own[f"{PATH}.ia3_outputs"], own[f"{PATH}.ia3_inputs"]
    bias = torch.zeros(12) if place.bias is None else place.bias
    expected = 0.5 * rows * ((columns * place.x) @ place.weight.t() + bias)
    assert close(attached(VARIANTS["both"], place, own), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_gives_the_same_within_its_rounding(variant: str, dtype: torch.dtype) -> None:
    config, place = VARIANTS[variant], make("linear")
    exact = attached(config, place, tensors(config, place))
    half = Map(place.module.to(dtype), place.linear, place.x.to(dtype))
    output = attached(config, half, tensors(config, place, dtype=dtype))
    assert output.dtype == dtype
    assert close(output, exact, 16 * torch.finfo(dtype).eps)


def test_under_autocast_the_output_keeps_its_dtype() -> None:
    place = make("linear")
    op = bound(VARIANTS["both"], place, tensors(VARIANTS["both"], place))
    with torch.autocast("cpu", torch.bfloat16):
        assert op(place.module, place.x).dtype == torch.bfloat16


@pytest.mark.parametrize("gating", [False, True])
@pytest.mark.parametrize("roles", [("query",), ("value", "key"), ("query", "key", "value")])
def test_parts_of_a_merged_map_are_scaled_and_the_others_get_the_rest(roles: tuple[str, ...], gating: bool) -> None:
    place = make("Conv1D", **QKV)
    config = IA3Config(targets=roles, inputs=(), alpha=2.0, rest=3.0, gating=gating)
    own = tensors(config, place)
    factor = torch.full((2, 1, 12), 3.0)
    for i, role in enumerate(role for role in ("query", "key", "value") if role in roles):
        at = 4 * ("query", "key", "value").index(role)
        gate = torch.ones(2, 1, 1)
        if gating:
            weight, bias = own[f"{PATH}.ia3_gate.weight"][i], own[f"{PATH}.ia3_gate.bias"][i]
            gate = torch.sigmoid(place.x @ weight + bias).mean(dim=1).view(2, 1, 1)
        factor[..., at : at + 4] = 2 * gate * own[f"{PATH}.ia3_outputs"][4 * i : 4 * i + 4]
    output = attached(config, place, own)
    assert close(output, factor * place.module(place.x))
    if gating:
        with pytest.raises(UnsupportedError, match="gate"):
            merged(config, place, own)
    else:
        assert close(merged(config, place, own), output)


def test_the_input_of_a_convolution_in_groups_is_scaled_by_channel() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(8, 12, 3, groups=4, padding=1)
    place = Map(module, _linear(PATH, module, roles=(), layer=0, cross=False), torch.randn(2, 8, 5, 5))
    own = tensors(VARIANTS["both"], place)
    output = attached(VARIANTS["both"], place, own)
    rows, columns = (own[f"{PATH}.ia3_{name}"].view(-1, 1, 1) for name in ("outputs", "inputs"))
    assert close(output, 0.5 * rows * module(columns * place.x))
    assert close(merged(VARIANTS["both"], place, own), output)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["outputs", "inputs"])
def test_a_new_adapter_changes_nothing(variant: str, kind: str) -> None:
    if kind != "embedding" or variant == "outputs":
        config, place = VARIANTS[variant], make(kind)
        own = start(config, place)
        assert {key: tuple(t.shape) for key, t in own.items()} == shapes([config], place.layout)
        assert torch.equal(attached(config, place, own), place.module(place.x))


def test_the_preset_is_that_of_the_paper() -> None:
    layout = attach(model())._ground.layout
    layer = "encoder.layer.0"
    found = {key: shape for key, shape in shapes([IA3Config()], layout).items() if key.startswith(layer)}
    assert found == {
        f"{layer}.attention.self.key.ia3_outputs": (32,),
        f"{layer}.attention.self.value.ia3_outputs": (32,),
        f"{layer}.output.dense.ia3_inputs": (64,),
    }


def test_gradients_reach_every_vector_and_nothing_else() -> None:
    base = model()
    adapters = with_adapters(base, a="ia3[gating=true]")
    trained = adapters.train("a")
    base(**inputs()).last_hidden_state.square().sum().backward()
    assert len(trained) == 3 * 7
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None for p in base.parameters() if not any(p is one for one in trained))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="targets and inputs are empty"):
        IA3Config(targets=(), inputs=())
    with pytest.raises(UsageError, match="alphas"):
        IA3Config(alphas={"key": 1e200})
    with pytest.raises(UsageError, match="valeu"):
        tensors(dataclasses.replace(VARIANTS["outputs"], alphas={"valeu": 2.0}), make("linear"))
    place = make("Conv1D", **QKV)
    with pytest.raises(UnsupportedError, match=f"name the module {PATH} in inputs"):
        tensors(IA3Config(targets=(), inputs=("query",)), place)
    with pytest.raises(UnsupportedError, match="gate has no meaning"):
        tensors(dataclasses.replace(VARIANTS["outputs"], gating=True), make("embedding"))
