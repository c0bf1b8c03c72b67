"""Faults that the fuzzer found, one test for each kind, on the files that showed it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import BOTTLENECKS, COMPOSITIONS, GOLDEN, HEADS, PEFTS, PREFIXES, Case
from test_adapters_format import same
from test_hostile_input import GOOD, confined, ends_in_ours
from transformers import AutoModel

from adapterhub.architectures import by_name
from adapterhub.converters import Parts, adapters, native, peft, read
from adapterhub.converters.adapters.linears import before_1_1
from adapterhub.converters.peft import targets
from adapterhub.errors import FormatError, UnsupportedError
from adapterhub.loader import attach

Tensor = torch.Tensor


def parts_of(case: Case) -> Parts:
    return adapters.FORMAT.read(case.adapter)


def with_tensors(parts: Parts, change: Callable[[str, Tensor], Tensor | None]) -> Parts:
    """The parts with every tensor changed, or left out where the change is None."""
    groups = {
        group: {key: new for key, tensor in found.items() if (new := change(key, tensor)) is not None}
        for group, found in parts.tensors.items()
    }
    return dataclasses.replace(parts, tensors=groups)


def with_document(parts: Parts, file: str, change: Callable[[dict[str, Any]], Any]) -> Parts:
    document = json.loads(json.dumps(parts.documents[file]))
    change(document)
    return dataclasses.replace(parts, documents={**parts.documents, file: document})


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "no values": lambda tensor: tensor[:0],
    "no dimension": lambda tensor: tensor.new_ones(()),
    "whole numbers": lambda tensor: tensor.int(),
    "truth values": lambda tensor: tensor.bool(),
    "complex numbers": lambda tensor: tensor.to(torch.complex64),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("format_", ["adapters", "peft", "native"])
def test_a_tensor_that_is_none_of_an_adapter_is_named(odd: str, format_: str) -> None:
    parts = parts_of(GOLDEN.case("c-bert-cls2"))
    parts = peft.FORMAT.read(PEFTS.case("bert-lora-list").adapter) if format_ == "peft" else parts
    parts = native.encode(adapters.decode(parts)) if format_ == "native" else parts
    last = sorted(parts.tensors["adapter"])[-1]
    changed = with_tensors(parts, lambda key, tensor: ODD[odd](tensor) if key == last else tensor)
    decode = {"adapters": adapters.decode, "peft": peft.decode, "native": native.decode}[format_]
    with pytest.raises(FormatError, match=re.escape(repr(last))):
        decode(changed)


def _put(odd: torch.Tensor, key: str, tensor: torch.Tensor) -> torch.Tensor:
    return odd


def _changed_at(
    end: str, change: Callable[[torch.Tensor], torch.Tensor], key: str, tensor: torch.Tensor
) -> torch.Tensor:
    return change(tensor) if key.endswith(end) else tensor


def test_a_flat_prefix_that_cannot_be_divided_is_told() -> None:
    parts = parts_of(PREFIXES.case("a-bert-flat"))
    for shape in [(7,), (3, 2, 4)]:
        odd = torch.ones(shape)
        with pytest.raises(FormatError, match="which no prefix of length"):
            adapters.decode(with_tensors(parts, partial(_put, odd)))


def test_a_prefix_whose_weight_and_bias_are_of_different_sizes_is_told() -> None:
    parts = parts_of(PREFIXES.case("a-bert-mlp"))
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "control_trans.2.bias": lambda tensor: tensor[1:],
        "control_trans.2.weight": lambda tensor: tensor.reshape(-1),
    }
    for end, change in changes.items():
        with pytest.raises(FormatError, match="which no prefix of length"):
            adapters.decode(with_tensors(parts, partial(_changed_at, end, change)))


def test_a_prefix_of_layers_in_groups_without_its_copies_is_told() -> None:
    parts = parts_of(PREFIXES.case("a-albert-flat"))
    with pytest.raises(FormatError, match="do not tell how many layers"):
        adapters.decode(with_tensors(parts, lambda key, tensor: None if ".pool." in key else tensor))


def test_the_template_of_a_key_is_no_key() -> None:
    parts = parts_of(GOLDEN.case("a-bert-par_bn"))
    extra = {"bert.encoder.layer.{i}.output.adapters.task.adapter_down.0.bias": torch.ones(16)}
    changed = dataclasses.replace(parts, tensors={"adapter": {**parts.tensors["adapter"], **extra}})
    with pytest.raises(FormatError, match=r"layer\.\{i\}"):
        adapters.decode(changed)


def test_a_vector_where_the_library_has_a_column_is_told() -> None:
    parts = parts_of(GOLDEN.case("e-bert-ia3-attn"))
    with pytest.raises(FormatError, match="expected a column"):
        adapters.decode(with_tensors(parts, lambda key, tensor: tensor.reshape(-1)))


def test_a_copy_that_is_missing_at_one_map_is_told() -> None:
    parts = peft.FORMAT.read(PEFTS.case("bert-randlora-sizes").adapter)
    first = next(key for key in parts.tensors["adapter"] if key.endswith("query.randlora_A"))
    with pytest.raises(FormatError, match="'randlora_A' is missing at"):
        peft.decode(with_tensors(parts, lambda key, tensor: None if key == first else tensor))


def test_keys_that_are_not_all_of_one_model_are_told() -> None:
    parts = peft.FORMAT.read(PEFTS.case("llama-tied-lora-tied-ensured-saved").adapter)
    key = next(key for key in parts.tensors["adapter"] if "embed_tokens" in key)
    tensors = dict(parts.tensors["adapter"])
    tensors["base_model.model.phm_rule.embed_tokens.weight"] = tensors.pop(key)
    with pytest.raises(FormatError):
        peft.decode(dataclasses.replace(parts, tensors={"adapter": tensors}))


@pytest.mark.parametrize("name", ["bert-shira", "bert-supertuning", "bert-vblora-topk"])
@pytest.mark.parametrize("number", [-1, 250])
def test_places_that_a_weight_does_not_have_are_told_when_it_is_loaded(name: str, number: int) -> None:
    case = PEFTS.case(name)

    def move(key: str, tensor: Tensor) -> Tensor:
        if not key.endswith("_indices"):
            return tensor
        moved = tensor.clone() if tensor.dtype != torch.uint8 else tensor.int()
        moved.view(-1)[0] = number * 1000
        return moved

    adapter = peft.decode(with_tensors(peft.FORMAT.read(case.adapter), move))
    loaded = attach(AutoModel.from_pretrained(case.base).eval())
    with pytest.raises(FormatError, match="names places"):
        loaded.load(adapter)
    assert loaded.names == ()


def assert_written_back(parts: Parts) -> None:
    assert same(adapters.encode(adapters.decode(parts)), parts)


def test_a_fusion_layer_with_a_name_of_its_own_keeps_it() -> None:
    parts = adapters.FORMAT.read(COMPOSITIONS.folder() / "adapters" / "t5" / "a+b+gated")
    file = "adapter_fusion_config.json"
    assert_written_back(with_document(parts, file, lambda document: document.update(adapter_names=["a", "gated"])))


def test_a_head_without_the_name_of_its_base_is_written_back_without() -> None:
    parts = parts_of(BOTTLENECKS.case("c-roberta-static1-seq"))
    assert_written_back(with_document(parts, "head_config.json", lambda document: document.pop("model_name")))


def test_the_head_of_a_class_without_a_configuration_is_written_back_without() -> None:
    parts = parts_of(HEADS.case("bart-ForQuestionAnswering"))
    assert_written_back(with_document(parts, "head_config.json", lambda document: document.pop("config")))


def test_the_head_of_a_class_with_a_name_keeps_it() -> None:
    parts = parts_of(HEADS.case("mistral-ForTokenClassification"))
    assert_written_back(with_document(parts, "head_config.json", lambda document: document.update(name="(a+)+$")))


@pytest.mark.parametrize("version", [None, "", "adapters.1.x", "adapters.not-a-version", "1." * 200 + "0"])
def test_a_version_that_the_library_fails_on_is_told(version: str | None) -> None:
    parts = parts_of(GOLDEN.case("a-bert-par_bn"))
    changed = with_document(parts, "adapter_config.json", lambda document: document.update(version=version))
    with pytest.raises(FormatError, match="is none of adapters"):
        adapters.decode(changed)


@pytest.mark.parametrize(
    ("version", "before"),
    [
        *(("adapters.1", True), ("adapters.0.9", True), ("adapters.1.1.0.dev0", True), ("adapters.1.1.0rc1", True)),
        *(("adapters.1.1", False), ("adapters.1.1.0", False), ("adapters.1.1.1.dev0", False), ("3.2.1", False)),
    ],
)
def test_releases_before_1_1_are_those_of_the_order_of_versions(version: str, before: bool) -> None:
    assert before_1_1(version) == before


def test_what_cannot_be_read_for_want_of_rights_ends_in_an_error_of_ours(as_nobody: Path) -> None:
    folder = as_nobody / "adapter"
    folder.mkdir()
    for name, data in GOOD.items():
        if name.startswith("c-bert-cls2/"):
            (folder / Path(name).name).write_bytes(data)
    read(folder)
    (folder / "adapter_config.json").chmod(0)
    ends_in_ours(lambda: read(folder))
    (folder / "adapter_config.json").chmod(0o644)
    folder.chmod(0)
    ends_in_ours(lambda: read(folder))
    folder.chmod(0o755)


@pytest.mark.parametrize("value", [5, "x" * 3000, None, [1], {"a": 1}])
def test_fields_that_nobody_knows_around_the_members_of_a_union_come_back(value: Any) -> None:
    parts = with_document(
        parts_of(BOTTLENECKS.case("a-bert-union-par-seq")),
        "adapter_config.json",
        lambda document: document["config"].update(unknown=value),
    )
    again = adapters.FORMAT.encode(adapters.FORMAT.decode(parts))
    assert again.documents == parts.documents


def test_a_group_of_layers_that_is_left_out_and_has_tensors_ends() -> None:
    parts = with_document(
        parts_of(GOLDEN.case("a-albert-lora")),
        "adapter_config.json",
        lambda document: document["config"].update(leave_out=[0]),
    )
    with pytest.raises(FormatError):
        adapters.FORMAT.decode(parts)


@pytest.mark.parametrize("left_out", [[10**9], [0, 1, 10**9], list(range(5000))])
@pytest.mark.parametrize("arch", ["albert", "bart", "t5", "bert"])
def test_layers_that_no_model_has_are_left_out_in_no_time(arch: str, left_out: list[int]) -> None:
    case = next(iter(GOLDEN.cases(groups="A", archs=arch)))
    parts = with_document(
        parts_of(case), "adapter_config.json", lambda document: document["config"].update(leave_out=left_out)
    )

    def decoded() -> None:
        with contextlib.suppress(FormatError, UnsupportedError):
            adapters.FORMAT.decode(parts)

    assert confined(decoded)["kind"] == "ok"


def test_groups_and_layers_are_not_more_together_than_models_have() -> None:
    albert = by_name("albert")
    paths = {
        f"encoder.albert_layer_groups.{group}.albert_layers.{layer}.attention.query"
        for group, layer in ((0, 1000), (1000, 0))
    }
    with pytest.raises(FormatError, match="name 1,002,001 layers, and models have up to 1,024"):
        list(targets.alike(albert, paths))
    with pytest.raises(FormatError, match="name 1,002,001 layers"):
        targets.words(albert, paths, lambda path: True)


ODD_VALUES: tuple[Any, ...] = ([["x"]], {"x": []}, -1, "x", 1e300, None, True)


@pytest.mark.parametrize("name", sorted({case["method"]: str(case) for case in PEFTS.cases(archs="bert")}.values()))
def test_any_value_in_any_field_of_peft_is_understood_or_told(name: str) -> None:
    parts = peft.FORMAT.read(PEFTS.case(name).adapter)
    document = parts.documents["adapter_config.json"]
    for field, value in itertools.product(document, ODD_VALUES):
        changed = dataclasses.replace(parts, documents={"adapter_config.json": {**document, field: value}})
        with contextlib.suppress(FormatError, UnsupportedError):
            peft.FORMAT.decode(changed)


@pytest.mark.parametrize(
    "case", {case["method"]: case for case in GOLDEN.cases(groups="A", archs="bert")}.values(), ids=str
)
def test_any_value_in_any_field_of_adapters_is_understood_or_told(case: Case) -> None:
    parts = parts_of(case)
    document = parts.documents["adapter_config.json"]
    for field, value in itertools.product(document["config"], ODD_VALUES):
        config = {**document["config"], field: value}
        changed = {**parts.documents, "adapter_config.json": {**document, "config": config}}
        with contextlib.suppress(FormatError, UnsupportedError):
            adapters.FORMAT.decode(dataclasses.replace(parts, documents=changed))


def test_a_key_with_our_place_for_a_name_is_none_of_the_adapter() -> None:
    parts = parts_of(GOLDEN.case("a-llama-lora_all"))
    found = dict(parts.tensors["adapter"])
    key = next(iter(found))
    other = key.replace(".task.", ".{name}.")
    assert other != key
    with pytest.raises(FormatError, match="name"):
        adapters.FORMAT.decode(dataclasses.replace(parts, tensors={"adapter": {**found, other: found[key]}}))
