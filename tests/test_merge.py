"""Laws of merging adapters with each other, over methods and variants: on numbers, in float64, not on outputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_deltas import METHODS as LINEAR
from tiny_models import family, hidden, model, randomise, with_adapters
from torch import Tensor

from adapterhub import Adapter, BaseMismatchError, UnsupportedError, UsageError, merge, read, write
from adapterhub.loader import AdapterSet, attach
from adapterhub.loader.known_base import KnownBase
from adapterhub.merging import METHODS, Merged, Request, Source
from adapterhub.merging import merge as merge_sources
from adapterhub.merging.parents import PROPORTIONAL
from adapterhub.methods import method_of
from adapterhub.methods.deltas import Changes, weight_of

ALONE = (
    *("lora", "everywhere", "rslora", "bias", "matrices", "mtl", "loha", "lokr"),
    *("delora", "c3a", "adalora", "vblora", "gralora"),
)
"""Methods that are merged without the base model."""

TENSORS = {
    "bottleneck": "double_seq_bn[reduction_factor=8]",
    "compacter": "compacter[reduction_factor=8,phm_dim=4]",
    "prefix": "prefix_tuning[prefix_length=3,bottleneck_size=8]",
    "flat": "prefix_tuning[prefix_length=3,flat=true]",
    "prompt": "prompt_tuning[prompt_length=4]",
    "norms": "layer_norm",
    "union": "double_seq_bn[reduction_factor=8]+layer_norm",
    "reft": "loreft[orthogonality=false]",
    "invertible": "seq_bn_inv",
    "ia3": "ia3",
    "beft": "beft",
    "fourierft": "fourierft[frequencies=10]",
}


def pair(method: str, base: Any = None, *, other: str | None = None) -> tuple[AdapterSet, Adapter, Adapter]:
    """Return two random adapters on one base model."""
    adapters = with_adapters(model("bert") if base is None else base, a=method, b=other or method)
    return adapters, adapters.adapter("a"), adapters.adapter("b")


def effects(adapter: Adapter, base: KnownBase) -> dict[str, tuple[Tensor, Tensor]]:
    """Return path → what an adapter adds to weight and bias of each linear map, float64."""
    found = {}
    for config in adapter.config:
        changes = Changes(method_of(config), config, base.layout, adapter.tensors, base.parameter)
        for delta in changes:
            weight = weight_of(delta.linear, base.parameter)
            shift = torch.zeros(len(weight), dtype=torch.float64) if delta.bias is None else delta.bias
            if delta.gain is not None and delta.gains_bias:
                shift = (delta.gain - 1) * base.parameter(f"{delta.linear.path}.bias").double()
            found[delta.linear.path] = (delta.matrix(weight), shift)
    return found


def combined(parts: Sequence[tuple[float, Mapping[str, tuple[Tensor, Tensor]]]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the weighted sum of effects."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for weight, part in parts:
        for path, (d, c) in part.items():
            before = found.get(path, (torch.zeros_like(d), torch.zeros_like(c)))
            found[path] = (before[0] + weight * d, before[1] + weight * c)
    return found


def distance(one: Mapping[str, tuple[Tensor, Tensor]], two: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference of two effects at a map, as a part of the second's norm."""
    worst = 0.0
    for path in one.keys() | two.keys():
        for a, b in zip(one[path], two[path], strict=True):
            worst = max(worst, float((a - b).norm()) / max(float(b.norm()), 1e-3))
    return worst


def done(adapters: Sequence[Adapter], base: Any = None, **options: Any) -> Merged:
    """Return a merge with its report."""
    known = None if base is None else KnownBase(base)
    sources = [Source(adapter=adapter, name=adapter.manifest.name) for adapter in adapters]
    return merge_sources(sources, Request(report=True, **options), name="merged", base=known)


# ---------------------------------------------------------------------------------------------------- what every sum is


@pytest.mark.parametrize("name", [*LINEAR, *(name for name in TENSORS if name not in LINEAR)])
def test_one_adapter_of_weight_one_is_itself(name: str) -> None:
    adapters = with_adapters(model("bert"), a={**LINEAR, **TENSORS}[name])
    adapter = adapters.adapter("a")
    for method in ("linear", "cat", "task_arithmetic"):
        made = merge([adapter], method=method, weights=[1.0])
        assert made.config == adapter.config
        assert made.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(made.tensors[key], adapter.tensors[key]) for key in adapter.tensors)


@pytest.mark.parametrize("name", LINEAR)
def test_the_sum_is_linear_in_the_weights(name: str) -> None:
    adapters, a, b = pair(LINEAR[name])
    base = KnownBase(adapters.model)
    adapters.activate(None)
    want = combined([(0.7, effects(a, base)), (-0.4, effects(b, base))])
    made = done([a, b], adapters.model, weights=(0.7, -0.4))
    assert distance(effects(made.adapter, base), want) < 1e-6
    assert all(site.error is not None and site.error < 1e-9 for site in made.sites)


@pytest.mark.parametrize("name", LINEAR)
def test_an_adapter_shared_out_among_weights_is_itself(name: str) -> None:
    adapters, a, _ = pair(LINEAR[name])
    base = KnownBase(adapters.model)
    again = dataclasses.replace(a, manifest=dataclasses.replace(a.manifest, name="again"))
    for weights in ((0.25, 0.75), (3.0, -2.0), (1.0, 0.0)):
        made = done([a, again], adapters.model, weights=weights).adapter
        assert distance(effects(made, base), effects(a, base)) < 2e-6


@pytest.mark.parametrize("name", ALONE)
def test_sums_need_no_base_model_where_the_tensors_tell_the_updates(name: str) -> None:
    adapters, a, b = pair(LINEAR[name])
    with_base, without = done([a, b], adapters.model).adapter, done([a, b]).adapter
    assert with_base.tensors.keys() == without.tensors.keys()
    assert all(torch.equal(with_base.tensors[key], without.tensors[key]) for key in without.tensors)


@pytest.mark.parametrize("name", [name for name in LINEAR if name not in (*ALONE, *PROPORTIONAL)])
def test_without_the_base_model_they_are_refused_where_they_depend_on_it(name: str) -> None:
    _, a, b = pair(LINEAR[name])
    with pytest.raises(UnsupportedError, match="cannot be told from its tensors alone") as caught:
        merge([a, b])
    assert "a: what" in caught.value.message
    assert "b: what" in caught.value.message
    assert "--base" in caught.value.hint


@pytest.mark.parametrize("name", TENSORS)
def test_what_is_no_update_is_averaged_tensor_by_tensor(name: str) -> None:
    adapters, a, b = pair(TENSORS[name])
    made = merge([a, b], weights=[0.25, 0.75])
    assert made.config == a.config
    for key, tensor in made.tensors.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.25 * a.tensors[key] + 0.75 * b.tensors[key], atol=1e-7), key
        else:
            assert torch.equal(tensor, a.tensors[key])
    swapped = merge([b, a], weights=[0.75, 0.25])
    assert all(torch.allclose(swapped.tensors[key], made.tensors[key], atol=1e-7) for key in made.tensors)
    adapters.load(made, name="made", set_active=True)
    assert torch.isfinite(hidden(adapters.model)).all()


@pytest.mark.parametrize("name", ["norms", "union"])
def test_parameters_that_stand_in_for_the_base_s_are_changes_of_it(name: str) -> None:
    adapters, a, b = pair(TENSORS[name])
    with pytest.raises(UnsupportedError, match="do not add up to 1"):
        merge([a, b], weights=[0.5, 0.25])
    made = merge([a, b], weights=[0.5, 0.25], base=adapters.model)
    key = "encoder.layer.0.output.LayerNorm.weight"
    own = adapters.model.get_parameter(key)
    assert torch.allclose(
        made.tensors[key], own + 0.5 * (a.tensors[key] - own) + 0.25 * (b.tensors[key] - own), atol=1e-6
    )


def test_different_methods_ranks_and_places_add_up() -> None:
    adapters = with_adapters(
        model("bert"),
        a="lora[r=3,alpha=7]",
        b='rslora[r=5,alpha=2,targets=["query","intermediate"],leave_out=[1]]',
        c="loha[r=2]",
        d="dora[r=2]",
        e="lora[r=2,update_bias=true]",
        f="vera[r=4]",
    )
    base = KnownBase(adapters.model)
    values = {name: adapters.adapter(name) for name in adapters.names}
    for names in ("ab", "abc", "abd", "abe", "abf", "bd", "abcd"):
        made = done([values[name] for name in names], adapters.model, weights=(0.5, -1.25, 0.75, 0.3)[: len(names)])
        want = combined(
            [(w, effects(values[name], base)) for w, name in zip((0.5, -1.25, 0.75, 0.3), names, strict=False)]
        )
        assert distance(effects(made.adapter, base), want) < 1e-6, names


def test_a_sum_of_doras_is_a_dora_of_their_ranks_together() -> None:
    for form in ("dora", "dora_adapters"):
        adapters, a, b = pair(f"dora[r=3,magnitude={form}]", other=f"dora[r=2,magnitude={form}]")
        made = merge([a, b], base=adapters.model)
        (config,) = made.config
        assert config.to_json()["magnitude"] == form
        assert config.to_json()["r"] == 5


def test_two_forms_of_dora_are_refused() -> None:
    adapters, a, b = pair("dora", other="dora[magnitude=dora_adapters]")
    with pytest.raises(UnsupportedError, match="treat biases differently"):
        merge([a, b], base=adapters.model)
    _, a, b = pair("dora", other="lora[update_bias=true]")
    with pytest.raises(UnsupportedError, match="b adds to biases, and a DoRA has no place for that"):
        merge([a, b], base=adapters.model)


def test_parts_of_a_merged_map_stay_parts() -> None:
    base = family("gpt2")
    adapters, a, b = pair("lora[r=3]", base, other="lora[r=2,alpha=5]")
    made = merge([a, b], weights=[0.5, 2.0])
    assert made.config[0].to_json()["targets"] == ["query", "value"]
    known = KnownBase(base)
    want = combined([(0.5, effects(a, known)), (2.0, effects(b, known))])
    assert distance(effects(made, known), want) < 1e-6
    adapters.add("c", 'lora[r=2,targets=["query"]]')
    randomise(adapters, "c")
    c = adapters.adapter("c")
    made = merge([a, c], weights=[0.5, 2.0])
    want = combined([(0.5, effects(a, known)), (2.0, effects(c, known))])
    assert distance(effects(made, known), want) < 1e-6


def test_the_result_is_written_read_and_runs_as_the_sum() -> None:
    for name in ("gpt2", "roberta", "t5", "vit", "llama"):
        base = family(name)
        adapters, a, b = pair('lora[r=2,targets=["query","value","intermediate"]]', base)
        made = merge([a, b], weights=[1.0, 0.5])
        adapters.load(made, name="made")
        adapters.add("c", "lora")
        known = KnownBase(base)
        want = combined([(1.0, effects(a, known)), (0.5, effects(b, known))])
        assert distance(effects(adapters.adapter("made"), known), want) < 1e-6


@pytest.mark.parametrize("method", [row.name for row in METHODS if row.name != "lora_linear_only_negate_b"])
def test_every_method_is_written_and_read_again(method: str, tmp_path: Any) -> None:
    _, a, b = pair("lora[r=3]")
    row = next(row for row in METHODS if row.name == method)
    options: dict[str, Any] = {"density": 0.5} if "density" in row.needs else {}
    options |= {"rank": 2} if "rank" in row.needs else {}
    made = merge([a, b], method=method, **options)
    path = write(made, tmp_path / "made.safetensors")
    again = read(path)
    assert again.config == made.config
    assert again.manifest == made.manifest
    assert again.manifest.provenance is not None
    assert again.manifest.provenance.method == method
    assert [parent.name for parent in again.manifest.provenance.parents] == ["a", "b"]
    assert all(parent.digest.startswith("sha256:") for parent in again.manifest.provenance.parents)
    peft = read(write(made, tmp_path / "peft", format="peft"))
    assert all(torch.equal(peft.tensors[key], made.tensors[key]) for key in made.tensors)


# ----------------------------------------------------------------------------------------------------------- symmetries


MATRIX = [row.name for row in METHODS if row.coefficients is None and row.matrix is not None]


def made_by(method: str, adapters: Sequence[Adapter], weights: Sequence[float], **options: Any) -> Adapter:
    if method in MATRIX:
        options["density"] = 0.5
    if "dare" in method:
        options["seed"] = 5
    if method.endswith("svd"):
        options["rank"] = 64
    return merge(adapters, method=method, weights=weights, **options)


@pytest.mark.parametrize("method", [row.name for row in METHODS if "dare" not in row.name and "negate" not in row.name])
def test_the_order_of_the_adapters_does_not_matter(method: str) -> None:
    adapters, a, b = pair("lora[r=3]")
    base = KnownBase(adapters.model)
    one = effects(made_by(method, [a, b], [0.3, 0.7]), base)
    two = effects(made_by(method, [b, a], [0.7, 0.3]), base)
    assert distance(one, two) < 1e-6


def negated(adapter: Adapter) -> Adapter:
    """Return the adapter that changes the base in the opposite direction."""
    tensors = {key: -t if key.endswith("lora_B") else t for key, t in adapter.tensors.items()}
    return dataclasses.replace(adapter, tensors=tensors)


@pytest.mark.parametrize("majority", ["total", "frequency"])
@pytest.mark.parametrize("method", [row.name for row in METHODS if "negate" not in row.name])
def test_the_opposite_of_all_gives_the_opposite(method: str, majority: str) -> None:
    if majority == "frequency" and "ties" not in method:
        majority = "total"
    adapters, a, b = pair("lora[r=3]")
    base = KnownBase(adapters.model)
    options = {"majority": majority} if "ties" in method else {}
    one = effects(made_by(method, [a, b], [0.3, 0.7], **options), base)
    two = effects(made_by(method, [negated(a), negated(b)], [0.3, 0.7], **options), base)
    assert distance(two, combined([(-1.0, one)])) < 1e-6
    both = made_by(method, [a, negated(a)], [0.5, 0.5], **options)
    assert all(float(d.norm()) < 1e-6 for d, _ in effects(both, base).values()) or "dare" in method


@pytest.mark.parametrize("method", [row.name for row in METHODS if "negate" not in row.name])
def test_density_one_and_twice_the_same_adapter_is_that_adapter(method: str) -> None:
    adapters, a, _ = pair("lora[r=3,alpha=5]")
    again = dataclasses.replace(a, manifest=dataclasses.replace(a.manifest, name="again"))
    row = next(row for row in METHODS if row.name == method)
    options: dict[str, Any] = {"density": 1.0} if "density" in row.needs else {}
    options |= {"rank": 3} if "rank" in row.needs else {}
    # TIES takes the mean of what agrees, others the sum.
    weights = [1.0, 1.0] if "ties" in method else [0.5, 0.5]
    made = merge([a, again], method=method, weights=weights, **options)
    base = KnownBase(adapters.model)
    assert distance(effects(made, base), effects(a, base)) < 1e-6


@pytest.mark.parametrize("name", LINEAR)
def test_whatever_the_variant_order_signs_and_seeds_mean_the_same(name: str) -> None:
    adapters, a, b = pair(LINEAR[name])
    base = KnownBase(adapters.model)

    def of(method: str, parents: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
        options = {"density": 0.5} if method != "linear" else {}
        options |= {"seed": 5} if "dare" in method else {}
        return merge(parents, method=method, weights=weights, base=adapters.model, **options)  # type: ignore[arg-type]

    for method in ("linear", "ties", "magnitude_prune"):
        one, two = of(method, [a, b], [0.3, 0.7]), of(method, [b, a], [0.7, 0.3])
        assert distance(effects(one, base), effects(two, base)) < 1e-6, method
    for method in ("ties", "dare_linear", "dare_ties"):
        one, opposite = of(method, [a, b], [0.3, 0.7]), of(method, [a, b], [-0.3, -0.7])
        assert distance(effects(opposite, base), combined([(-1.0, effects(one, base))])) < 1e-6, method
        again = of(method, [a, b], [0.3, 0.7])
        assert all(torch.equal(again.tensors[key], one.tensors[key]) for key in one.tensors), method


@pytest.mark.parametrize("name", LINEAR)
def test_whatever_the_variant_one_adapter_is_itself_by_every_kind_of_method(name: str) -> None:
    adapters, a, _ = pair(LINEAR[name])
    base = KnownBase(adapters.model)
    adapters.activate(None)
    for method, options in (("linear", {"rank": 64}), ("svd", {"rank": 64}), ("ties", {"density": 1.0})):
        made = merge([a], method=method, weights=[1.0], base=adapters.model, **options)
        assert distance(effects(made, base), effects(a, base)) < 1e-6, method


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "dare", "dare_ties_svd"])
def test_a_seed_drops_the_same_entries_again(method: str) -> None:
    _, a, b = pair("lora[r=3]")
    one, two, other = (merge([a, b], method=method, density=0.5, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(one.tensors[key], two.tensors[key]) for key in one.tensors)
    assert any(
        one.tensors[key].shape != t.shape or not torch.equal(one.tensors[key], t) for key, t in other.tensors.items()
    )


def test_a_seed_that_was_drawn_stands_in_the_provenance() -> None:
    _, a, b = pair("lora[r=3]")
    one = merge([a, b], method="dare_linear", density=0.5)
    assert one.manifest.provenance is not None
    seed = one.manifest.provenance.settings["seed"]
    again = merge([a, b], method="dare_linear", density=0.5, seed=seed)
    assert all(torch.equal(one.tensors[key], again.tensors[key]) for key in one.tensors)


@given(
    weights=st.lists(st.floats(-2, 2), min_size=2, max_size=4),
    ranks=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    seed=st.integers(0, 50),
)
@settings(max_examples=15, deadline=None)
def test_the_report_tells_the_distance_to_the_exact_sum(weights: list[float], ranks: list[int], seed: int) -> None:
    base = BASE
    adapters = attach(base)
    try:
        values = []
        for number, r in enumerate(ranks[: len(weights)]):
            adapters.add(f"a{number}", f"lora[r={r}]")
            randomise(adapters, f"a{number}", seed=seed + number)
            values.append(adapters.adapter(f"a{number}"))
        made = done(values, method="svd", rank=2, weights=tuple(weights))
        known = KnownBase(base)
        want = combined([(w, effects(value, known)) for w, value in zip(weights, values, strict=True)])
        got = effects(made.adapter, known)
        for site in made.sites:
            whole = want[site.path][0]
            assert site.exact == pytest.approx(float(whole.norm()), rel=1e-6, abs=1e-9)
            lost = float((got[site.path][0] - whole).norm())
            assert (site.error or 0) * float(whole.norm()) == pytest.approx(lost, rel=1e-3, abs=1e-5)
            assert site.rank <= 2
    finally:
        adapters.detach()


BASE = model("bert")


def test_an_energy_gives_each_map_the_rank_that_it_needs() -> None:
    adapters, a, b = pair("lora[r=4]")
    made = done([a, b], method="svd", energy=0.9)
    assert all(site.kept >= 0.9 for site in made.sites)
    assert {site.rank for site in made.sites} <= set(range(1, 9))
    error = max((site.error or 0) ** 2 for site in made.sites)
    assert error == pytest.approx(1 - min(site.kept for site in made.sites), abs=1e-9)
    origin = made.adapter.manifest.provenance
    assert origin is not None
    assert not origin.exact
    adapters.load(made.adapter, name="made")


# --------------------------------------------------------------------------------------------------- what is refused


def test_options_that_mean_nothing_are_named() -> None:
    _, a, b = pair("lora[r=3]")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "ties"}, "it needs a density"),
        ({"method": "lora_delta_w_svd"}, "it needs a rank"),
        ({"method": "linear", "density": 0.5}, "it takes no density"),
        ({"method": "cat", "rank": 3}, "it takes no rank or energy"),
        ({"method": "linear", "seed": 3}, "it takes no seed"),
        ({"method": "linear", "majority": "frequency"}, "it elects no signs"),
        ({"weights": [1.0]}, "1 weights for 2 adapters"),
        ({"weights": [1.0, float("nan")]}, "nan is no weight"),
        ({"method": "no_such"}, "no merge method is called 'no_such'"),
        ({"method": "ties", "density": 0.0}, "the density is 0"),
        ({"rank": 2, "energy": 0.5}, "two ways to say the same"),
        ({"weights": [1.0, -1.0], "normalize": True}, "add up to 0"),
        ({"method": "slerp", "weights": [1.0, -1.0]}, "slerp mixes"),
        ({"name": "Not a name"}, "no name for an adapter"),
        ({"compat": "other"}, "compat is 'other'"),
    ]
    for options, why in cases:
        with pytest.raises(UsageError, match=why):
            merge([a, b], **options)
    with pytest.raises(UsageError, match="slerp: it takes 2, not 3"):
        merge([a, b, a], method="slerp")
    with pytest.raises(UsageError, match="there is none"):
        merge([])


def test_what_is_no_update_is_refused_by_methods_for_updates_with_every_reason() -> None:
    adapters = with_adapters(
        model("bert"),
        a="seq_bn",
        b="seq_bn[reduction_factor=4]",
        c="seq_bn+layer_norm",
        gated="lora[gating=true]",
        directed="lora[gating=true,magnitude=dora_adapters]",
        rotated="loreft",
    )
    one = {name: adapters.adapter(name) for name in adapters.names}
    with pytest.raises(UnsupportedError, match="ties is defined for updates of weights, and bottleneck is none"):
        merge([one["a"], one["a"]], method="ties", density=0.5)
    with pytest.raises(UnsupportedError, match=r"the bottleneck of a and b differ: reduction_factor is 16\S* and 4"):
        merge([one["a"], one["b"]])
    with pytest.raises(UnsupportedError, match="c has layer_norm, a has none of it"):
        merge([one["a"], one["c"]])
    with pytest.raises(UnsupportedError, match="has a gate, which depends on the input"):
        merge([one["gated"], one["gated"]])
    with pytest.raises(UnsupportedError, match="has a gate, which depends on the input"):
        merge([one["directed"], one["directed"]], base=model("bert"))
    with pytest.raises(UnsupportedError, match="rotations of reft are orthogonal"):
        merge([one["rotated"], one["rotated"]])
    assert merge([one["gated"], one["gated"]], compat="adapters").config == one["gated"].config


def test_adapters_of_different_base_models_are_refused_or_warned_about() -> None:
    _, a, _ = pair("lora[r=3]")
    stranger = with_adapters(family("roberta"), a="lora[r=3]").adapter("a")
    with pytest.raises(BaseMismatchError, match="a bert and a roberta"):
        merge([a, stranger], allow_base_mismatch=True)
    base = dataclasses.replace(a.manifest.base, id="google-bert/bert-base-cased", fingerprint=None)
    other = dataclasses.replace(base, id="google-bert/bert-base-uncased")
    one, two = (dataclasses.replace(a, manifest=dataclasses.replace(a.manifest, base=b)) for b in (base, other))
    with pytest.raises(BaseMismatchError, match="bert-base-cased and google-bert/bert-base-uncased"):
        merge([one, two])
    with pytest.warns(UserWarning, match="merged all the same"):
        merge([one, two], allow_base_mismatch=True)
    elsewhere = attach(model("bert", seed=9))
    elsewhere.add("c", "lora[r=3]")
    fresh = dataclasses.replace(
        elsewhere.adapter("c"), manifest=dataclasses.replace(elsewhere.adapter("c").manifest, name="c")
    )
    with pytest.raises(BaseMismatchError, match="holds other values"):
        merge([a, fresh])


# -------------------------------------------------------------------------------------------------------------- heads


def headed(labels: Sequence[str] = ("no", "yes"), other: Sequence[str] = ("no", "yes")) -> list[Adapter]:
    adapters = attach(model("bert"))
    for name, words in (("a", labels), ("b", other)):
        adapters.add(name, "lora[r=2]", labels=words)
        randomise(adapters, name, seed=len(name) + ord(name[0]))
    return [adapters.adapter(name) for name in adapters.names]


def test_heads_are_averaged_chosen_or_left_out_as_told() -> None:
    a, b = headed()
    with pytest.raises(UnsupportedError, match="the heads of a and b have different weights") as caught:
        merge([a, b])
    assert "--head mean" in caught.value.hint
    heads = [key for key in a.tensors if key.startswith("head.")]
    mean = merge([a, b], weights=[1.0, 3.0], head="mean")
    for key in heads:
        assert torch.allclose(mean.tensors[key], 0.25 * a.tensors[key] + 0.75 * b.tensors[key])
    chosen = merge([a, b], head="b")
    assert all(torch.equal(chosen.tensors[key], b.tensors[key]) for key in heads)
    assert chosen.manifest.labels == ("no", "yes")
    none = merge([a, b], head="none")
    assert not [key for key in none.tensors if key.startswith("head.")]
    assert none.manifest.labels == ()
    with pytest.raises(UsageError, match="no adapter called 'c' has a head"):
        merge([a, b], head="c")
    assert [key for key in merge([a, a]).tensors if key.startswith("head.")] == heads


def test_heads_of_other_labels_or_kinds_are_no_mean() -> None:
    a, b = headed(other=("yes", "no"))
    with pytest.raises(UnsupportedError, match="different labels"):
        merge([a, b], head="mean")
    a, b = headed(other=("x", "y", "z"))
    with pytest.raises(UnsupportedError, match="different kinds") as caught:
        merge([a, b])
    assert "--head mean" not in caught.value.hint
    _, plain, _ = pair("lora[r=2]")
    with pytest.raises(UnsupportedError, match="a has a head, a has none"):
        merge([a, plain])
    assert merge([a, plain], head="a").manifest.labels == ("no", "yes")


def test_the_page_on_merging_names_every_method_with_its_source_and_options() -> None:
    text = (Path(__file__).parent.parent / "docs" / "merging.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    named = [name for line in lines for name in re.findall(r"`([a-z_]+)`", line.split(" | ")[0])]
    assert named == [row.name for row in METHODS]
    for row in METHODS:
        line = next(line for line in lines if f"`{row.name}`" in line.split(" | ")[0])
        assert row.paper in line
        assert re.findall(r"\*\*(\w+)\*\*", line) == list(row.needs)
        assert all(option in line.split(" | ")[2] for option in (*row.needs, *row.takes))
