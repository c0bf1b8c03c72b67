"""Configurations of methods: strings, JSON, checks, shapes; and the mathematics of a bottleneck, written out again."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import hidden, inputs, model, with_adapters
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from transformers.activations import ACT2FN

from adapterhub.errors import UnsupportedError, UsageError
from adapterhub.methods import (
    METHODS,
    PRESETS,
    BottleneckConfig,
    ClassificationHeadConfig,
    configs_from_json,
    describe,
    parse_method,
    shapes,
)
from adapterhub.methods.activations import NAMES, WITH_WEIGHTS, function
from adapterhub.sites import Layout, Norm, Site

LAYOUT = Layout(
    architecture="bert",
    layers=2,
    width=32,
    sites=tuple(
        Site(path=f"{i}.{role}", role=role, layer=i, width=32, output="o", residual="r", norm="n")
        for i in range(2)
        for role in ("attention", "feed_forward")
    ),
    norms=(Norm(path="norm", layer=None, shapes={"weight": (32,), "bias": (32,)}),),
    pooler=True,
)


@st.composite
def bottlenecks(draw: st.DrawFn) -> BottleneckConfig:
    """Any configuration that is valid."""
    factor = st.floats(0.5, 64, allow_nan=False)
    before = draw(st.booleans())
    where = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return BottleneckConfig(
        mh_adapter=where[0],
        output_adapter=where[1],
        reduction_factor=draw(factor | st.fixed_dictionaries({"0": factor, "default": factor})),
        non_linearity=draw(st.sampled_from(NAMES)),
        original_ln_before=before,
        original_ln_after=draw(st.booleans()),
        ln_before=draw(st.booleans()),
        ln_after=draw(st.booleans()),
        residual_before_ln=draw(st.sampled_from([True, False, "post_add"] if before else [True, False])),
        adapter_residual_before_ln=draw(st.booleans()),
        is_parallel=draw(st.booleans()),
        scaling=draw(st.floats(-4, 4) | st.sampled_from(["learned", "channel"])),
        use_gating=draw(st.booleans()),
        leave_out=tuple(draw(st.lists(st.integers(0, 3), max_size=2, unique=True))),
        dropout=draw(st.floats(0, 0.9)),
        init_weights=draw(st.sampled_from(["bert", "houlsby", "mam_adapter"])),
        init_weights_seed=draw(st.none() | st.integers(0, 2**31)),
    )


@given(bottlenecks())
def test_a_configuration_comes_back_from_its_json_and_from_its_string(config: BottleneckConfig) -> None:
    assert configs_from_json([config.to_json()]) == (config,)
    assert parse_method(describe([config])) == (config,)


def test_every_preset_comes_back_from_its_string() -> None:
    for name, preset in PRESETS.items():
        assert parse_method(name) == preset
        assert parse_method(describe(preset)) == preset


def test_a_list_may_have_bare_words() -> None:
    assert parse_method("lora[targets=[query, key],r=4]") == parse_method('lora[targets=["query","key"],r=4]')
    assert parse_method("seq_bn[leave_out=[0,1]]") != parse_method("seq_bn[leave_out=[0]]")
    with pytest.raises(UsageError, match="expected a list"):
        parse_method("lora[targets=[[query]]]")


def test_unions_are_joined_by_plus_or_bar() -> None:
    assert parse_method("double_seq_bn+layer_norm") == parse_method("double_seq_bn | layer_norm")
    assert [c.method for c in parse_method("double_seq_bn+layer_norm")] == ["bottleneck", "layer_norm"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("doubl_seq_bn", "did you mean double_seq_bn"),
        ("seq_bn[reduction_factor]", "not field=value"),
        ("seq_bn[reduction_factor=8", "open"),
        ("seq_bn]", "not opened"),
        ("seq_bn[size=8]", "unknown field size"),
        ("seq_bn[reduction_factor=0]", "positive"),
        ("seq_bn[reduction_factor=NaN]", "expected a number"),
        ("seq_bn[reduction_factor=true]", "expected a number"),
        ('seq_bn[reduction_factor={"a":2}]', "layer index"),
        ("seq_bn[non_linearity=rleu]", "unknown"),
        ("seq_bn[dropout=1.0]", r"\[0, 1\)"),
        ("seq_bn[scaling=big]", "learned"),
        ("double_seq_bn[residual_before_ln=post_add]", "original_ln_before"),
        ("seq_bn[output_adapter=false]", "must be true"),
        ("classification_head[num_labels=0]", "at least 1"),
        ("", "no method is called"),
    ],
)
def test_a_string_that_cannot_be_used_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_method(text)


def test_activations_with_weights_of_their_own_are_refused_by_name() -> None:
    for name in WITH_WEIGHTS:
        with pytest.raises(UnsupportedError, match=name):
            parse_method(f"seq_bn[non_linearity={name}]")


def test_every_activation_of_transformers_is_known_and_computes_the_same() -> None:
    assert set(NAMES) | set(WITH_WEIGHTS) == set(ACT2FN) | {"leakyrelu"}
    x = torch.linspace(-4, 4, 101)
    for name in set(NAMES) - {"leakyrelu"}:
        assert torch.allclose(function(name)(x), ACT2FN[name](x), atol=2e-6), name
        assert torch.equal(function(name.upper())(x), function(name)(x))


@given(bottlenecks())
@settings(max_examples=50)
def test_start_values_have_exactly_the_shapes_of_the_account(config: BottleneckConfig) -> None:
    for method in METHODS:
        if method.config is BottleneckConfig:
            found = method.initial(config, LAYOUT, lambda path: torch.zeros(32))
            assert {key: tuple(t.shape) for key, t in found.items()} == shapes([config], LAYOUT)


def test_a_site_has_2md_d_m_parameters() -> None:
    config = parse_method("double_seq_bn[reduction_factor=4]")
    sizes = [torch.Size(shape).numel() for shape in shapes(config, LAYOUT).values()]
    d, m = 32, 8
    assert sum(sizes) == 4 * (2 * m * d + d + m)


def test_a_seed_fixes_the_start_values() -> None:
    method = METHODS[0]
    config = dataclasses.replace(PRESETS["seq_bn"][0], init_weights_seed=5)  # type: ignore[type-var]
    first, second = (method.initial(config, LAYOUT, lambda path: torch.zeros(32)) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_absurd_reduction_factor_is_refused_before_memory_is_asked_for() -> None:
    with pytest.raises(UsageError, match="widest"):
        shapes(parse_method("seq_bn[reduction_factor=1e-9]"), LAYOUT)


def test_a_head_that_reads_a_pooler_needs_one() -> None:
    config = ClassificationHeadConfig(num_labels=2, pooling="pooler")
    assert "head.0.weight" in shapes([config], LAYOUT)
    with pytest.raises(UnsupportedError, match="pooler"):
        shapes([config], dataclasses.replace(LAYOUT, pooler=False))


def written_out(config: BottleneckConfig, p: dict[str, Tensor], d: Tensor, x: Tensor, norm: nn.Module) -> Tensor:
    """Return the output of a post-norm sublayer as the method's docstring has it, in the order of its lines."""

    def f(t: Tensor) -> Tensor:
        h = (
            layer_norm(t, (32,), p["bottleneck_norm_before.weight"], p["bottleneck_norm_before.bias"])
            if config.ln_before
            else t
        )
        h = linear(h, p["bottleneck_down.weight"], p["bottleneck_down.bias"])
        h = linear(function(config.non_linearity)(h), p["bottleneck_up.weight"], p["bottleneck_up.bias"])
        s = p["bottleneck_scaling"] if isinstance(config.scaling, str) else config.scaling
        g = torch.ones(())
        if config.use_gating:
            g = torch.sigmoid(linear(t, p["bottleneck_gate.weight"], p["bottleneck_gate.bias"])).mean(1, keepdim=True)
        return s * g * h

    def after(h: Tensor) -> Tensor:
        return (
            layer_norm(h, (32,), p["bottleneck_norm_after.weight"], p["bottleneck_norm_after.bias"])
            if config.ln_after
            else h
        )

    if config.is_parallel:
        u = after(f(x)) + d
    else:
        t = norm(d + x) if config.original_ln_before else d
        r = {True: d, False: t, "post_add": d + x}[config.residual_before_ln]
        u = after(f(t) + r) if config.adapter_residual_before_ln else after(f(t)) + r
    result: Tensor = norm(u + x) if config.original_ln_after else u
    return result


GRID = list(
    itertools.product(
        [False, True],
        [False, True],
        [True, False, "post_add"],
        [False, True],
        [False, True],
        [0.5, "learned", "channel"],
    )
)


@pytest.mark.parametrize(
    ("before", "after", "residual", "inner", "norms", "scaling"), [g for g in GRID if g[0] or g[2] != "post_add"]
)
def test_a_bottleneck_computes_its_equation(
    before: bool, after: bool, residual: bool | str, inner: bool, norms: bool, scaling: float | str
) -> None:
    for parallel in (False, True):
        config = BottleneckConfig(
            mh_adapter=False,
            output_adapter=True,
            reduction_factor=4,
            non_linearity="gelu",
            original_ln_before=before,
            original_ln_after=after,
            residual_before_ln=residual,  # type: ignore[arg-type]
            adapter_residual_before_ln=inner,
            ln_before=norms,
            ln_after=norms,
            is_parallel=parallel,
            scaling=scaling,  # type: ignore[arg-type]
            use_gating=norms,
        )
        base = model()
        adapters = with_adapters(base, a=describe([config]))
        tensors = adapters.adapter("a").tensors
        # The last layer's feed-forward block, on what enters it when the adapter is active.
        adapters.activate("a")
        layer, path = base.encoder.layer[2], "encoder.layer.2.output."
        seen: list[Tensor] = []
        handle = layer.intermediate.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        found = hidden(base, inputs())
        handle.remove()
        x = seen[0]
        with torch.no_grad():
            d = layer.output.dense(layer.intermediate.intermediate_act_fn(layer.intermediate.dense(x)))
            own = {key.removeprefix(path): t for key, t in tensors.items() if key.startswith(path)}
            adapters.activate(None)
            expected = written_out(config, own, d, x, layer.output.LayerNorm)
        assert torch.allclose(found, expected, atol=2e-5), config
        adapters.detach()


def test_dropout_and_stochastic_depth_act_in_training_only_and_keep_the_mean() -> None:
    base = model()
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in base.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    plain = "seq_bn[reduction_factor=4,leave_out=[0,1]"
    adapters = with_adapters(base, a=f"{plain}]")
    weights = adapters.adapter("a")
    for option in ("dropout=0.5", "stochastic_depth=0.5"):
        config = parse_method(f"{plain},{option}]")
        adapters.load(dataclasses.replace(weights, config=config), name=option)
        adapters.activate("a")
        exact = hidden(base)
        adapters.activate(option)
        assert torch.equal(hidden(base), exact)
        base.train()
        torch.manual_seed(0)
        drawn = [hidden(base) for _ in range(2)]
        base.eval()
        assert not torch.equal(*drawn)


def test_stochastic_depth_leaves_out_whole_examples() -> None:
    base = model()
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in base.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    adapters = with_adapters(base, a="seq_bn[reduction_factor=4,leave_out=[0,1],stochastic_depth=0.5]")
    batch = inputs(rows=16)
    without = hidden(base, batch)
    adapters.activate("a")
    base.train()
    torch.manual_seed(3)
    left_out = [torch.allclose(a, b, atol=1e-6) for a, b in zip(hidden(base, batch), without, strict=True)]
    assert 0 < sum(left_out) < 16
