"""Prefixes and prompts in files of `adapters`: read whatever copies there are, written back bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import GOLDEN, PREFIXES, Case
from test_adapters_format import same
from tiny_models import family, with_adapters

import adapterhub
from adapterhub.adapter import Adapter
from adapterhub.converters import Parts, adapters, native, read, write
from adapterhub.errors import FormatError, UnsupportedError
from adapterhub.methods import PrefixTuningConfig, PromptTuningConfig

POOL = "prefix_tuning.prefix_tunings.task"


@pytest.mark.parametrize("case", PREFIXES.cases(), ids=str)
def test_writing_what_was_read_gives_every_value_and_bit_back(case: Case) -> None:
    parts = adapters.FORMAT.read(case.adapter)
    adapter = adapters.decode(parts)
    assert same(adapters.encode(adapter), parts)
    assert same(adapters.encode(native.decode(native.encode(adapter))), parts)
    again = adapters.decode(adapters.encode(adapter))
    assert again.config == adapter.config
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in adapter.tensors.items())


def parts_of(name: str) -> Parts:
    return adapters.FORMAT.read(PREFIXES.case(name).adapter)


def changed(parts: Parts, **tensors: Any) -> Parts:
    return Parts(parts.documents, {"adapter": {**parts.tensors["adapter"], **tensors}})


def pool_only(parts: Parts) -> Parts:
    return Parts(parts.documents, {"adapter": {k: t for k, t in parts.tensors["adapter"].items() if ".pool." not in k}})


@pytest.mark.parametrize(
    "name", ["bert-mlp", "bert-flat", "bert-leave_out_first", "bart-mlp", "vit-flat", "bert-unipelt"]
)
def test_a_file_without_copies_says_the_same_where_heads_are_as_wide_as_the_model(name: str) -> None:
    whole = parts_of(f"a-{name}")
    parts = pool_only(whole)
    adapter, wanted = adapters.decode(parts), adapters.decode(whole)
    assert adapter.config == wanted.config
    assert adapter.tensors.keys() == wanted.tensors.keys()
    assert all(torch.equal(adapter.tensors[key], tensor) for key, tensor in wanted.tensors.items())
    assert same(adapters.encode(adapter), parts)


def test_a_file_with_some_copies_keeps_those() -> None:
    parts = parts_of("a-bert-mlp")
    kept = {k: t for k, t in parts.tensors["adapter"].items() if not k.startswith("encoder.layer.1.")}
    some = Parts(parts.documents, {"adapter": {k: t for k, t in kept.items() if not k.startswith(POOL)}})
    assert {key.split(".")[2] for key in some.tensors["adapter"]} == {"0"}
    assert same(adapters.encode(adapters.decode(some)), some)


def test_copies_that_differ_are_a_fault() -> None:
    parts = parts_of("a-bert-flat")
    key = next(key for key in parts.tensors["adapter"] if ".pool." in key)
    with pytest.raises(FormatError, match="repeats another tensor"):
        adapters.decode(changed(parts, **{key: parts.tensors["adapter"][key] + 1}))


def test_a_file_that_does_not_tell_its_layers_is_refused() -> None:
    grouped = pool_only(parts_of("a-llama-flat"))
    documents = {file: {**document, "hidden_size": None} for file, document in grouped.documents.items()}
    with pytest.raises(FormatError, match="do not tell how many layers"):
        adapters.decode(Parts(documents, grouped.tensors))


def test_a_missing_tensor_of_the_pool_is_named() -> None:
    parts = pool_only(parts_of("a-bert-mlp"))
    del parts.tensors["adapter"][f"{POOL}.self_prefix.control_trans.0.bias"]
    with pytest.raises(FormatError, match=r"shared\.prefix_self\.hidden\.bias.* is missing"):
        adapters.decode(parts)


def test_a_tensor_that_cannot_be_divided_is_told() -> None:
    parts = parts_of("a-bert-flat")
    odd = {key: torch.zeros(100) for key in parts.tensors["adapter"]}
    with pytest.raises(FormatError, match="which no prefix of length 3 has"):
        adapters.decode(changed(parts, **odd))


def made(name: str, method: str) -> Adapter:
    found = with_adapters(family(name), mine=method).adapter("mine")
    return dataclasses.replace(found, manifest=dataclasses.replace(found.manifest, name="mine"))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bert", "prefix_tuning[prefix_length=3,bottleneck_size=5,leave_out=[1]]"),
        ("distilbert", "prefix_tuning_flat[prefix_length=3,use_gating=true,padded_bonus=1.0]"),
        ("bart", "prefix_tuning_flat[prefix_length=3]"),
        ("llama", "prefix_tuning[prefix_length=3,bottleneck_size=5]"),
        ("t5", "prefix_tuning[prefix_length=3,bottleneck_size=5,positions=adapters]"),
        ("albert", "prefix_tuning_flat[prefix_length=3]"),
        ("clip", "prefix_tuning[prefix_length=3,bottleneck_size=5]"),
        ("bart", "prefix_tuning_flat[prefix_length=3,encoder_prefix=false,leave_out=[1]]"),
        ("bart", "prefix_tuning_flat[prefix_length=3,encoder_prefix=false,leave_out=[0,2]]"),
        (
            "t5",
            "prefix_tuning[prefix_length=3,bottleneck_size=5,encoder_prefix=false,leave_out=[3],positions=adapters]",
        ),
        ("encoder-decoder", "prefix_tuning[prefix_length=3,bottleneck_size=5,leave_out=[1]]"),
        ("encoder-decoder-roberta", "prefix_tuning_flat[prefix_length=3]"),
        ("bert", "prompt_tuning[prompt_length=4,sees_padding=true]"),
        ("electra", "prompt_tuning[combine=prefix_after_bos]"),
        ("bert", "mam[prefix_length=3,bottleneck_size=5]"),
        ("roberta", "unipelt[prefix_length=3,bottleneck_size=5]"),
    ],
)
def test_an_adapter_made_here_comes_back_from_its_folder(name: str, method: str, tmp_path: Path) -> None:
    adapter = made(name, method)
    again = read(write(adapter, tmp_path / "out", format="adapters"))
    assert again.config == adapter.config
    assert again.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in adapter.tensors.items())


@pytest.mark.parametrize(
    ("name", "method", "says"),
    [
        ("bert", "prefix_tuning[positions=shifted]", "positions='kept'"),
        ("t5", "prefix_tuning", "positions='adapters'"),
        ("distilbert", "prefix_tuning", "padded_bonus=1.0"),
        ("encoder-decoder", "prefix_tuning[encoder_prefix=false]", "encoder_prefix=True"),
        ("encoder-decoder-gpt2", "prefix_tuning", "changes the scores of prefixes in batches with padding"),
        ("bert", "prompt_tuning[place=tokens]", "place='embeddings'"),
        ("bert", "prompt_tuning", "sees_padding=True"),
        ("bert", "p_tuning", "no word for p_tuning"),
    ],
)
def test_what_the_format_cannot_say_is_refused_with_what_it_would_say(
    name: str, method: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=says):
        write(made(name, method), tmp_path / "out", format="adapters")


def test_what_the_library_does_in_a_family_stands_in_the_configuration() -> None:
    bert, distilbert = (
        read(GOLDEN.case(f"a-{name}-prompt_tuning").adapter).config[0] for name in ("bert", "distilbert")
    )
    assert isinstance(bert, PromptTuningConfig)
    assert isinstance(distilbert, PromptTuningConfig)
    assert (bert.sees_padding, bert.padded_bonus, distilbert.padded_bonus) == (True, 0.0, 1.0)
    t5, llama = (read(PREFIXES.case(f"a-{name}-flat").adapter).config[0] for name in ("t5", "llama"))
    assert isinstance(t5, PrefixTuningConfig)
    assert isinstance(llama, PrefixTuningConfig)
    assert (t5.positions, llama.positions) == ("adapters", "kept")


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "modernbert", "phi", "qwen2", "qwen3"])
def test_families_that_the_library_has_no_prefixes_for_are_refused(name: str, tmp_path: Path) -> None:
    adapter = with_adapters(family(name), x="prefix_tuning_flat[prefix_length=3]").adapter("x")
    with pytest.raises(UnsupportedError, match=f"the library has none for {name} models"):
        write(adapter, tmp_path / "x", "adapters")


def test_a_prefix_of_a_model_with_a_short_window_is_not_counted_among_its_positions(tmp_path: Path) -> None:
    case = PREFIXES.case("a-mistral-flat")
    with pytest.raises(UnsupportedError, match="PEFT counts the text's positions on behind the prefix"):
        adapterhub.convert(case.adapter, tmp_path / "x", to="peft", base=case.base)
    made, wide = (family("mistral", sliding_window=None) for _ in range(2))
    adapter = with_adapters(made, x="prefix_tuning_flat[prefix_length=3]").adapter("x")
    source = write(adapter, tmp_path / "y.safetensors")
    report = adapterhub.convert(source, tmp_path / "z", to="peft", base=wide, verify=True)
    assert report.verified is not None
    assert report.verified.difference < 1e-5
