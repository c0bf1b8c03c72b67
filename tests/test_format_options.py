"""What a caller says of files because they do not say it: one table, as flags, as a mapping, on both sides."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_session import type_command
from golden import PEFTS
from safetensors.torch import save_file
from test_foreign_formats import source_of
from tiny_models import family, with_adapters

import adapterhub
from adapterhub.converters import FORMATS, by_name, detect, read, write
from adapterhub.converters.options import Option
from adapterhub.errors import UsageError

LINEAR, MERGED = source_of("raw-llama-linear"), source_of("raw-gpt2-qv")
LLAMA_GGUF = source_of("gguf-llama-half")


@pytest.fixture(autouse=True)
def alone(clean: None) -> None:
    """Keep every test from the settings of the person who tests."""


def convert(*words: object) -> Any:
    """Return the report that the command prints."""
    typed = type_command("convert", *map(str, words), "--json")
    assert typed.status == 0, typed.out
    return typed.json


@pytest.mark.parametrize("name", [(), ("--from", "raw")], ids=["detected", "named"])
def test_a_state_dict_is_converted_with_the_alpha_that_is_typed(name: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file(torch.load(LINEAR, weights_only=True), file)
    report = convert("--alpha", 16, file, *name, "--to", "native", "--out", tmp_path / "out.safetensors", "--verify")
    assert report["exact"]
    assert read(tmp_path / "out.safetensors").config == read(file, options={"alpha": 16}).config


def test_a_list_and_a_switch_are_typed_as_words(tmp_path: Path) -> None:
    words = ("--alpha", "5", "--targets", "query,value", "--rank-stabilised", "yes", "--r", "3")
    convert(MERGED, *words, "--to", "native", "--out", tmp_path / "out.safetensors")
    options = {"alpha": 5, "targets": ["query", "value"], "rank_stabilised": True, "r": 3}
    assert read(tmp_path / "out.safetensors").config == read(MERGED, options=options).config


def test_the_family_is_typed_where_several_have_the_same_modules(tmp_path: Path) -> None:
    report = convert(LINEAR, "--alpha", 5, "--family", "qwen2", "--to", "peft", "--out", tmp_path / "out")
    assert report["architecture"] == "qwen2"


def test_an_option_of_both_sides_goes_to_both(tmp_path: Path) -> None:
    adapter = with_adapters(family("llama"), x="lora").adapter("x")
    source = write(adapter, tmp_path / "x.gguf", "gguf", options={"heads": 4, "kv_heads": 2})
    bare = by_name("gguf").read(source)
    head_counts = [key for key in bare.documents["metadata"] if "head_count" in key] if bare.documents else []
    assert head_counts
    convert(source, "--heads", 4, "--kv-heads", 2, "--to", "gguf", "--out", tmp_path / "y.gguf")
    assert read(tmp_path / "y.gguf").config == adapter.config


def test_the_base_model_tells_what_the_options_would(tmp_path: Path) -> None:
    model = family("llama")
    source = write(with_adapters(model, x="lora").adapter("x"), tmp_path / "x.safetensors")
    report = adapterhub.convert(source, tmp_path / "x.gguf", to="gguf", base=family("llama"), verify=True)
    assert report.verified is not None
    assert report.verified.difference < 1e-5


def test_a_raw_file_is_verified_with_the_options_that_its_target_needs_too(tmp_path: Path) -> None:
    options = {"alpha": 16}
    report = adapterhub.convert(LINEAR, tmp_path / "out.safetensors", to="raw", options=options, verify=True)
    assert report.verified is not None
    assert report.verified.difference == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--alpha", "much"], "'much' is not a number"),
        (["--alpha", "3", "--r", "3.5"], "'3.5' is not a whole number"),
        (["--alpha", "3", "--rank-stabilised", "perhaps"], "'perhaps' is not true or false"),
        (["--alpha", "3", "--targets", "query,,value"], "'query,,value' is not names with commas between them"),
        (["--beta", "3"], "no such option"),
        (["--alpha", "3", "--part", "unet"], "from raw to native there is no option part"),
        (["--alpha", "3", "--peft-version", "0.9"], "from raw to native there is no option peft_version"),
        ([], "say the alpha that it was trained with"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words: list[str], says: str, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    typed = type_command("convert", str(LINEAR), *words, "--to", "native", "--out", str(out), "--json")
    assert typed.status == 2
    assert says in json.dumps(typed.error, ensure_ascii=False)
    assert not out.exists()


def test_the_options_of_a_conversion_are_those_of_its_two_formats(tmp_path: Path) -> None:
    source = PEFTS.case("bert-lora-list").adapter
    with pytest.raises(UsageError, match="from peft to raw there is no option alpha, beta") as error:
        adapterhub.convert(source, tmp_path / "x", to="raw", options={"alpha": 1, "beta": 2})
    assert error.value.hint == "its options are none"


def test_what_is_asked_for_at_writing_does_not_stay_in_the_adapter(tmp_path: Path) -> None:
    source = PEFTS.case("bert-lora-list").adapter
    old = write(read(source), tmp_path / "old", "peft", options={"peft_version": "0.9"})
    assert json.loads((old / "adapter_config.json").read_text("utf-8")).keys().isdisjoint({"lora_bias", "peft_version"})
    assert "options" not in read(old).manifest.extra.get("peft", {})
    new = write(read(source), tmp_path / "new", "peft")
    assert "lora_bias" in json.loads((new / "adapter_config.json").read_text("utf-8"))


def test_every_option_of_a_format_is_a_flag_and_stands_in_the_help() -> None:
    names = {name for row in FORMATS for name in row.options}
    assert {"alpha", "heads", "kv_heads", "part", "peft_version"} <= names
    text = type_command("convert", "--help").out
    assert all(f"--{name.replace('_', '-')} " in text for name in names)


def test_no_option_is_called_as_one_of_the_command_or_means_two_things() -> None:
    for one, other in itertools.combinations(FORMATS, 2):
        for name in one.options.keys() & other.options.keys():
            assert one.options[name] == other.options[name]
    taken = {"to", "out", "from", "base", "architecture", "name", "approximate", "rank", "energy", "verify", "force"}
    assert not {name for row in FORMATS for name in row.options} & taken


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "0.10", "0.10"),
        ("number", "16", 16),
        ("number", "0.5", 0.5),
        ("whole", "007", 7),
        ("flag", "No", False),
        ("names", "query, value", ["query", "value"]),
    ],
)
def test_a_text_means_a_value_of_its_kind(kind: Any, text: str, value: Any) -> None:
    assert Option("", kind).parsed(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [("number", "nan"), ("number", "1e999"), ("whole", "-1"), ("whole", "²"), ("flag", "2"), ("names", "")],
)
def test_a_text_that_means_no_value_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(UsageError):
        Option("", kind).parsed(text)


def test_a_format_that_is_only_written_is_never_detected(tmp_path: Path) -> None:
    adapter = with_adapters(family("llama"), x="lora").adapter("x")
    folder = write(adapter, tmp_path / "out", "vllm")
    assert detect(folder).name == "peft"
    assert read(folder, format="vllm").config == read(folder).config
