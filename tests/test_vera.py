"""VeRA and DVoRA in both forms, and MTL-LoRA: their equations, and the laws of merging, starting and training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from maps import FLAT, KINDS, PATH, attached, bound, close, make, merged, start, tensors
from tiny_models import cast, hidden, inputs, model, with_adapters
from torch import Tensor

from adapterhub.adapter import MethodConfig
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.methods import MtlLoraConfig, VeraConfig, shapes
from adapterhub.methods.vera import projections

VECTORS = VeraConfig(targets=(PATH,), r=4, alpha=6.0)
MATRICES = dataclasses.replace(VECTORS, form="matrices")
VARIANTS: dict[str, MethodConfig] = {
    "VeRA": VECTORS,
    "VeRA with matrices": MATRICES,
    "DVoRA": dataclasses.replace(VECTORS, magnitude="dora"),
    "DVoRA of adapters": dataclasses.replace(MATRICES, magnitude="dora_adapters"),
    "MTL-LoRA": MtlLoraConfig(targets=(PATH,), r=4, alpha=6.0, ups=3, sharpness=0.7),
    "MTL-LoRA with a matrix": MtlLoraConfig(targets=(PATH,), r=4, alpha=6.0, ups=2, task_matrix="linear"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_compute_what_the_attached_adapter_does(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    if kind not in FLAT:
        with pytest.raises(UnsupportedError, match=f"has no meaning at {PATH}, which is a {place.linear.kind}"):
            tensors(config, place)
        return
    own = tensors(config, place)
    output = attached(config, place, own)
    assert not close(output, place.module(place.x), 0.1)
    assert close(merged(config, place, own), output)


def delta_of(config: MethodConfig, own: dict[str, Tensor]) -> Tensor:
    """Return B A (outputs, inputs) as the equations have it."""
    part = {key.removeprefix(f"{PATH}."): tensor for key, tensor in own.items()}
    if isinstance(config, VeraConfig):
        d, b = part["vera_d"], part["vera_b"]
        d, b = (d.diag(), b.diag()) if config.form == "vectors" else (d, b)
        return b @ part["shared.vera_B"] @ d @ part["shared.vera_A"]
    assert isinstance(config, MtlLoraConfig)
    task = part["mtl_task"].diag() if config.task_matrix == "singular_values" else part["mtl_task"]
    weights = (part["mtl_weights"] / config.sharpness).exp()
    found: Tensor = sum(
        (weight / weights.sum() * b @ task @ part["mtl_A"] for weight, b in zip(weights, part["mtl_B"], strict=True)),
        torch.zeros(12, 10),
    )
    return found


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_computes_its_equation(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    own = tensors(config, place)
    delta, bias = delta_of(config, own), torch.zeros(12) if place.bias is None else place.bias
    weight = place.weight + 1.5 * delta
    if variant == "DVoRA":
        weight = own[f"{PATH}.vera_magnitude"][:, None] * weight / weight.norm(dim=1, keepdim=True)
    expected = place.x @ weight.t() + bias
    if variant == "DVoRA of adapters":
        expected = expected * own[f"{PATH}.vera_magnitude"] / (place.weight + delta).norm(dim=1)
    assert close(attached(config, place, own), expected)


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_adapter_changes_nothing(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    own = start(config, place)
    assert {key: tuple(t.shape) for key, t in own.items()} == shapes([config], place.layout)
    assert close(attached(config, place, own), place.module(place.x), 1e-6)


def test_what_vera_starts_from_can_be_chosen() -> None:
    place = make("linear")
    for form in ("vectors", "matrices"):
        config = dataclasses.replace(VECTORS, form=form, d_initial=0.5, b_initial=2.0, init_weights_seed=1)
        own = start(config, place)
        expected = place.module(place.x) + 1.5 * place.x @ own["shared.vera_A"].t() @ own["shared.vera_B"].t()
        assert close(attached(config, place, own), expected)
        assert all(torch.equal(tensor, start(config, place)[key]) for key, tensor in own.items())


@pytest.mark.parametrize("config", [VECTORS, MATRICES, VARIANTS["MTL-LoRA"]])
def test_a_gate_is_the_mean_of_a_sigmoid_over_the_tokens(config: Any) -> None:
    place = make("linear")
    gated = dataclasses.replace(config, gating=True)
    own = tensors(gated, place)
    delta = attached(config, place, own) - place.module(place.x)
    weight, bias = (next(t for key, t in own.items() if key.endswith(f"gate.{name}")) for name in ("weight", "bias"))
    gate = torch.sigmoid(place.x @ weight.t() + bias).mean(dim=1, keepdim=True)
    assert close(attached(gated, place, own), place.module(place.x) + gate * delta)
    with pytest.raises(UnsupportedError, match="gate"):
        bound(gated, place, own).merged(place.weight, place.bias)


def test_dropout_acts_in_training_only() -> None:
    place = make("linear")
    for config in (VECTORS, MATRICES, VARIANTS["MTL-LoRA"]):
        own = tensors(config, place)
        dropping = dataclasses.replace(config, dropout=0.5)  # type: ignore[type-var]
        assert torch.equal(attached(dropping, place, own), attached(config, place, own))
        torch.manual_seed(0)
        op = bound(dropping, place, own, training=True)
        assert not torch.equal(op(place.module, place.x), op(place.module, place.x))


def test_maps_of_different_sizes_take_their_part_of_the_shared_pair() -> None:
    base = model()
    adapters = with_adapters(base, a='vera[r=5,targets=["query","intermediate","output"]]')
    own = adapters.adapter("a").tensors
    assert own["shared.vera_A"].shape == (5, 64)
    assert own["shared.vera_B"].shape == (64, 5)
    path = "encoder.layer.2.output.dense"
    adapters.activate("a")
    x = torch.randn(2, 3, 64)
    delta = (
        own[f"{path}.vera_b"].diag() @ own["shared.vera_B"][:32] @ own[f"{path}.vera_d"].diag() @ own["shared.vera_A"]
    )
    linear = base.encoder.layer[2].output.dense
    # No alpha, a scale of 1.
    assert close(linear(x), x @ (linear.weight + delta).t() + linear.bias)


def test_matrices_cannot_serve_maps_of_different_sizes() -> None:
    adapters = attach(model())
    with pytest.raises(UnsupportedError, match=r"cannot serve encoder\.layer\.0.*\(32 × 32\) and .*\(64 × 32\)"):
        adapters.add("a", 'vera[form=matrices,targets=["query","intermediate"]]')
    assert adapters.names == ()


def test_the_random_matrices_stay_as_they_are_in_training() -> None:
    for text in ("vera[r=4]", "vera[r=4,form=matrices]", "dvora[r=4]", "mtl_lora[ups=2]"):
        base = model()
        adapters = with_adapters(base, a=text)
        own = adapters.adapter("a").tensors
        trained = adapters.train("a")
        base(**inputs()).last_hidden_state.square().sum().backward()
        assert len(trained) == len(own) - (0 if text.startswith("mtl") else 2)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained), text
        assert all(p.grad is None for p in base.parameters() if not any(p is one for one in trained))


def test_matrices_that_are_drawn_follow_the_model_to_another_dtype() -> None:
    base = model()
    adapters = with_adapters(base, a="vera[r=4,projection_seed=1]")
    assert "shared.vera_A" not in adapters.adapter("a").tensors
    adapters.activate("a")
    exact = hidden(base)
    assert close(hidden(cast(base, torch.bfloat16)), exact, 0.05)


def test_parts_of_a_merged_map_are_refused_by_name() -> None:
    place = make("Conv1D", roles=("query", "key", "value"))
    for config in (VeraConfig(r=4), MtlLoraConfig()):
        with pytest.raises(UnsupportedError, match=f"name the module {PATH}"):
            tensors(config, place)


def test_the_projections_are_drawn_as_peft_draws_them() -> None:
    a, b = projections((2, 3), (4, 2), torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    bound_a, bound_b = (6 / 3) ** 0.5, (6 / 2) ** 0.5
    assert torch.equal(a, torch.empty(2, 3).uniform_(-bound_a, bound_a, generator=generator))
    assert torch.equal(b, torch.empty(4, 2).uniform_(-bound_b, bound_b, generator=generator))


@pytest.mark.parametrize(
    ("make_config", "fields", "says"),
    [
        (VeraConfig, {"r": 10**9}, "r is 1000000000"),
        (VeraConfig, {"d_initial": float("inf")}, "d_initial"),
        (VeraConfig, {"gating": True, "magnitude": "dora"}, "exclude"),
        (VeraConfig, {"form": "both"}, "'vectors' or 'matrices'"),
        (VeraConfig, {"targets": ()}, "targets is empty"),
        (MtlLoraConfig, {"ups": 0}, "ups is 0"),
        (MtlLoraConfig, {"ups": 10**9}, "ups is 1000000000"),
        (MtlLoraConfig, {"sharpness": 0.0}, "sharpness"),
        (MtlLoraConfig, {"task_matrix": "diagonal"}, "'singular_values' or 'linear'"),
        (MtlLoraConfig, {"dropout": -0.1}, "dropout"),
    ],
)
def test_values_that_make_no_sense_are_refused(make_config: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(**fields)
