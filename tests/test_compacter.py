"""Compacter: its weights are the sums of Kronecker products that the papers define, never older than its parameters."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import family, hidden, inputs, model, randomise, with_adapters

from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.composition import Average, Split, Stack
from adapterhub.converters import adapters as adapters_format
from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import (
    BottleneckConfig,
    CompacterConfig,
    configs_from_json,
    describe,
    parse_method,
)
from adapterhub.methods.compacter import Phm, PhmBottleneck
from adapterhub.methods.config import field_types

SHARED = "compacter[reduction_factor=4,phm_dim=2,phm_rank=2]"
OPTIONS = (
    SHARED,
    "compacter++[reduction_factor=4,phm_dim=4,factorized_phm_W=false,shared_phm_rule=false]",
    "compacter[reduction_factor=4,shared_W_phm=true,factorized_phm_rule=true,phm_bias=false]",
    "compacter[reduction_factor=4,shared_W_phm=true,factorized_phm_W=false,shared_phm_rule=false]",
    "compacter++[reduction_factor=4,factorized_phm_rule=true,shared_phm_rule=false,ln_before=true,use_gating=true]",
    "compacter++[reduction_factor=4,is_parallel=true,scaling=learned]",
)


@pytest.fixture(params=OPTIONS)
def adapters(request: pytest.FixtureRequest) -> AdapterSet:
    found = with_adapters(model(), x=request.param)
    found.activate("x")
    return found


def bank(adapters: AdapterSet) -> dict[str, torch.Tensor]:
    return dict(adapters._loaded["x"].bank.tensors())


def operations(adapters: AdapterSet) -> dict[str, Any]:
    return dict(adapters._loaded.binding(adapters._loaded["x"]).sites)


@given(
    st.builds(
        CompacterConfig,
        mh_adapter=st.booleans(),
        output_adapter=st.just(True),
        reduction_factor=st.sampled_from([2, 8.5]),
        non_linearity=st.just("gelu"),
        phm_dim=st.integers(1, 8),
        phm_rank=st.integers(1, 8),
        factorized_phm_W=st.booleans(),
        shared_W_phm=st.booleans(),
        shared_phm_rule=st.booleans(),
        factorized_phm_rule=st.booleans(),
        phm_c_init=st.sampled_from(["normal", "uniform"]),
        phm_init_range=st.floats(0, 1),
        learn_phm=st.booleans(),
        hypercomplex_nonlinearity=st.sampled_from(["phm", "glorot-normal", "glorot-uniform", "normal"]),
        phm_bias=st.booleans(),
    )
)
def test_a_configuration_comes_back_from_its_json_and_from_its_string(config: CompacterConfig) -> None:
    assert configs_from_json([config.to_json()]) == (config,)
    assert parse_method(describe([config])) == (config,)


def test_the_names_of_the_papers_variants_are_known() -> None:
    assert parse_method("compacter++[phm_dim=2]+layer_norm")[0] == parse_method("compacter++[phm_dim=2]")[0]
    single, double = parse_method("compacter++|compacter")
    assert isinstance(single, CompacterConfig)
    assert isinstance(double, CompacterConfig)
    assert (single.mh_adapter, double.mh_adapter) == (False, True)


def test_the_weight_is_the_transposed_sum_of_kronecker_products() -> None:
    rule, w = torch.randn(4, 4, 4), torch.randn(4, 6, 2)
    expected = sum(torch.kron(a, b) for a, b in zip(rule, w, strict=True))
    assert torch.allclose(Phm((rule,), (w,), None)(), torch.as_tensor(expected).t(), atol=1e-6)
    factors = torch.randn(4, 4, 1), torch.randn(4, 1, 4)
    outer = torch.stack([a @ b for a, b in zip(*factors, strict=True)])
    assert torch.allclose(Phm(factors, (w,), None)(), Phm((outer,), (w,), None)(), atol=1e-6)


def test_compacter_is_the_bottleneck_with_its_dense_weights(adapters: AdapterSet) -> None:
    expected = hidden(adapters.model)
    config = adapters.adapter("x").config[0]
    tensors: dict[str, torch.Tensor] = {}
    fields = {name: value for name, value in config.to_json().items() if name in field_types(BottleneckConfig)}
    plain = configs_from_json([{**fields, "method": "bottleneck"}])
    for path, op in operations(adapters).items():
        for way, (weight, bias) in (("down", op.plain().down), ("up", op.plain().up)):
            tensors |= {f"{path}.bottleneck_{way}.weight": weight, f"{path}.bottleneck_{way}.bias": bias}
    tensors |= {key: tensor for key, tensor in bank(adapters).items() if ".bottleneck_" in key}
    manifest = Manifest(name="same", base=Base(architecture="bert"))
    same = Adapter(plain, {key: t.detach() for key, t in tensors.items()}, manifest)
    adapters.load(same, set_active=True)
    assert torch.equal(hidden(adapters.model), expected)


def test_every_write_to_a_parameter_is_seen(adapters: AdapterSet) -> None:
    seen = [hidden(adapters.model)]

    def changed() -> bool:
        seen.append(hidden(adapters.model))
        assert torch.equal(seen[-1], hidden(adapters.model))  # kept, and the same
        return not torch.equal(seen[-1], seen[-2])

    for key, parameter in bank(adapters).items():
        if key.rpartition(".")[2].startswith(("W", "rule", "phm_rule")):
            with torch.no_grad():
                parameter.mul_(1.5)
            assert changed(), key
            parameter.data = parameter.data * 0.7
            assert changed(), key
            parameter.data = parameter.data.clone()
            assert not changed(), key
            parameter.data.mul_(1.2)  # past autograd
            assert changed(), key
    adapters.model.load_state_dict({k: v * 1.1 if "W" in k else v for k, v in adapters.model.state_dict().items()})
    assert changed()


def test_a_step_of_an_optimizer_is_seen_in_training_and_behind_it(adapters: AdapterSet) -> None:
    base = adapters.model
    optimizer = torch.optim.SGD(adapters.train("x"), lr=0.5)
    before = hidden(base)
    base.train()
    base(**inputs()).last_hidden_state.square().sum().backward()
    optimizer.step()
    base.eval()
    after = hidden(base)
    assert not torch.equal(after, before)
    fresh = attach(model())
    fresh.load(adapters.adapter("x"), set_active=True)
    assert torch.equal(hidden(fresh.model), after)


def test_a_copy_of_the_model_computes_with_its_own_weights(adapters: AdapterSet) -> None:
    before = hidden(adapters.model)
    key = next(key for key in bank(adapters) if key.endswith(("W", "W_left")))
    with torch.no_grad():
        bank(adapters)[key].mul_(2)
    for twin in (copy.deepcopy(adapters.model), pickle.loads(pickle.dumps(adapters.model))):
        assert torch.equal(hidden(twin), hidden(adapters.model))
        assert not torch.equal(hidden(twin), before)


def test_what_inference_mode_made_serves_gradients_behind_it(adapters: AdapterSet) -> None:
    with torch.inference_mode():
        first = adapters.model(**inputs()).last_hidden_state
    embeds = torch.randn(2, 4, 32, requires_grad=True)
    adapters.model(inputs_embeds=embeds).last_hidden_state.sum().backward()
    assert embeds.grad is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden(adapters.model)
    assert torch.equal(hidden(adapters.model), first)


def test_rules_that_are_not_learnt_stay_while_the_rest_trains() -> None:
    for option in ("", ",shared_phm_rule=false", ",factorized_phm_rule=true"):
        adapters = with_adapters(model(), x=f"compacter[reduction_factor=4,learn_phm=false{option}]")
        trained = {id(p) for p in adapters.train("x")}
        assert all((id(p) in trained) == ("rule" not in key) for key, p in bank(adapters).items())


def test_a_weight_shared_without_factors_is_not_written_where_the_library_fails_to_make_it() -> None:
    made = with_adapters(model(), x="compacter[reduction_factor=4,shared_W_phm=true,factorized_phm_W=false]").adapter(
        "x"
    )
    with pytest.raises(UnsupportedError, match="fails to make it"):
        adapters_format.encode(made)


@pytest.mark.parametrize(
    "text", [option for option in OPTIONS if "shared_W_phm=true,factorized_phm_W=false" not in option]
)
def test_an_adapter_made_here_survives_the_format(text: str) -> None:
    made = with_adapters(model(), x=text).adapter("x")
    again = adapters_format.decode(adapters_format.encode(made))
    assert again.config == made.config
    assert again.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in made.tensors.items())


def test_gradients_reach_every_tensor(adapters: AdapterSet) -> None:
    trained = adapters.train("x")
    adapters.model(**inputs()).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_shared_tensors_stand_once_for_the_whole_adapter() -> None:
    adapters = attach(model())
    adapters.add("x", "compacter[reduction_factor=4,shared_W_phm=true]")
    keys = [key for key in adapters.adapter("x").tensors if key.startswith("shared.")]
    weights = [f"shared.phm_{way}.W_{part}" for way in ("down", "up") for part in ("left", "right")]
    assert sorted(keys) == sorted(["shared.phm_rule", *weights])


def test_start_values_are_near_the_identity_and_follow_their_rules() -> None:
    base = model()
    adapters = attach(base)
    before = hidden(base)
    adapters.add("x", "compacter[reduction_factor=4,init_weights_seed=3]", set_active=True)
    assert (hidden(base) - before).abs().max() < 1e-2
    adapters.add("y", "compacter[reduction_factor=4,init_weights_seed=3]")
    mine, yours = adapters.adapter("x").tensors, adapters.adapter("y").tensors
    assert all(torch.equal(mine[key], yours[key]) for key in mine)
    adapters.add("z", "compacter[reduction_factor=4,phm_c_init=uniform,hypercomplex_nonlinearity=normal]")
    tensors = adapters.adapter("z").tensors
    assert 0.3 < tensors["shared.phm_rule"].std() < 0.8
    assert all(t.std() < 1e-3 for key, t in tensors.items() if ".W_" in key)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("compacter[reduction_factor=4,phm_dim=3]", "phm_dim 3 must divide the hidden size 32"),
        ("compacter[reduction_factor=16]", "bottleneck's size 2"),
        ('compacter[shared_W_phm=true,phm_dim=2,reduction_factor={"0":4,"default":8}]', "one size"),
        ("compacter[init_weights=houlsby]", "init_weights 'houlsby' is not defined"),
        ("compacter[phm_dim=0]", "phm_dim is 0"),
        ("compacter[phm_rank=100000]", "phm_rank is 100000"),
        ("compacter[phm_init_range=-1]", "phm_init_range"),
        ("compacter[phm_c_init=zero]", "'normal' or 'uniform'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(model()).add("x", text)


def test_two_compacters_of_a_union_do_not_share_what_each_has_for_itself() -> None:
    with pytest.raises(UsageError, match=r"claim shared\.phm_rule"):
        attach(model()).add("x", "compacter++[reduction_factor=4]+compacter[reduction_factor=4,output_adapter=false]")


def test_leaving_out_a_sum_that_the_model_makes_itself_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="original_ln_after"):
        attach(family("gemma2")).add("x", "compacter[reduction_factor=4,original_ln_after=false]")


def test_compacters_go_into_compositions_like_other_bottlenecks() -> None:
    base = model()
    adapters = with_adapters(base, a=SHARED, b="compacter++[reduction_factor=8,phm_dim=2]", c="seq_bn")
    batch = inputs()
    rows: list[torch.Tensor] = []
    for i, name in enumerate(["a", "b", None, "c"]):
        with adapters.using(name):
            rows.append(hidden(base, batch)[i])
    with adapters.per_row(["a", "b", None, "c"]):
        assert torch.allclose(hidden(base, batch), torch.stack(rows), atol=1e-5)
    names = ["a", "b"] * 10
    many = {key: x[:1].repeat(20, 1) for key, x in batch.items()}
    with adapters.per_row(names):
        mixed = hidden(base, many)
    for i, name in ((0, "a"), (1, "b")):
        with adapters.using(name):
            assert torch.allclose(mixed[i::2], hidden(base, many)[i::2], atol=1e-5)
    with adapters.using("a"):
        alone = hidden(base)
    for setup in (Average("a", "a"), Split("a", "a", splits=[4, 5])):
        with adapters.using(setup):
            assert torch.allclose(hidden(base), alone, atol=1e-5)
    with adapters.using(Stack("a", "b")):
        assert not torch.allclose(hidden(base), alone, atol=1e-3)


def test_rows_that_are_computed_at_once_are_those_of_alike_compacters() -> None:
    adapters = with_adapters(model(), x=SHARED)
    op = next(iter(operations(adapters).values()))
    assert isinstance(op, PhmBottleneck)
    assert isinstance(op.config, CompacterConfig)
    biased = dataclasses.replace(op.config, phm_bias=False)
    assert op.alike == next(iter(operations(adapters).values())).alike
    assert op.alike != PhmBottleneck(biased, _tensors(op), op.mode, _site(adapters)).alike


def _tensors(op: PhmBottleneck) -> dict[str, torch.Tensor]:
    names = ("phm_down", "phm_up")
    tensors = {
        f"{name}.{leaf}": part
        for name, phm in zip(names, op.maps, strict=True)
        for leaf, part in zip(("W_left", "W_right"), phm.weight, strict=True)
    }
    return {"phm_rule": op.maps[0].rule[0], **tensors}


def _site(adapters: AdapterSet) -> Any:
    return adapters._ground.layout.sites[0]


def test_an_adapter_is_the_same_from_its_file(tmp_path: Path) -> None:
    adapters = with_adapters(model(), x=SHARED)
    randomise(adapters, "x", seed=9)
    adapters.activate("x")
    path = adapters.save("x", tmp_path / "x.safetensors")
    again = attach(model())
    again.load(path, set_active=True)
    assert torch.equal(hidden(again.model), hidden(adapters.model))
