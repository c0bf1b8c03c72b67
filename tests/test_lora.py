"""LoRA, rsLoRA and DoRA: their equations, and the laws of merging, starting and training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from maps import FLAT, KINDS, PATH, Map, attached, bound, close, make, merged, start, tensors
from tiny_models import cast, hidden, inputs, model, with_adapters
from torch import Tensor, nn
from transformers import BartConfig, BartModel

from adapterhub.errors import FormatError, UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.loader.layout import _linear
from adapterhub.methods import LoraConfig, method_of, shapes

QKV: dict[str, Any] = {"roles": ("query", "key", "value")}
VARIANTS: dict[str, LoraConfig] = {
    "LoRA": LoraConfig(targets=(PATH,), r=3, alpha=6.0),
    "rsLoRA": LoraConfig(targets=(PATH,), r=3, alpha=6.0, rank_stabilised=True),
    "DoRA": LoraConfig(targets=(PATH,), r=3, alpha=6.0, magnitude="dora"),
    "DoRA of adapters": LoraConfig(targets=(PATH,), r=3, alpha=6.0, magnitude="dora_adapters"),
    "a bias": LoraConfig(targets=(PATH,), r=3, alpha=6.0, update_bias=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_compute_what_the_attached_adapter_does(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    if variant == "a bias" and kind == "embedding":
        with pytest.raises(UnsupportedError, match=r"embedding .* has no bias"):
            tensors(config, place)
        return
    own = tensors(config, place)
    output = attached(config, place, own)
    assert not close(output, place.module(place.x), 0.1)
    assert close(merged(config, place, own), output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_gives_the_same_within_its_rounding(variant: str, kind: str, dtype: torch.dtype) -> None:
    config, place = VARIANTS[variant], make(kind)
    exact = attached(config, place, tensors(config, place))
    half = Map(place.module.to(dtype), place.linear, place.x.to(dtype))
    own = tensors(config, place, dtype=dtype)
    output = attached(config, half, own)
    assert output.dtype == dtype
    tolerance = 16 * torch.finfo(dtype).eps
    assert close(output, exact, tolerance)
    assert close(merged(config, half, own), output, tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "roles", [("query",), ("key",), ("query", "value"), ("value", "query"), ("query", "key", "value")]
)
def test_parts_of_a_merged_map_are_adapted_each_by_its_own_rows(roles: tuple[str, ...], bias: bool) -> None:
    place = make("linear" if bias else "linear without bias", **QKV)
    config = LoraConfig(targets=roles, r=2, alpha=3.0)
    own = tensors(config, place)
    found, weight = attached(config, place, own), place.weight.clone()
    wanted = [role for role in ("query", "key", "value") if role in roles]
    for i, role in enumerate(wanted):
        a, b = own[f"{PATH}.lora_A"][2 * i : 2 * i + 2], own[f"{PATH}.lora_B"][4 * i : 4 * i + 4]
        at = 4 * ("query", "key", "value").index(role)
        weight[at : at + 4] += 1.5 * b @ a
    assert close(found, nn.functional.linear(place.x, weight, place.bias))
    assert close(merged(config, place, own), found)


def written_out(config: LoraConfig, place: Map, own: dict[str, Tensor]) -> Tensor:
    """Return the output as the equations of DoRA have it."""
    a, b, m = (own[f"{PATH}.lora_{name}"] for name in ("A", "B", "magnitude"))
    s = config.alpha / config.r
    bias = torch.zeros(12) if place.bias is None else place.bias
    if config.magnitude == "dora":
        weight = place.weight + s * b @ a
        return place.x @ (m[:, None] * weight / weight.norm(dim=1, keepdim=True)).t() + bias
    factor = m / (place.weight + b @ a).norm(dim=1)
    return factor * (place.x @ place.weight.t() + bias + s * place.x @ a.t() @ b.t())


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("variant", ["DoRA", "DoRA of adapters"])
def test_dora_computes_its_equation(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    own = tensors(config, place)
    assert close(attached(config, place, own), written_out(config, place, own))


@pytest.mark.parametrize("change", ["in place", "through .data", "of the base"])
def test_dora_sees_every_change_of_its_weights(change: str) -> None:
    config, place = VARIANTS["DoRA"], make("linear")
    own = tensors(config, place)
    op = bound(config, place, own)
    op(place.module, place.x)
    with torch.no_grad():
        changed = {"in place": own[f"{PATH}.lora_B"], "through .data": own[f"{PATH}.lora_A"].data}
        changed.get(change, place.module.weight).mul_(2)
    assert close(op(place.module, place.x), written_out(config, place, own))


def test_a_row_of_zeros_stays_one_under_a_new_dora() -> None:
    config, place = VARIANTS["DoRA"], make("linear")
    with torch.no_grad():
        place.module.weight[4] = 0
    assert close(attached(config, place, start(config, place)), place.module(place.x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_adapter_changes_nothing(variant: str, kind: str) -> None:
    config, place = VARIANTS[variant], make(kind)
    if variant == "a bias" and kind == "embedding":
        config = VARIANTS["LoRA"]
    for init in ("lora", "bert"):
        own = start(dataclasses.replace(config, init_weights=init), place)
        assert {key: tuple(t.shape) for key, t in own.items()} == shapes([config], place.layout)
        # One of A and B is zero, the other is not, so that both can be trained.
        factors = [tensor for key, tensor in own.items() if key.endswith(("_A", "_B"))]
        assert sorted(bool(factor.any()) for factor in factors) == [False, True]
        assert close(attached(config, place, own), place.module(place.x), 1e-6)


def test_a_new_gate_is_half_open_and_one_number_per_example() -> None:
    place = make("linear")
    config = LoraConfig(targets=(PATH,), r=3, alpha=3.0, gating=True)
    own = tensors(config, place)
    own[f"{PATH}.lora_gate.weight"].zero_()
    own[f"{PATH}.lora_gate.bias"].zero_()
    plain = dataclasses.replace(config, gating=False)
    y = place.module(place.x)
    assert close(attached(config, place, own) - y, (attached(plain, place, own) - y) / 2)


@pytest.mark.parametrize("roles", [("query",), ("query", "value"), ("query", "key", "value"), (PATH,)])
def test_a_gate_is_the_mean_of_a_sigmoid_over_the_tokens(roles: tuple[str, ...]) -> None:
    place = make("Conv1D", **QKV)
    config = LoraConfig(targets=roles, r=2, alpha=3.0, gating=True)
    own = tensors(config, place)
    found = attached(config, place, own)
    plain = dataclasses.replace(config, gating=False)
    delta = attached(plain, place, own) - place.module(place.x)
    gate = torch.sigmoid(place.x @ own[f"{PATH}.lora_gate.weight"].t() + own[f"{PATH}.lora_gate.bias"])
    gate = gate.mean(dim=1, keepdim=True)
    factor = torch.ones(2, 1, 12) * (gate if roles == (PATH,) else 0)
    for i, role in enumerate(roles if roles != (PATH,) else ()):
        at = 4 * ("query", "key", "value").index(role)
        factor[..., at : at + 4] = gate[..., i : i + 1]
    assert close(found, place.module(place.x) + factor * delta)
    with pytest.raises(UnsupportedError, match="gate"):
        bound(config, place, own).merged(place.weight, place.bias)


def test_dropout_acts_on_the_input_of_the_update_in_training_only() -> None:
    place = make("linear")
    config = LoraConfig(targets=(PATH,), r=3, alpha=3.0, dropout=0.5)
    own = tensors(config, place)
    exact = attached(dataclasses.replace(config, dropout=0.0), place, own)
    assert torch.equal(attached(config, place, own), exact)
    torch.manual_seed(0)
    op = bound(config, place, own, training=True)
    drawn = torch.stack([op(place.module, place.x) for _ in range(4000)])
    assert not torch.equal(drawn[0], drawn[1])
    assert close(drawn.mean(0), exact, 0.1)


def test_a_convolution_in_groups_computes_but_cannot_be_merged() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(8, 12, 3, groups=4, padding=1)
    place = dataclasses.replace(make("linear"), module=module, x=torch.randn(2, 8, 5, 5))
    place = dataclasses.replace(place, linear=_linear(PATH, module, roles=(), layer=0, cross=False))
    config = LoraConfig(targets=(PATH,), r=8, alpha=4.0)
    own = tensors(config, place)
    a, b = own[f"{PATH}.lora_A"], own[f"{PATH}.lora_B"]
    assert (a.shape, b.shape) == ((8, 8, 3, 3), (12, 2, 1, 1))
    delta = torch.conv2d(torch.conv2d(place.x, a, padding=1), b, groups=4)
    assert close(attached(config, place, own), module(place.x) + 0.5 * delta)
    with pytest.raises(UnsupportedError, match="groups"):
        merged(config, place, own)
    with pytest.raises(UnsupportedError, match="do not divide r=6"):
        tensors(dataclasses.replace(config, r=6), place)
    with pytest.raises(UnsupportedError, match="DoRA is not defined"):
        tensors(dataclasses.replace(config, magnitude="dora"), place)


def test_gradients_reach_the_adapter_and_nothing_else() -> None:
    for text in ("lora", "dora", "lora[gating=true]", 'lora[update_bias=true,targets=["all-linear"]]'):
        base = model()
        adapters = with_adapters(base, a=text)
        trained = adapters.train("a")
        base(**inputs()).last_hidden_state.square().sum().backward()
        assert len(trained) == len(adapters.adapter("a").tensors)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained), text
        assert all(p.grad is None for p in base.parameters() if not any(p is one for one in trained))


def test_targets_are_roles_paths_or_all_linear_maps() -> None:
    adapters = attach(model("distilbert"))
    layout = adapters._ground.layout

    def paths(**fields: Any) -> set[str]:
        return {key.rpartition(".")[0] for key in shapes([LoraConfig(**fields)], layout)}

    assert len(paths()) == 6
    assert paths(targets=("output",)) == {f"transformer.layer.{i}.ffn.lin2" for i in range(3)}
    assert paths(targets=("transformer.layer.1.ffn.lin1",)) == {"transformer.layer.1.ffn.lin1"}
    assert len(paths(targets=("all-linear",))) == 18
    assert len(paths(targets=("all-linear",), leave_out=(0, 2))) == 6
    assert paths(targets=("embeddings.word_embeddings",)) == {"embeddings.word_embeddings"}
    with pytest.raises(UsageError, match=r"no linear map called transformer\.layer\.9"):
        paths(targets=("transformer.layer.9.ffn.lin1",))
    with pytest.raises(UsageError, match="no linear map of the model is one of gate"):
        paths(targets=("gate",))


def test_ranks_and_alphas_of_single_maps_count_before_the_common_ones() -> None:
    adapters = attach(model())
    path = "encoder.layer.1.attention.self.query"
    config = LoraConfig(r=4, alpha=8.0, ranks={"query": 2, path: 3}, alphas={path: 5.0})
    found = shapes([config], adapters._ground.layout)
    assert found[f"{path}.lora_A"] == (3, 32)
    assert found["encoder.layer.0.attention.self.query.lora_A"] == (2, 32)
    assert found["encoder.layer.0.attention.self.value.lora_A"] == (4, 32)
    linears = adapters._ground.layout.linear
    assert config.scale(linears[path]) == 5 / 3
    assert config.scale(linears["encoder.layer.0.attention.self.query"]) == 4
    with pytest.raises(UsageError, match="qeury"):
        shapes([dataclasses.replace(config, ranks={"qeury": 2})], adapters._ground.layout)
    with pytest.raises(UsageError, match=r"layer.7"):
        shapes([dataclasses.replace(config, alphas={"encoder.layer.7.output.dense": 2})], adapters._ground.layout)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": 10**9}, "expected 1 to 65536"),
        ({"ranks": {"query": -1}}, "ranks"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"alpha": 10**400}, "expected a number"),
        ({"alpha": float("nan")}, "expected a number"),
        ({"targets": ()}, "targets is empty"),
        ({"dropout": 1.0}, "dropout"),
        ({"gating": True, "magnitude": "dora"}, "exclude each other"),
        ({"update_bias": True, "magnitude": "dora"}, "exclude each other"),
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LoraConfig(**fields)


def test_a_wrong_shape_is_named() -> None:
    adapters = with_adapters(model(), a="lora")
    value = adapters.adapter("a")
    key = "encoder.layer.1.attention.self.value.lora_B"
    transposed = {**value.tensors, key: value.tensors[key].t().contiguous(), "more": torch.zeros(1)}
    with pytest.raises(FormatError) as error:
        adapters.load(dataclasses.replace(value, tensors=transposed), name="b")
    assert f"tensor '{key}' has shape (8, 32), expected (32, 8)" in str(error.value)


def test_a_part_of_a_merged_map_has_no_magnitude() -> None:
    place = make("Conv1D", **QKV)
    with pytest.raises(UnsupportedError, match=f"name the module {PATH}"):
        tensors(LoraConfig(magnitude="dora"), place)
    config = LoraConfig(targets=(PATH,), magnitude="dora")
    own = tensors(config, place)
    assert close(merged(config, place, own), attached(config, place, own))


def test_an_embedding_that_is_scaled_scales_its_update_too() -> None:
    sizes: dict[str, Any] = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 30}
    layers: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    torch.manual_seed(0)
    base = BartModel(BartConfig(scale_embedding=True, decoder_attention_heads=2, **sizes, **layers)).eval()
    adapters = with_adapters(base, a='lora[targets=["encoder.embed_tokens"]]')
    layout = adapters._ground.layout
    assert layout.linear["encoder.embed_tokens"].scale == 4
    assert not any("embed_positions" in path for path in layout.linear)
    tensor = adapters.adapter("a").tensors
    a, b = (tensor[f"encoder.embed_tokens.lora_embedding_{name}"] for name in "AB")
    ids = torch.tensor([[3, 4, 5]])
    adapters.activate("a")
    found = base.encoder.embed_tokens(ids)
    assert close(found, 4 * (base.encoder.embed_tokens.weight + (b @ a).t())[ids])


def test_the_model_may_be_cast_after_an_adapter_was_loaded() -> None:
    for text in ("lora", "dora"):
        base = model()
        adapters = with_adapters(base, a=text)
        adapters.activate("a")
        exact = hidden(base)
        found = hidden(cast(base, torch.bfloat16))
        assert found.dtype == torch.bfloat16
        assert close(found, exact, 0.05)


def test_a_batch_of_no_rows_is_answered_by_no_rows() -> None:
    place = make("linear", **QKV)
    for config in (*VARIANTS.values(), LoraConfig(), LoraConfig(gating=True)):
        op = bound(config, place, tensors(config, place))
        assert op(place.module, place.x[:0]).shape == (0, 5, 12)


def test_dora_refuses_a_weight_that_is_quantised() -> None:
    place = make("linear")
    own = tensors(VARIANTS["DoRA"], place)
    place.module.weight = nn.Parameter(place.weight.to(torch.int8), requires_grad=False)
    for action in (lambda: bound(VARIANTS["DoRA"], place, own), lambda: start(VARIANTS["DoRA"], place)):
        with pytest.raises(UnsupportedError, match=r"quantised \(Parameter, torch.int8\)"):
            action()


def test_start_values_are_fixed_by_a_seed() -> None:
    config, place = LoraConfig(targets=(PATH,), init_weights_seed=3), make("linear")
    first, second = (method_of(config).initial(config, place.layout, place.base) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
