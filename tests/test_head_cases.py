"""Heads of every kind and family: answers and losses of the reference, and files that come back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from golden import HEADS, Case

from adapterhub.adapter import Adapter
from adapterhub.architectures import ARCHITECTURES
from adapterhub.converters import Parts, adapters, native
from adapterhub.errors import AdapterHubError, BaseMismatchError, FormatError, UnsupportedError
from adapterhub.loader import attach

CASES = HEADS.cases()
STATIC = HEADS.cases(kinds="static")
WITH_BASE = [
    case
    for case in STATIC
    if case["head_class"].partition("T5For")[2] in ("SequenceClassification", "TokenClassification")
]
"""Heads that the library saves together with all weights of the base model."""


def bare(case: Case, name: str = "") -> transformers.PreTrainedModel:
    cls = getattr(transformers, name or case["base_class"])
    made: transformers.PreTrainedModel = cls.from_pretrained(case.base).eval()
    return made


def read(case: Case) -> Adapter:
    """Return the adapter of a case; that weights of the base model are left out is expected, and told."""
    parts = adapters.FORMAT.read(case.adapter)
    if case not in WITH_BASE:
        return adapters.decode(parts)
    with pytest.warns(UserWarning, match="weights of its base model"):
        return adapters.decode(parts)


@torch.no_grad()
def check(case: Case, base: transformers.PreTrainedModel) -> None:
    """Hold answers and loss against the reference's."""
    right = {name: torch.tensor(value) for name, value in case["labels"].items()}
    found, expected = base(**case.inputs(), **right), case.expected()
    for name in case["outputs"]:
        assert case.close(found[name], expected[name]), (name, float((found[name] - expected[name]).abs().max()))


def test_there_are_cases_of_every_kind_and_of_every_class() -> None:
    kinds = {case["method"] for case in CASES if case["kind"] == "flexible"}
    assert len(kinds) == 10
    known = {name for row in ARCHITECTURES for head in row.heads for name in head.classes}
    assert {case["head_class"] for case in STATIC} <= known
    assert len({case["head_class"] for case in STATIC}) == 88


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_head_gives_the_answers_and_the_loss_of_the_reference_on_the_bare_model(case: Case) -> None:
    base = bare(case)
    attach(base).load(read(case), set_active=True)
    check(case, base)


@pytest.mark.parametrize("case", STATIC, ids=str)
def test_the_head_of_a_class_takes_the_place_of_the_one_that_a_model_of_the_class_has(case: Case) -> None:
    torch.manual_seed(0)
    base = bare(case, case["head_class"])
    loaded = attach(base)
    loaded.load(read(case), set_active=True)
    check(case, base)


def same(a: Parts, b: Parts) -> bool:
    texts = [json.dumps(parts.documents, sort_keys=True) for parts in (a, b)]
    tensors = [{(group, key): t for group, own in parts.tensors.items() for key, t in own.items()} for parts in (a, b)]
    return (
        texts[0] == texts[1]
        and tensors[0].keys() == tensors[1].keys()
        and all(torch.equal(tensor, tensors[1][key]) for key, tensor in tensors[0].items())
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_writing_what_was_read_gives_every_value_and_bit_back(case: Case) -> None:
    adapter = read(case)
    parts = adapters.FORMAT.read(case.adapter)
    if case in WITH_BASE:
        own = {key: tensor for key, tensor in parts.tensors["head"].items() if key.startswith("classif")}
        written = adapters.encode(adapter)
        assert same(Parts({}, {**parts.tensors, "head": own}), Parts({}, written.tensors))
        assert adapters.decode(written).manifest.base == adapter.manifest.base
        return
    assert same(adapters.encode(adapter), parts)
    assert same(adapters.encode(native.decode(native.encode(adapter))), parts)


@pytest.mark.parametrize("case", WITH_BASE, ids=str)
def test_a_head_that_was_saved_with_its_base_model_is_loaded_onto_that_model_only(case: Case) -> None:
    base = bare(case)
    with torch.no_grad():
        for parameter in base.encoder.parameters():
            parameter.add_(0.5)
    with pytest.raises(BaseMismatchError, match="holds other values"):
        attach(base).load(read(case))


@pytest.mark.parametrize("name", ["bert-ForMaskedLM", "bart-ForConditionalGeneration", "roberta-ForCausalLM"])
def test_a_bias_that_stands_in_a_file_twice_must_be_the_same_and_may_stand_there_once(name: str) -> None:
    parts = adapters.FORMAT.read(HEADS.case(name).adapter)
    biases = [
        key for key in parts.tensors["head"] if key.endswith(("predictions.bias", "decoder.bias", "lm_head.bias"))
    ]
    for key in biases:
        one = {other: tensor for other, tensor in parts.tensors["head"].items() if other != key}
        less = Parts(parts.documents, {"head": one})
        assert same(adapters.encode(adapters.decode(less)), less)
        other = parts.tensors["head"] | {key: parts.tensors["head"][key] + 1}
        with pytest.raises(FormatError, match="other values"):
            adapters.decode(Parts(parts.documents, {"head": other}))


def test_prefixes_that_stand_in_the_file_of_a_head_once_more_must_be_those_of_the_adapter() -> None:
    parts = adapters.FORMAT.read(HEADS.case("t5-ForQuestionAnswering-prefix").adapter)
    again = [key for key in parts.tensors["head"] if "prefix_tunings" in key]
    assert again
    head = parts.tensors["head"] | {again[0]: parts.tensors["head"][again[0]] + 1}
    with pytest.raises(FormatError, match="repeats a tensor of the adapter with other values"):
        adapters.decode(Parts(parts.documents, {**parts.tensors, "head": head}))


def test_weights_of_other_adapters_in_the_file_of_a_head_are_left_out_and_told() -> None:
    parts = adapters.FORMAT.read(HEADS.case("t5-ForQuestionAnswering-prefix").adapter)
    other = {key.replace(".task.", ".other."): t for key, t in parts.tensors["head"].items() if ".task." in key}
    more = Parts(parts.documents, {**parts.tensors, "head": parts.tensors["head"] | other})
    with pytest.warns(UserWarning, match=f"came with {len(other)} weights of other adapters; they are left out"):
        adapter = adapters.decode(more)
    assert same(adapters.encode(adapter), parts)


@pytest.mark.parametrize("name", ["bart", "t5", "albert"])
def test_a_head_that_no_class_of_adapters_takes_is_refused_or_written_as_that_of_a_class(name: str) -> None:
    base = bare(HEADS.case(f"{name}-classification"))
    preset = {"bart": "tagging_head", "t5": "tagging_head", "albert": "causal_lm_head"}[name]
    loaded = attach(base)
    loaded.add("task", f"seq_bn[reduction_factor=4]+{preset}")
    adapter = loaded.adapter("task")
    with pytest.raises(UnsupportedError, match="no class with a flexible"):
        adapters.encode(adapter)
    if name == "t5":
        document = adapters.encode(adapters.FORMAT.rewritten(adapter, None)).documents["head_config.json"]
        assert document["model_class"] == "T5ForTokenClassification"


def edited(name: str, change: dict[str, Any], without: str = "") -> Parts:
    """Return the parts of a case with other fields in its head's config, or around it where that is none."""
    parts = adapters.FORMAT.read(HEADS.case(name).adapter)
    document = dict(parts.documents["head_config.json"])
    if document["config"] is None:
        document |= change
    else:
        document["config"] = document["config"] | change
    head = {key: tensor for key, tensor in parts.tensors["head"].items() if not without or without not in key}
    return Parts({"head_config.json": document}, {"head": head})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (edited("bert-tagging", {"num_labels": 7}), "num_labels is 7, the weights are of 3"),
        (edited("bert-ForTokenClassification", {"num_labels": 7}), "num_labels is 7, the weights are of 3"),
        (edited("bert-qa", {"num_labels": 3}), "question answering head has num_labels 2"),
        (edited("bert-masked", {"vocab_size": 7}), r"shape \(40, 16\), expected \(7, 16\)"),
        (edited("bert-masked", {"layers": 3}), "head.1"),
        (edited("bert-masked", {}, without=".2."), "head.0.norm.weight' is missing"),
        (edited("bert-choice", {"use_pooler": 1}), "use_pooler"),
        (edited("bert-tagging", {"activation_function": "rleu"}), "rleu"),
        (edited("bert-parsing", {}, without="biaffine_rels"), "head.relations.weight' is missing"),
        (edited("bert-classification", {"head_type": "poetry"}), "poetry"),
        (edited("bert-ForTokenClassification", {"model_class": "BertForNextSentencePrediction"}), "NextSentence"),
        (edited("distilbert-classification", {"use_pooler": True}), "pooler"),
    ],
    ids=str,
)
def test_a_head_whose_words_and_weights_differ_is_refused_with_the_reason(parts: Parts, says: str) -> None:
    with pytest.raises(AdapterHubError, match=says):
        adapters.decode(parts)


def test_a_head_that_is_declared_but_absent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head_config.json").write_text((HEADS.case("bert-qa").adapter / "head_config.json").read_text())
    with pytest.raises(FormatError, match=r"model_head\.safetensors"):
        adapters.FORMAT.read(tmp_path)
