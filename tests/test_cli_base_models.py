"""show --base, and --architecture wherever a command loads a base model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cli_session import sentences, type_command, write_csv
from families import FAMILIES, configuration
from tiny_models import family

from adapterhub.architectures import by_name, from_json, to_json
from adapterhub.loader.layout import survey


@pytest.fixture
def folder(clean: None, tmp_path: Path) -> Path:
    """A place for folders that hold a config.json and nothing else."""
    return tmp_path


def save(folder: Path, name: str, cls: str | None = None) -> Path:
    config = configuration(name)
    config.architectures = [cls or FAMILIES[name].model]
    config.save_pretrained(folder / name)
    return folder / name


def shown(*arguments: str) -> dict[str, Any]:
    typed = type_command("show", *arguments, "--json")
    assert typed.status == 0, typed.err
    data: dict[str, Any] = json.loads(typed.out)
    return data


@pytest.mark.parametrize("name", FAMILIES)
def test_the_places_of_a_base_model_are_told_from_its_configuration_alone(name: str, folder: Path) -> None:
    data = shown("--base", str(save(folder, name)))
    layout = survey(family(name)).layout
    assert data["layout"] == json.loads(json.dumps(dataclasses.asdict(layout)))
    assert from_json(data["architecture"]) == by_name(FAMILIES[name].row)
    assert data["class"] == FAMILIES[name].model
    assert not list((folder / name).glob("*.safetensors"))


def test_the_class_is_the_one_that_the_configuration_names(folder: Path) -> None:
    data = shown("--base", str(save(folder, "llama", "LlamaForCausalLM")))
    assert data["class"] == "LlamaForCausalLM"
    assert "lm_head" in {linear["path"] for linear in data["layout"]["linears"]}
    assert shown("--base", str(save(folder, "llama", "NobodysModel")))["class"] == "LlamaModel"
    assert shown("--base", str(save(folder, "llama", "pipeline")))["class"] == "LlamaModel"


def test_people_read_each_place_once_for_all_layers(folder: Path) -> None:
    base = str(save(folder, "gemma2"))
    lines = type_command("show", "--base", base).out.splitlines()
    assert sum(line.startswith("layers.{i}.self_attn ") for line in lines) == 1
    (site,) = (line.split() for line in lines if line.startswith("layers.{i}.mlp "))
    assert site[-2:] == ["(inside)", "2"]
    assert "pre_feedforward_layernorm" in site
    (query,) = (line.split() for line in lines if line.startswith("layers.{i}.self_attn.q_proj "))
    assert query[1:] == ["query", "32", "→", "64", "2"]
    ids = type_command("show", "--base", base, "-q").out.split()
    assert ids == [site.path for site in survey(family("gemma2")).layout.sites]


def unknown(folder: Path) -> Path:
    (folder / "new").mkdir()
    config = {"model_type": "mpnet", "architectures": ["MPNetModel"], "hidden_size": 16, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 30}
    (folder / "new" / "config.json").write_text(json.dumps(config))
    return folder / "new"


def mpnet() -> dict[str, Any]:
    data = to_json(by_name("bert"))
    (stack,) = data["layers"]
    stack["may_lack"] = []
    attention, _, feed_forward = stack["sublayers"]
    attention |= {"path": "attention", "output": "attention.dropout", "norm": "attention.LayerNorm"}
    stack["sublayers"] = [attention, feed_forward]
    stack["norms"] = ["attention.LayerNorm", "output.LayerNorm"]
    names = {"path": "attention.attn"} | {f: f"attention.attn.{f[0]}" for f in ("query", "key", "value", "output")}
    stack["attentions"] = [stack["attentions"][0] | names]
    return data | {"name": "mpnet", "model_types": ["mpnet"], "heads": []}


def test_an_unknown_family_is_shown_with_a_description_in_a_file(folder: Path) -> None:
    base, row = str(unknown(folder)), folder / "row.json"
    typed = type_command("show", "--base", base)
    assert typed.status == 6
    assert "'mpnet' are not known" in typed.err
    row.write_text(json.dumps(mpnet()))
    data = shown("--base", base, "--architecture", str(row))
    assert (data["architecture"]["name"], len(data["layout"]["sites"])) == ("mpnet", 4)
    assert data["layout"]["sites"][0]["norm"] == "encoder.layer.0.attention.LayerNorm"


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("{", 5, "is not JSON"),
        ("[]", 1, "expected an object"),
        (json.dumps(to_json(by_name("bert")) | {"colour": "red"}), 1, "colour: unknown field"),
        (json.dumps(to_json(by_name("gpt2"))), 6, "the model has no module 'h.0'"),
        (None, 3, "there is no file"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(content: str | None, status: int, words: str, folder: Path) -> None:
    row = folder / "row.json"
    if content is not None:
        row.write_text(content)
    typed = type_command("show", "--base", str(save(folder, "bert")), "--architecture", str(row))
    assert (typed.status, words in typed.err) == (status, True), typed.err


@pytest.mark.parametrize(
    "arguments", [["show"], ["show", "sst2-bert", "--architecture", "row.json"], ["show", "--architecture", "row.json"]]
)
def test_show_needs_an_adapter_or_a_base_model(arguments: list[str], folder: Path) -> None:
    assert type_command(*arguments).status == 2


def test_a_base_model_that_is_not_here_is_a_named_error(folder: Path) -> None:
    assert type_command("show", "--base", "./nowhere").status == 3
    assert type_command("show", "--base", "acme/nothing").status == 7


def test_an_adapter_is_trained_run_and_verified_on_a_described_family(clean: None, base: Path, tmp_path: Path) -> None:
    row = tmp_path / "row.json"
    row.write_text(json.dumps(to_json(dataclasses.replace(by_name("bert"), name="mine"))))
    described = ["--architecture", str(row), "--base", str(base)]
    data, out = write_csv(tmp_path / "reviews.csv", sentences(40)), tmp_path / "mine.safetensors"
    trained = type_command("train", str(data), *described, "--out", str(out), "--epochs", "1", "--json")
    assert trained.status == 0, trained.err
    assert json.loads(type_command("show", str(out), "--json").out)["manifest"]["base"]["architecture"] == "mine"
    assert type_command("run", str(out), "a good film", *described, "-q").status == 0
    assert type_command("verify", str(out), "--run", *described).status == 0
    typed = type_command("run", str(out), "a good film", "--base", str(base))
    assert typed.status == 5
    assert "made for a mine model" in typed.err
