"""LoRA, (IA)³, VeRA and MTL-LoRA in folders of `adapters`: what made here survives, what is wrong is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import GOLDEN, Case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_adapters_format import same
from test_family_outputs import assert_same, base_of
from test_linear_outputs import FOLDER
from torch import Tensor
from transformers import BertConfig, BertModel

from adapterhub import convert
from adapterhub.adapter import Adapter, Base, Manifest, MethodConfig
from adapterhub.converters import Parts, adapters, read, write
from adapterhub.errors import FormatError, UnsupportedError
from adapterhub.loader import attach
from adapterhub.methods import IA3Config, LoraConfig, MtlLoraConfig, VeraConfig, shapes
from adapterhub.sites import Layout

FAMILIES = ("bert", "gpt2", "llama", "bart", "mt5")
CONFIG = "adapter_config.json"


@cache
def layout_of(family: str) -> Layout:
    return attach(base_of(family))._ground.layout


def made(config: MethodConfig, family: str = "bert") -> Adapter:
    """Return an adapter with random tensors on a family."""
    own = {key: torch.rand(shape) for key, shape in shapes([config], layout_of(family)).items()}
    return Adapter((config,), own, Manifest(name="made-here", base=Base(architecture=family, id="a/b")))


TARGETS = st.lists(st.sampled_from(["query", "key", "value", "intermediate", "output"]), min_size=1).map(tuple)
COMMON: dict[str, Any] = {
    "leave_out": st.sampled_from([(), (1,)]),
    "init_weights_seed": st.none() | st.integers(0, 99),
}


@st.composite
def configs(draw: st.DrawFn) -> MethodConfig:
    """Any configuration that the format has a word for, on a model without merged projections."""
    common: dict[str, Any] = {name: draw(strategy) for name, strategy in COMMON.items()}
    common |= {"targets": draw(TARGETS), "gating": draw(st.booleans())}
    r = draw(st.integers(1, 4))
    alpha = draw(st.sampled_from([1, 2.5, 8.0]))
    if draw(st.booleans()):
        return IA3Config(inputs=(), alpha=1.0 if common["gating"] else alpha, **common)
    common |= {"r": r, "alpha": r if common["gating"] else alpha, "dropout": draw(st.sampled_from([0.0, 0.1]))}
    kind = draw(st.sampled_from(["lora", "vera", "mtl"]))
    if kind == "mtl":
        matrix: Any = draw(st.sampled_from(["singular_values", "linear"]))
        return MtlLoraConfig(ups=draw(st.integers(1, 3)), task_matrix=matrix, sharpness=0.3, **common)
    magnitude: Any = "none" if common["gating"] else draw(st.sampled_from(["none", "dora_adapters"]))
    if kind == "lora":
        return LoraConfig(magnitude=magnitude, init_weights=draw(st.sampled_from(["lora", "bert"])), **common)
    return VeraConfig(form="matrices", magnitude=magnitude, d_initial=draw(st.sampled_from([0.1, 1.0])), **common)


@given(configs(), st.sampled_from(FAMILIES))
@settings(deadline=None, max_examples=150)
def test_an_adapter_made_here_survives_the_format(config: MethodConfig, family: str) -> None:
    if isinstance(config, IA3Config) and family == "gpt2":
        parts = {"query", "key", "value"} & set(config.targets)
        config = dataclasses.replace(config, rest=config.alpha if 0 < len(parts) < 3 else 1.0)
    try:
        adapter = made(config, family)
    except UnsupportedError:
        assume(False)
    again = adapters.decode(adapters.encode(adapter))
    assert_same(again, adapter)
    assert dataclasses.replace(again.manifest, provenance=None) == adapter.manifest


def test_the_same_targets_in_another_order_are_the_same_configuration() -> None:
    first, second = LoraConfig(targets=("value", "query", "value")), LoraConfig(targets=("query", "value"))
    assert first == second
    assert IA3Config(inputs=("output", "intermediate")) == IA3Config(inputs=("intermediate", "output"))


REFUSED: dict[str, tuple[MethodConfig, str]] = {
    "another target": (LoraConfig(targets=("attention_output",)), "'attention_output' has no name"),
    "a path": (LoraConfig(targets=("encoder.layer.0.output.dense",)), "has no name in it"),
    "rsLoRA": (LoraConfig(rank_stabilised=True), "√r"),
    "several ranks": (LoraConfig(ranks={"query": 2}), "one r for all maps"),
    "several alphas": (LoraConfig(alphas={"query": 2.0}), "alpha is one for all"),
    "a scaled gate": (LoraConfig(gating=True, alpha=4.0), "none with a gate"),
    "DoRA of the paper": (LoraConfig(magnitude="dora"), "another norm"),
    "a bias": (LoraConfig(update_bias=True), "no bias"),
    "(IA)³ of the paper": (IA3Config(), "inputs="),
    "several factors": (IA3Config(inputs=(), alphas={"key": 2.0}), "alpha is one for all"),
    "a factor of nothing": (IA3Config(inputs=(), rest=2.0), "without a vector"),
    "VeRA of the paper": (VeraConfig(r=4), "form=matrices"),
    "VeRA without scale": (VeraConfig(r=4, form="matrices"), "number for alpha"),
    "a seed for VeRA": (VeraConfig(r=4, alpha=4, form="matrices", projection_seed=0), "not what they are drawn with"),
    "a scaled gate of VeRA": (VeraConfig(r=4, alpha=3, form="matrices", gating=True), "no alpha with a gate"),
    "DVoRA of the paper": (VeraConfig(r=4, alpha=3, form="matrices", magnitude="dora"), "another norm"),
    "a scaled gate of MTL-LoRA": (MtlLoraConfig(gating=True, alpha=3), "no alpha with a gate"),
    "another target of MTL-LoRA": (MtlLoraConfig(targets=("gate", "query")), "'gate' has no name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_said_in_the_format_is_refused(what: str) -> None:
    config, reason = REFUSED[what]
    family = "llama" if "gate" in config.targets else "bert"
    with pytest.raises(UnsupportedError) as error:
        adapters.encode(made(config, family))
    assert reason in str(error.value)


def parts_of(case: str) -> Parts:
    return adapters.FORMAT.read(FOLDER / case)


def changed(case: str, **fields: Any) -> Parts:
    """Return the files of a case with other fields in its configuration."""
    parts = parts_of(case)
    document = json.loads(json.dumps(parts.documents[CONFIG]))
    document["config"] |= fields
    return Parts({CONFIG: document}, parts.tensors)


FAULTY: dict[str, tuple[str, dict[str, Any], str]] = {
    "an absurd rank": ("bert-lora", {"r": 10**9}, "r is 1000000000"),
    "no rank": ("bert-lora", {"r": 0}, "r is 0"),
    "a rank that is a text": ("bert-lora", {"r": "8"}, "r is '8'"),
    "a rank of another": ("bert-lora", {"r": 4}, "has shape (3, 32), expected (4, 32)"),
    "an alpha that is a text": ("bert-lora", {"alpha": "5"}, "alpha is '5', expected a number"),
    "an alpha beyond floats": ("bert-lora", {"alpha": 10**400}, "alpha"),
    "an alpha beyond reason": ("bert-lora", {"alpha": 1e200}, "alpha is 1e+200"),
    "an alpha that is true": ("bert-lora", {"alpha": True}, "alpha is True"),
    "an unknown matrix": ("bert-lora", {"attn_matrices": ["q", "z"]}, "attn_matrices is ['q', 'z']"),
    "matrices in a text": ("bert-lora", {"attn_matrices": "qv"}, "attn_matrices is 'qv'"),
    "matrices in matrices": ("bert-lora", {"attn_matrices": [["q"], {}]}, "attn_matrices is"),
    "a matrix without tensors": ("bert-lora", {"attn_matrices": ["q", "k", "v"]}, "key.lora_A' is missing"),
    "no place": ("bert-lora", {"selfattn_lora": False}, "targets is empty"),
    "a flag that is a text": ("bert-lora", {"output_lora": "false"}, "output_lora is 'false', expected true or false"),
    "a flag that is a number": ("bert-lora", {"use_gating": 1}, "use_gating is 1"),
    "no such composition": ("bert-lora", {"composition_mode": "multiply"}, "composition_mode is 'multiply'"),
    "layers in a text": ("bert-lora", {"leave_out": "0"}, "leave_out is '0'"),
    "a dtype that is code": ("bert-lora", {"dtype": "load"}, "dtype is 'load'"),
    "a dropout beyond 1": ("bert-lora", {"dropout": 1.5}, "dropout"),
    "magnitudes that are missing": ("bert-lora", {"use_dora": True}, "lora_magnitude' is missing"),
    "gates that are missing": ("bert-lora", {"use_gating": True}, "lora_gate.weight' is missing"),
    "LoRA taken for VeRA": ("bert-lora", {"vera_d": 0.1, "vera_b": 0.0}, "hold no vera of this adapter"),
    "VeRA taken for LoRA": ("bert-vera", {"vera_d": None, "vera_b": None}, "hold no lora of this adapter"),
    "half a VeRA": ("bert-vera", {"vera_b": None}, "one of them is null"),
    "a VeRA of a text": ("bert-vera", {"vera_b": "0"}, "vera_b is '0'"),
    "a VeRA without end": ("bert-vera", {"vera_d": float("inf")}, "d_initial is inf"),
    "a VeRA that multiplies": ("bert-vera", {"composition_mode": "multiply"}, "composition_mode is 'multiply'"),
    "(IA)³ of two columns": ("bert-ia3", {"r": 2}, "does not go with r=2"),
    "(IA)³ with dropout": ("bert-ia3", {"dropout": 0.1}, "does not go with dropout=0.1"),
    "(IA)³ with magnitudes": ("bert-ia3", {"use_dora": True}, "does not go with use_dora=True"),
    "(IA)³ taken for LoRA": ("bert-ia3", {"composition_mode": "add"}, "lora_A' is missing"),
    "MTL-LoRA that scales": ("bert-mtl", {"composition_mode": "scale"}, "mtl_lora does not go with"),
    "MTL-LoRA with magnitudes": ("bert-mtl", {"use_dora": True}, "mtl_lora does not go with"),
    "MTL-LoRA of too many": ("bert-mtl", {"n_up_projection": 10**9}, "ups is 1000000000"),
    "MTL-LoRA of a sharpness of 0": ("bert-mtl", {"weights_sharpness": 0.0}, "sharpness is 0.0"),
    "MTL-LoRA of another matrix": ("bert-mtl", {"task_specific_matrix_type": "none"}, "task_matrix is 'none'"),
    "MTL-LoRA of whole matrices": ("bert-mtl", {"task_specific_matrix_type": "linear"}, "mtl_task' has shape (3,)"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_in_the_configuration_is_named(fault: str) -> None:
    case, fields, reason = FAULTY[fault]
    with pytest.raises(FormatError) as error:
        adapters.decode(changed(case, **fields))
    assert reason in str(error.value)


BAD = ("absurd-rank", "attn-matrices", "missing-tensor-lora", "missing-weights-lora", "truncated-lora", "f16-weights")


@pytest.mark.parametrize("case", [c for c in GOLDEN.cases(groups="G") if str(c).endswith(BAD)], ids=str)
def test_a_bad_folder_of_the_golden_cases_is_refused_or_read_as_it_should_be(case: Case) -> None:
    if case["expect"].startswith("ok"):
        assert read(case.adapter).tensors
    else:
        with pytest.raises(FormatError):
            read(case.adapter)
    assert not Path(case["must_not_exist_after"]).exists()


def with_tensors(case: str, change: Callable[[dict[str, Tensor]], Any]) -> Parts:
    parts = parts_of(case)
    own = dict(parts.tensors["adapter"])
    change(own)
    return Parts(parts.documents, {"adapter": own})


@pytest.mark.parametrize(
    "case", ["bert-lora-gated-q", "gpt2-lora-all", "bert-ia3", "bert-dora-all", "bert-dvora", "bert-mtl", "mt5-vera-q"]
)
def test_every_tensor_counts(case: str) -> None:
    own = parts_of(case).tensors["adapter"]
    for key in own:
        rest = {name: tensor for name, tensor in own.items() if name != key}
        for spoilt in (rest, rest | {f"{key}x": own[key]}, rest | {key: own[key][..., None]}):
            with pytest.raises(FormatError):
                adapters.decode(Parts(parts_of(case).documents, {"adapter": spoilt}))


def test_shared_matrices_that_were_not_saved_are_missed_by_name() -> None:
    def drop(own: dict[str, Tensor]) -> None:
        for key in [key for key in own if "shared_parameters" in key]:
            del own[key]

    for case in ("bert-vera", "bert-dvora", "encoder-decoder-vera-q"):
        with pytest.raises(
            FormatError, match=r"lack shared_parameters.* save the adapter again from a model with a head"
        ):
            adapters.decode(with_tensors(case, drop))


def test_copies_of_the_shared_matrices_must_be_equal() -> None:
    def spoil(own: dict[str, Tensor]) -> None:
        key = next(key for key in own if key.startswith("decoder") and "shared_parameters" in key)
        own[key] = own[key] + 1

    with pytest.raises(FormatError, match="repeats another tensor"):
        adapters.decode(with_tensors("encoder-decoder-vera-q", spoil))


def test_llama_calls_the_layer_that_narrows_intermediate() -> None:
    for family in ("llama", "mistral"):
        adapter = read(FOLDER / f"{family}-ia3-of-paper")
        assert adapter.config[0].targets == ("key", "output", "value")
        assert "layers.0.mlp.down_proj.ia3_outputs" in adapter.tensors
    assert "layers.0.mlp.up_proj.ia3_outputs" in read(FOLDER / "qwen2-ia3-of-paper").tensors


def test_before_1_1_alpha_counted_at_merged_projections_only() -> None:
    def lora(case: str, **fields: Any) -> Any:
        return adapters.decode(changed(case, **fields)).config[0]

    assert (lora("bert-old-attention").alpha, lora("bert-old-attention").alphas) == (3, {})
    assert lora("gpt2-old-attention").alphas == {"query": 5, "key": 5}
    assert lora("gpt2-old-attention").alpha == 3
    assert lora("gpt2-old-forward").alphas == {}
    assert lora("gpt2-old-gated", alpha=7).alphas == {}
    assert (lora("gpt2-old-ia3-attention").alphas, lora("gpt2-old-ia3-attention").rest) == ({"query": 3, "value": 3}, 3)
    assert lora("bert-old-ia3-attention").alpha == 1
    assert lora("bert-lora").alpha == 5


def test_releases_since_1_1_and_those_before_adapters_count_alpha_everywhere() -> None:
    for version in ("adapters.1.1.0", "adapters.1.10.2", "adapters.2.0", "3.2.1"):
        parts = parts_of("bert-lora")
        document = {**parts.documents[CONFIG], "version": version}
        adapter = adapters.decode(Parts({CONFIG: document}, parts.tensors))
        assert adapter.config[0].alpha == 5
        assert same(adapters.encode(adapter), Parts({CONFIG: document}, parts.tensors))


def test_an_old_adapter_that_is_changed_keeps_its_scale() -> None:
    adapter = read(FOLDER / "gpt2-old-attention")
    renamed = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, name="other"))
    assert adapters.decode(adapters.encode(renamed)).config == adapter.config
    moved = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra={}))
    with pytest.raises(UnsupportedError, match="alpha is one for all maps"):
        adapters.encode(moved)


def test_what_a_file_leaves_out_has_the_librarys_defaults() -> None:
    parts = parts_of("bert-lora")
    config = {"architecture": "lora", "r": 3}
    bare = Parts({CONFIG: {**parts.documents[CONFIG], "config": config}}, parts.tensors)
    adapter = adapters.decode(bare)
    assert adapter.config == (LoraConfig(r=3, alpha=8),)
    assert same(adapters.encode(adapter), bare)


def test_a_matrix_of_a_task_multiplies_from_the_right_in_a_file() -> None:
    adapter = made(MtlLoraConfig(r=3, task_matrix="linear"))
    parts = adapters.encode(adapter)
    path = "encoder.layer.0.attention.self.query"
    theirs = parts.tensors["adapter"][f"bert.{path}.loras.made-here.task_specific.values"]
    assert torch.equal(theirs, adapter.tensors[f"{path}.mtl_task"].t())


def test_a_folder_written_here_is_read_by_its_own_names(tmp_path: Path) -> None:
    adapters.FORMAT.write(adapters.encode(made(VeraConfig(r=4, alpha=4, form="matrices"))), tmp_path / "x", False)
    document = json.loads((tmp_path / "x" / CONFIG).read_text())
    assert (document["config"]["vera_d"], document["config"]["alpha"], document["hidden_size"]) == (0.1, 4, 32)
    assert isinstance(document["config"]["vera_b"], float)
    assert read(tmp_path / "x").config == (VeraConfig(r=4, alpha=4, form="matrices"),)


def behind(activation: str) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act=activation,
    )
    return BertModel(config).eval()


def scaling(sign: float = 1.0) -> Adapter:
    """Return an (IA)³ of what the second feed-forward map of every layer reads; sign: of one factor."""
    places = [f"encoder.layer.{i}.output.dense.ia3_inputs" for i in (0, 1)]
    generator = torch.Generator().manual_seed(1)
    own = {place: torch.rand(24, generator=generator) * 2 for place in places}
    own[places[1]][3] *= sign
    config = IA3Config(targets=(), inputs=("output",))
    return Adapter((config,), own, Manifest(name="made-here", base=Base(architecture="bert", id="a/b")))


def test_factors_that_are_not_negative_go_through_relu(tmp_path: Path) -> None:
    base, ids = behind("relu"), torch.arange(12).view(2, 6)
    path = write(scaling(), tmp_path / "a.safetensors")
    report = convert(path, tmp_path / "out", to="adapters", base=base, verify=True)
    assert report.verified is not None
    assert report.verified.difference < 1e-5
    found = read(tmp_path / "out")
    said = found.config[0].to_json()
    assert (said["targets"], said["inputs"]) == (["intermediate"], [])
    answers: list[Tensor] = []
    for adapter in (scaling(), found):
        loaded = attach(base)
        loaded.load(adapter, name="task", set_active=True)
        with torch.no_grad():
            answers.append(base(ids).last_hidden_state)
        loaded.detach()
    assert torch.allclose(answers[0], answers[1], atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(base(ids).last_hidden_state, answers[0], atol=1e-2)


@pytest.mark.parametrize(
    ("activation", "sign", "named"),
    [("relu", -1.0, True), ("gelu", 1.0, True), ("relu", 1.0, False)],
    ids=["negative", "gelu", "unknown base"],
)
def test_other_factors_of_inputs_are_refused(activation: str, sign: float, named: bool, tmp_path: Path) -> None:
    path = write(scaling(sign), tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedError, match="it scales outputs, not what maps read"):
        convert(path, tmp_path / "out", to="adapters", base=behind(activation) if named else None)
    assert not (tmp_path / "out").exists()


def test_magnitudes_of_a_joint_map_are_refused_because_the_library_does_not_use_them() -> None:
    # With one of query, key and value it saves them, with several it fails: there is one for each map, of all rows.
    parts = changed("gpt2-lora-k", use_dora=True)
    own = dict(parts.tensors["adapter"])
    own |= {key.replace("lora_A", "m.weight"): torch.ones(32, 1) for key in own if key.endswith(".lora_A")}
    with pytest.raises(
        UnsupportedError, match=r"query, key and value side by side, where `adapters` saves.*use_dora=False"
    ):
        adapters.decode(Parts(parts.documents, {"adapter": own}))
