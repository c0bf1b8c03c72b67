"""Folders of `adapters` and adapter-transformers: read in every era, written back as they were, nothing lost unsaid."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import BOTTLENECKS, GOLDEN, Case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from adapterhub.adapter import Adapter, Base, Manifest
from adapterhub.architectures import by_name
from adapterhub.converters import Parts, adapters, detect, native, read, write
from adapterhub.errors import FormatError, NotFoundError, StateError, UnsupportedError, UsageError
from adapterhub.loader import attach
from adapterhub.methods import BottleneckConfig, ClassificationHeadConfig, LayerNormConfig, parse_method, shapes
from adapterhub.sites import Layout, Site

OURS = {"bert", "roberta", "distilbert"}
BOTTLENECK_FIELDS = {field.name for field in dataclasses.fields(BottleneckConfig)}
NOT_RUN = {"prelu", "xielu"}


def readable(case: Case) -> bool:
    """Whether a case is of bottlenecks, updates of linear maps and classification heads, on a family of ours."""
    if case["group"] == "G" or not case.get("adapters"):
        return False
    for folder in case.adapters.values():
        for file in ("adapter_config.json", "head_config.json"):
            if (folder / file).exists() and not document_is_readable(json.loads((folder / file).read_text())):
                return False
        if not (folder / "adapter_config.json").exists() and not (folder / "head_config.json").exists():
            return False
    return True


def document_is_readable(document: dict[str, Any]) -> bool:
    config = document.get("config")
    if document.get("model_type") not in OURS or "peft_type" in document:
        return False
    if config is None:
        return "SequenceClassification" in document["model_class"]
    if "head_type" in config:
        return bool(config["head_type"] == "classification")
    members = config["configs"] if config.get("architecture") == "union" else [config]
    return all(
        member.get("architecture") in (None, "lora", "mtl_lora", "prefix_tuning", "prompt_tuning", "reft")
        and member.get("non_linearity") not in NOT_RUN
        for member in members
    )


CASES = [case for archive in (GOLDEN, BOTTLENECKS) for case in archive.cases() if readable(case)]


def same(a: Parts, b: Parts) -> bool:
    """Whether documents are the same value for value, 16 and 16.0 told apart, and tensors bit for bit."""
    return (
        json.dumps(a.documents, sort_keys=True) == json.dumps(b.documents, sort_keys=True)
        and a.tensors.keys() == b.tensors.keys()
        and all(same_tensors(a.tensors[group], b.tensors[group]) for group in a.tensors)
    )


def same_tensors(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_there_are_cases_of_every_kind() -> None:
    assert len(CASES) > 700
    assert {case["arch"] for case in CASES} == OURS
    assert {case["group"] for case in CASES} == {"A", "B", "C", "E", "F"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_writing_what_was_read_gives_every_value_and_bit_back(case: Case) -> None:
    for folder in case.adapters.values():
        parts = adapters.FORMAT.read(folder)
        adapter = adapters.decode(parts)
        assert same(adapters.encode(adapter), parts)
        # By way of a native file too.
        again = native.decode(native.encode(adapter))
        assert same(adapters.encode(again), parts)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["group"] == "F" and GOLDEN.folder() in case.folder.parents], ids=str
)
def test_a_legacy_adapter_computes_what_its_own_library_computes(case: Case) -> None:
    model = AutoModel.from_pretrained(case.base).eval()
    loaded = attach(model)
    loaded.activate(loaded.load(str(case.adapter)))
    with torch.no_grad():
        output = model(**case.inputs())[case["output_key"]]
    assert case.close(output, case.expected()["output"])


def golden(name: str) -> Path:
    return GOLDEN.case(name).adapter


def folder(tmp_path: Path, name: str = "c-bert-cls2") -> Path:
    """A copy of a golden folder that a test may change."""
    return Path(shutil.copytree(golden(name), tmp_path / "adapter"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any], file: str = "adapter_config.json") -> Path:
    document = json.loads((path / file).read_text())
    changed = change(document)
    (path / file).write_text(json.dumps(document if changed is None else changed))
    return path


def test_what_a_folder_says_is_found_in_the_manifest() -> None:
    adapter = read(golden("c-bert-cls2"))
    assert [part.method for part in adapter.config] == ["bottleneck", "classification_head"]
    assert adapter.manifest.name == "task"
    assert adapter.manifest.base == Base(architecture="bert", id="bases/bert")
    assert adapter.manifest.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    provenance = adapter.manifest.provenance
    assert provenance is not None
    assert (provenance.format, provenance.version, provenance.exact) == ("adapters", "adapters.1.3.0", True)
    assert provenance.digest.startswith("sha256:")
    assert provenance.converter.startswith("adapterhub ")


def test_the_digest_of_a_folder_changes_with_each_of_its_files(tmp_path: Path) -> None:
    path = folder(tmp_path)
    before = adapters.FORMAT.read(path).digest
    assert adapters.FORMAT.read(path).digest == before
    edit(path, lambda document: document | {"note": 1}, "head_config.json")
    assert adapters.FORMAT.read(path).digest != before


def test_a_head_alone_is_an_adapter_too() -> None:
    adapter = read(golden("c-bert-headonly"))
    assert [part.method for part in adapter.config] == ["classification_head"]
    assert set(adapter.tensors) == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}


def set_activation(name: str, document: dict[str, Any]) -> None:
    document["config"]["non_linearity"] = name


def test_gelu_in_a_file_without_version_is_the_approximation_of_its_time(tmp_path: Path) -> None:
    path = folder(tmp_path, "f-v1-bert-pfeiffer-task")
    for theirs, ours in (("gelu", "gelu_new"), ("gelu_orig", "gelu"), ("gelu_new", "gelu_new"), ("relu", "relu")):
        edit(path, functools.partial(set_activation, theirs))
        adapter = read(path)
        assert adapter.config[0].to_json()["non_linearity"] == ours
        assert adapters.encode(adapter).documents["adapter_config.json"]["config"]["non_linearity"] == theirs
    edit(path, lambda d: d | {"version": "3.1.0", "config": d["config"] | {"non_linearity": "gelu"}})
    assert read(path).config[0].to_json()["non_linearity"] == "gelu"


def test_field_names_from_before_version_1_are_read_and_written_back(tmp_path: Path) -> None:
    old = {
        "LN_after": "ln_after",
        "LN_before": "ln_before",
        "MH_Adapter": "mh_adapter",
        "Output_Adapter": "output_adapter",
    }
    path = folder(tmp_path, "f-v1-bert-pfeiffer-task")
    edit(path, lambda d: d.update(config={{v: k for k, v in old.items()}.get(k, k): v for k, v in d["config"].items()}))
    parts = adapters.FORMAT.read(path)
    assert "MH_Adapter" in parts.documents["adapter_config.json"]["config"]
    adapter = adapters.decode(parts)
    assert adapter.config == read(golden("f-v1-bert-pfeiffer-task")).config
    assert same(adapters.encode(adapter), parts)
    edit(path, lambda d: d["config"].update(mh_adapter=True))
    with pytest.raises(FormatError, match="both MH_Adapter and mh_adapter"):
        read(path)


def test_keys_from_before_version_1_are_read_and_written_back() -> None:
    parts = adapters.FORMAT.read(golden("f-v1-bert-pfeiffer-task"))
    old = {k.replace("layer_text_task_adapters", "layer_adapters"): t for k, t in parts.tensors["adapter"].items()}
    older = Parts(parts.documents, {"adapter": old})
    adapter = adapters.decode(older)
    assert same_tensors(adapter.tensors, adapters.decode(parts).tensors)
    assert same(adapters.encode(adapter), older)


def test_an_unused_invertible_adapter_of_a_task_adapter_is_kept_but_not_asked_for(tmp_path: Path) -> None:
    path = folder(tmp_path, "f-v1-bert-pfeiffer-task-unusedinv")
    assert read(path).config == read(golden("f-v1-bert-pfeiffer-task")).config
    edit(path, lambda d: d.update(type="text_lang"))
    with pytest.raises(FormatError, match=r"invertible\.F\.down\.weight' is missing"):
        read(path)


def test_fields_that_nobody_knows_return(tmp_path: Path) -> None:
    path = folder(tmp_path)
    edit(path, lambda d: d | {"mystery": {"a": [1, None]}, "config": d["config"] | {"future": 2.0}})
    edit(path, lambda d: d | {"note": "x", "config": d["config"] | {"wide": True}}, "head_config.json")
    parts = adapters.FORMAT.read(path)
    assert same(adapters.encode(adapters.decode(parts)), parts)


def test_what_was_changed_after_reading_is_written_and_the_rest_as_it_was(tmp_path: Path) -> None:
    path = folder(tmp_path, "f-v1-bert-pfeiffer-task")
    edit(path, lambda d: d["config"].update(reduction_factor=4.0, dropout=0, mystery=1))
    adapter = read(path)
    assert isinstance(adapter.config[0], BottleneckConfig)
    config = dataclasses.replace(adapter.config[0], dropout=0.25, non_linearity="gelu_new")
    manifest = dataclasses.replace(adapter.manifest, name="renamed")
    parts = adapters.encode(Adapter((config,), adapter.tensors, manifest))
    document = parts.documents["adapter_config.json"]
    assert document["name"] == "renamed"
    assert "version" not in document
    assert document["config"]["dropout"] == 0.25
    assert document["config"]["non_linearity"] == "gelu"
    assert json.dumps(document["config"]["reduction_factor"]) == "4.0"
    assert document["config"]["mystery"] == 1
    assert all(".renamed." in key for key in parts.tensors["adapter"])
    assert adapters.decode(parts).config == (config,)


def test_what_the_format_has_no_word_for_is_carried_along(tmp_path: Path) -> None:
    adapter = read(golden("c-bert-cls2"))
    manifest = dataclasses.replace(
        adapter.manifest, summary="A line", license="MIT", labels=("a", "b", "c"), extra={"peft": {"r": 8}}
    )
    path = write(dataclasses.replace(adapter, manifest=manifest), tmp_path / "out", format="adapters")
    again = read(path)
    assert dataclasses.replace(again.manifest, provenance=manifest.provenance) == manifest
    document = json.loads((path / "adapter_config.json").read_text())
    assert document["adapterhub"] == {"summary": "A line", "license": "MIT", "extra": {"peft": {"r": 8}}}
    edit(path, lambda d: d.update(adapterhub={"license": 3, "x": 1}))
    with pytest.raises(FormatError) as error:
        read(path)
    assert len(error.value.faults) == 2


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        (3, "adapterhub"),
        ({"extra": 3}, "extra"),
        ({"config": [], "format": 1}, "config: not a field"),
        ({"base": {"architecture": "roberta"}}, "model_type says bert"),
        ({"name": "../x"}, "name"),
    ],
)
def test_what_is_carried_along_must_be_a_part_of_a_manifest(ours: Any, reason: str, tmp_path: Path) -> None:
    path = edit(folder(tmp_path), lambda document: document | {"adapterhub": ours})
    with pytest.raises(FormatError, match=reason):
        read(path)


@pytest.mark.parametrize(
    "kept",
    [
        3,
        {"prefix": 1},
        {"adapter_config.json": []},
        {"adapter_config.json": {"configs": 1}},
        {"adapter_config.json": {"top": {"set": []}}},
        {"head_config.json": {"configs": [{"absent": "name"}]}},
    ],
)
def test_what_is_kept_of_a_spelling_must_be_one(kept: Any) -> None:
    adapter = read(golden("c-bert-cls2"))
    spoilt = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra={"adapters": kept}))
    with pytest.raises(FormatError, match="take it out of the manifest"):
        adapters.encode(spoilt)


CONFIGS = st.builds(
    BottleneckConfig,
    mh_adapter=st.booleans(),
    output_adapter=st.just(True),
    reduction_factor=st.sampled_from([2, 2.0, 0.5, {"0": 4, "default": 2.5}]),
    non_linearity=st.sampled_from(["relu", "gelu", "swish", "leakyrelu"]),
    original_ln_before=st.just(True),
    original_ln_after=st.booleans(),
    ln_before=st.booleans(),
    ln_after=st.booleans(),
    residual_before_ln=st.sampled_from([True, False, "post_add"]),
    adapter_residual_before_ln=st.booleans(),
    is_parallel=st.booleans(),
    scaling=st.sampled_from([1.0, 4, 0.5, "learned", "channel"]),
    use_gating=st.booleans(),
    leave_out=st.sampled_from([(), (1,), (0,)]),
    dropout=st.sampled_from([0.0, 0.1]),
)
HEADS = st.builds(
    ClassificationHeadConfig,
    num_labels=st.integers(1, 3),
    layers=st.integers(1, 3),
    activation_function=st.sampled_from([None, "tanh"]),
    pooling=st.sampled_from(["first", "pooler"]),
    bias=st.booleans(),
    dropout_prob=st.sampled_from([None, 0.1]),
)


@given(CONFIGS, st.none() | HEADS, st.sampled_from(sorted(OURS)))
@settings(deadline=None, max_examples=150)
def test_an_adapter_made_here_survives_the_format(
    config: BottleneckConfig, head: ClassificationHeadConfig | None, family: str
) -> None:
    assume(head is None or head.pooling != "pooler" or by_name(family).pooler)
    parts: tuple[Any, ...] = (config,) if head is None else (config, head)
    manifest = Manifest(name="made-here", base=Base(architecture=family, id="a/b"), labels=("x", "y") if head else ())
    adapter = Adapter(parts, tensors_of(parts, family), manifest)
    again = adapters.decode(adapters.encode(adapter))
    assert again.config == adapter.config
    assert same_tensors(again.tensors, adapter.tensors)
    assert dataclasses.replace(again.manifest, provenance=None) == manifest


def tensors_of(config: tuple[Any, ...], family: str, layers: int = 3, width: int = 8) -> dict[str, torch.Tensor]:
    """Tensors of an adapter on a family, all values different."""
    stack = by_name(family).layers[0]
    stack = stack.without(stack.may_lack)
    sites = tuple(
        Site(
            path=f"{stack.path.replace('{i}', str(i))}.{part.path}",
            role=part.role,
            layer=i,
            width=width,
            output="",
            residual="",
        )
        for i in range(layers)
        for part in stack.sublayers
    )
    layout = Layout(architecture=family, layers=layers, width=width, sites=sites, norms=(), pooler=True)
    return {key: torch.rand(shape) for key, shape in shapes(config, layout).items()}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ((*parse_method("double_seq_bn"), LayerNormConfig()), "layer_norm"),
        ((*parse_method("seq_bn"), ClassificationHeadConfig(num_labels=2, pooling="mean")), "pooling 'mean'"),
    ],
)
def test_what_cannot_be_said_in_the_format_is_refused(config: tuple[Any, ...], reason: str, tmp_path: Path) -> None:
    found = tensors_of(config, "bert")
    if any(isinstance(part, LayerNormConfig) for part in config):
        places = [f"encoder.layer.{i}.{part}" for i in range(3) for part in ("attention.output", "output")]
        norms = ["embeddings.LayerNorm", *(f"{place}.LayerNorm" for place in places)]
        found |= {f"{norm}.{name}": torch.ones(8) for norm in norms for name in ("weight", "bias")}
    adapter = Adapter(config, found, Manifest(name="x", base=Base(architecture="bert")))
    with pytest.raises(UnsupportedError, match=reason):
        write(adapter, tmp_path / "out", format="adapters")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_is_not_whole_is_not_written(tmp_path: Path) -> None:
    adapter = read(golden("c-bert-cls2"))
    more = dict(adapter.tensors) | {"surplus.weight": torch.zeros(1)}
    with pytest.raises(FormatError, match=r"surplus\.weight"):
        write(dataclasses.replace(adapter, tensors=more), tmp_path / "out", format="adapters")


def test_a_coupling_that_the_library_fails_to_compute_is_refused_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path, "a-bertvar-inv_nice_rf4")
    edit(path, lambda d: d["config"].update(inv_adapter="glow"))
    with pytest.raises(UnsupportedError, match="GLOW"):
        read(path)


DOWN = "bert.encoder.layer.1.output.adapters.task.adapter_down.0.weight"
Tensors = dict[str, torch.Tensor]


def drop(key: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(key)


def put(key: str, change: Callable[[Tensors], torch.Tensor]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({key: change(tensors)})


def move(key: str, new: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({new: tensors.pop(key)})


FAULTY_TENSORS = {
    "missing": (drop(DOWN), "1.output.bottleneck_down.weight' is missing"),
    "renamed": (move(DOWN, DOWN + "x"), "adapter_down.0.weightx' is none of a bottleneck"),
    "transposed": (put(DOWN, lambda t: t[DOWN].t()), "has shape (32, 8), expected (8, 32)"),
    "cut": (put(DOWN, lambda t: t[DOWN][:3]), "has shape (3, 32)"),
    "of another adapter": (move(DOWN, DOWN.replace("task", "other")), "other"),
    "of another era": (move(DOWN, DOWN.replace("adapters", "layer_text_task_adapters")), "layer_text_task_adapters"),
    "without the prefix of the others": (move(DOWN, DOWN.removeprefix("bert.")), "'encoder.layer.1"),
    "of another layer": (move(DOWN, DOWN.replace("layer.1", "layer.7")), "layer.6.output.bottleneck_down"),
    "with a layer written twice": (move(DOWN, DOWN.replace("layer.1", "layer.01")), "layer.01"),
    "a weight of the base": (
        put("bert.embeddings.word_embeddings.weight", lambda t: torch.zeros(100, 32)),
        "embeddings.word_embeddings.weight",
    ),
    "nothing at all": (lambda tensors: tensors.clear(), "no bottleneck of this adapter"),
}


@pytest.mark.parametrize("fault", FAULTY_TENSORS)
def test_a_fault_in_the_tensors_is_named(fault: str) -> None:
    spoil, reason = FAULTY_TENSORS[fault]
    parts = adapters.FORMAT.read(golden("c-bert-cls2"))
    tensors = dict(parts.tensors["adapter"])
    spoil(tensors)
    with pytest.raises(FormatError) as error:
        adapters.decode(Parts(parts.documents, {**parts.tensors, "adapter": tensors}))
    assert reason in str(error.value)


def test_every_tensor_counts() -> None:
    parts = adapters.FORMAT.read(golden("a-bertvar-ln_both"))
    assert len(parts.tensors["adapter"]) == 40
    for key in parts.tensors["adapter"]:
        tensors = {name: tensor for name, tensor in parts.tensors["adapter"].items() if name != key}
        with pytest.raises(FormatError):
            adapters.decode(Parts(parts.documents, {"adapter": tensors}))


def test_all_faults_are_told_at_once() -> None:
    parts = adapters.FORMAT.read(golden("c-bert-cls2"))
    tensors, head = dict(parts.tensors["adapter"]), dict(parts.tensors["head"])
    tensors["surplus"] = tensors.pop(DOWN)
    head["heads.task.9.weight"] = head.pop("heads.task.1.bias")
    with pytest.raises(FormatError) as error:
        adapters.decode(Parts(parts.documents, {"adapter": tensors, "head": head}))
    assert len(error.value.faults) == 4


def test_the_norm_that_stands_in_a_file_twice_must_be_the_same_both_times() -> None:
    parts = adapters.FORMAT.read(golden("a-bertvar-ln_both"))
    key = "encoder.layer.0.output.adapters.task.adapter_norm_before.weight"
    tensors = dict(parts.tensors["adapter"]) | {key: parts.tensors["adapter"][key] + 1}
    with pytest.raises(FormatError, match="repeats another tensor"):
        adapters.decode(Parts(parts.documents, {"adapter": tensors}))


def test_a_config_name_that_is_not_that_of_the_keys_is_told_with_both(tmp_path: Path) -> None:
    path = edit(folder(tmp_path, "a-bert-par_bn"), lambda d: d.update(name="other"))
    with pytest.raises(FormatError, match=r"'other'.*'task'"):
        read(path)


def test_nan_is_refused_unless_one_insists(tmp_path: Path) -> None:
    adapter = read(golden("a-bert-par_bn"))
    key = next(iter(adapter.tensors))
    spoilt = dict(adapter.tensors) | {key: torch.full_like(adapter.tensors[key], float("nan"))}
    path = write(dataclasses.replace(adapter, tensors=spoilt), tmp_path / "out", format="adapters")
    with pytest.raises(FormatError, match="NaN"):
        read(path)
    assert read(path, finite=False).tensors[key].isnan().all()


FAULTY_DOCUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is a list": ({"name": ["task"]}, "name is ['task']"),
    "no name": ({"name": None}, "name is None"),
    "no type of model": ({"model_type": None}, "model_type is None"),
    "a size that is a text": ({"hidden_size": "32"}, "hidden_size is '32'"),
    "another size": ({"hidden_size": 64}, "hidden_size is 64, the tensors have 32"),
    "a version of nobody": ({"version": "adapters.not-a-version"}, "'adapters.not-a-version'"),
    "a version that is a number": ({"version": 1.3}, "version 1.3"),
    "a configuration that is a text": ({"config": "pfeiffer"}, '"pfeiffer", expected an object'),
    "no configuration": ({"config": None}, "expected an object"),
    "an unknown architecture": ({"config": {"architecture": "mystery"}}, '"mystery" is unknown'),
    "an empty union": ({"config": {"architecture": "union", "configs": []}}, "list of configs"),
    "a union in a union": (
        {"config": {"architecture": "union", "configs": [{"architecture": "union", "configs": []}]}},
        '"union" is unknown',
    ),
    "a configuration that lacks fields": ({"config": {"reduction_factor": 4}}, "mh_adapter is missing"),
}


@pytest.mark.parametrize("fault", FAULTY_DOCUMENTS)
def test_a_fault_in_the_document_is_named(fault: str, tmp_path: Path) -> None:
    changes, reason = FAULTY_DOCUMENTS[fault]
    path = edit(folder(tmp_path, "a-bert-par_bn"), lambda document: document | copy.deepcopy(changes))
    with pytest.raises(FormatError) as error:
        read(path)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_labels": 4}, "has shape (3, 32), expected (4, 32)"),
        ({"layers": 1}, "heads.task.4.weight"),
        ({"activation_function": None}, "heads.task.4.weight"),
        ({"bias": False}, "'head.1.bias' has no place"),
        ({"use_pooler": "yes"}, "use_pooler must be true or false"),
        ({"num_labels": "3"}, "num_labels is '3'"),
    ],
)
def test_a_fault_in_the_head_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = edit(folder(tmp_path), lambda d: d["config"].update(changes), "head_config.json")
    with pytest.raises(FormatError) as error:
        read(path)
    assert reason in str(error.value)


def test_adapter_and_head_must_belong_together(tmp_path: Path) -> None:
    path = edit(folder(tmp_path), lambda d: d.update(name="other", model_type="roberta"), "head_config.json")
    with pytest.raises(FormatError) as error:
        read(path)
    assert len(error.value.faults) == 2


@pytest.mark.parametrize(
    ("label2id", "labels"),
    [
        ({"b": 1, "a": 0, "c": 2}, ("a", "b", "c")),
        (None, ()),
        ({"a": 0, "b": 1}, ()),
        ({"a": 0, "b": 1, "c": 7}, ()),
        ({"a": "0", "b": "1", "c": "2"}, ()),
    ],
)
def test_labels_come_in_the_order_of_their_ids_or_not_at_all(
    label2id: Any, labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = edit(folder(tmp_path), lambda d: d["config"].update(label2id=label2id), "head_config.json")
    parts = adapters.FORMAT.read(path)
    adapter = adapters.decode(parts)
    assert adapter.manifest.labels == labels
    assert same(adapters.encode(adapter), parts)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("adapter_config.json", "adapter_config.json is missing"),
        ("adapter.safetensors", "pytorch_adapter.bin is missing"),
        ("head_config.json", "head_config.json is missing"),
        ("model_head.safetensors", "pytorch_model_head.bin is missing"),
    ],
)
def test_a_missing_file_is_named(file: str, reason: str, tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / file).unlink()
    with pytest.raises(FormatError, match=reason):
        read(path)


def test_a_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "README.md").write_text("mine")
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    adapter = read(golden("a-bert-par_bn"))
    with pytest.raises(StateError, match="not empty"):
        write(adapter, path, format="adapters")
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before
    write(adapter, path, format="adapters", force=True)
    assert read(path).config == adapter.config
    assert {entry.name for entry in path.iterdir()} == {"README.md", "adapter_config.json", "adapter.safetensors"}


def test_a_failed_write_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StateError, match="No space left"):
        write(read(golden("a-bert-par_bn")), tmp_path / "out", format="adapters")
    assert list(tmp_path.iterdir()) == []


def test_the_format_of_a_path_is_found_or_told_why_not(tmp_path: Path) -> None:
    assert detect(golden("a-bert-par_bn")).name == "adapters"
    assert detect(Path(__file__).parent / "data" / "native-1" / "adapter.safetensors").name == "native"
    with pytest.raises(NotFoundError):
        detect(tmp_path / "nothing")
    with pytest.raises(FormatError, match="no adapter of a known format"):
        detect(tmp_path)
    (tmp_path / "adapter_setup.json").write_text("{}")
    with pytest.raises(UnsupportedError, match="composition"):
        detect(tmp_path)
    assert detect(GOLDEN.case("b-bert-fuse2").folder / "adapters" / "fusion0").name == "adapters"
    with pytest.raises(UsageError, match=r"known are .*native.*adapters"):
        read(tmp_path, format="nonsense")
