"""What is written for older releases of PEFT is what these were seen to load, or it is refused with every reason."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_session import type_command
from golden import PEFTS
from peft_releases import RELEASES, SEEN, adapter_of, cases, digest, written
from tiny_models import family, with_adapters

import adapterhub
from adapterhub.adapter import Adapter
from adapterhub.converters import read, write
from adapterhub.converters.peft import changes, documents, releases
from adapterhub.errors import UnsupportedError, UsageError

QUICK = "0.9"


@cache
def every() -> dict[str, Adapter]:
    found = {name: adapter_of(case) for name, case in cases().items()}
    return {name: adapter for name, adapter in found.items() if adapter is not None}


def made(text: str, name: str = "bert") -> Adapter:
    return with_adapters(family(name), x=text).adapter("x")


def document(adapter: Adapter, release: str, path: Path) -> Any:
    folder = write(adapter, path, "peft", options={"peft_version": release})
    return json.loads((folder / "adapter_config.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "release", [release if release == QUICK else pytest.param(release, marks=pytest.mark.slow) for release in RELEASES]
)
def test_every_adapter_is_written_as_the_release_was_seen_to_load_it_or_refused(release: str, tmp_path: Path) -> None:
    seen = SEEN[release]
    loaded: dict[str, str] = {}
    for name, adapter in every().items():
        found = written(adapter, release, tmp_path / name)
        if isinstance(found, str):
            assert found.startswith(f"PEFT {release} cannot read this adapter: ")
        else:
            loaded[name] = digest(found)
    assert loaded.keys() == seen["loaded"].keys() | seen["not_run"].keys()
    assert {name: loaded[name] for name in seen["loaded"]} == seen["loaded"]


def test_all_that_was_seen_is_told_with_its_libraries() -> None:
    assert list(SEEN) == sorted(RELEASES)
    assert all(SEEN[release]["transformers"] and len(SEEN[release]["loaded"]) > 80 for release in RELEASES)
    assert all(": " in reason for row in SEEN.values() for reason in row["not_run"].values())


@pytest.mark.parametrize(
    ("text", "name", "release", "reasons"),
    [
        ("vera[r=4]", "bert", "0.9", ["it has no type VERA, which came with 0.11"]),
        ("seq_bn", "bert", "0.20", ["BOTTLENECK, which is that of a plug-in"]),
        ("lora", "bert", "0.3", ["it reads pickles only"]),
        (
            "lora[rank_stabilised=true,magnitude=dora]",
            "bert",
            "0.7",
            ["no field use_rslora, which came with 0.8", "no field use_dora, which came with 0.9"],
        ),
        (
            'lora[targets=["h.0.attn.c_attn"],magnitude=dora]',
            "gpt2",
            "0.9",
            ["fails at the transposed weights of gpt2"],
        ),
        ('lora[targets=["embeddings.word_embeddings"],magnitude=dora]', "bert", "0.12", ["no DoRA of embeddings"]),
        ("lokr[r=3,alpha=6]", "bert", "0.13", ["its LoKr leaves alpha / r out"]),
        ("oft[block_size=8]", "bert", "0.15", ["its OFT has other tensors"]),
        ("lora+layer_norm", "bert", "0.9", []),
    ],
)
def test_what_a_release_cannot_read_is_refused_with_every_reason(
    text: str, name: str, release: str, reasons: list[str], tmp_path: Path
) -> None:
    adapter = made(text, name)
    if not reasons:
        assert document(adapter, release, tmp_path / "out")["modules_to_save"]
        return
    with pytest.raises(UnsupportedError, match=f"PEFT {release} cannot read this adapter") as error:
        document(adapter, release, tmp_path / "out")
    assert [reason for reason in reasons if reason not in error.value.message] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("release", ["0.7", "0.10", "0.13"])
def test_a_lokr_whose_scale_is_one_is_written_for_releases_that_leave_the_scale_out(
    release: str, tmp_path: Path
) -> None:
    found = document(made("lokr[r=4,alpha=4]", "bert"), release, tmp_path / "out")
    assert (found["r"], found["alpha"]) == (4, 4)


@pytest.mark.parametrize("release", ["0.2", "0.22", "1.0", "new", "0.9.x", "", "0.9.1.2", 9, 0.9, None, ["0.9"]])
def test_what_is_no_release_is_a_usage_error(release: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no release of PEFT that this version knows"):
        document(made("lora"), release, tmp_path / "out")


def test_a_patch_release_is_its_minor_release(tmp_path: Path) -> None:
    assert document(made("lora"), "0.9.2", tmp_path / "a") == document(made("lora"), "0.9", tmp_path / "b")


def test_the_release_of_today_gets_what_is_written_anyway(tmp_path: Path) -> None:
    today = ".".join(documents.WRITES.split(".")[:2])
    for name in ("bert-lora-list", "bert-loha"):
        adapter = read(PEFTS.case(name).adapter)
        plain = write(adapter, tmp_path / f"plain-{name}", "peft")
        assert document(adapter, today, tmp_path / name) == json.loads((plain / "adapter_config.json").read_text())


def test_only_fields_that_the_release_knows_are_written_and_all_of_them(tmp_path: Path) -> None:
    table = json.loads((Path(releases.__file__).parent / "releases.json").read_text("utf-8"))
    came = table["types"]["LORA"]["fields"]
    for release in table["releases"][1:-1]:
        number = tuple(map(int, release.split(".")))
        later = {name for name, since in came.items() if tuple(map(int, since.split("."))) > number}
        found = document(made("lora"), release, tmp_path / release)
        assert found.keys() == documents.defaults()["LORA"].keys() - later
        assert found.get("peft_version") in (None, f"{release}.0")


def test_a_starting_value_that_is_new_does_not_keep_an_old_release_from_loading(tmp_path: Path) -> None:
    adapter = read(PEFTS.case("bert-lora-mica").adapter)
    assert document(adapter, "0.21", tmp_path / "new")["init_lora_weights"] == "mica"
    assert document(adapter, "0.9", tmp_path / "old")["init_lora_weights"] is True


def test_modules_have_the_names_of_the_transformers_that_the_release_runs_with(tmp_path: Path) -> None:
    adapter = made("lora", "vit")
    old, new = (document(adapter, release, tmp_path / release)["target_modules"] for release in ("0.17", "0.18"))
    assert all(".attention.attention.query" in path or ".attention.attention.value" in path for path in old)
    assert all(".attention.q_proj" in path or ".attention.v_proj" in path for path in new)


def test_what_was_written_for_an_old_release_comes_back_as_it_was(tmp_path: Path) -> None:
    for text, name in (("lora", "vit"), ("ia3", "bert"), ('lora[ranks={"query":2}]', "llama")):
        adapter = made(text, name)
        adapter = dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, summary="A line"))
        back = read(write(adapter, tmp_path / name, "peft", options={"peft_version": "0.9"}))
        assert back.config == adapter.config
        assert dataclasses.replace(back.manifest, provenance=None) == adapter.manifest
        assert back.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(back.tensors[key], tensor) for key, tensor in adapter.tensors.items())


def test_every_change_in_the_history_concerns_a_type_that_is_written() -> None:
    written = {codec_type for change in changes.CHANGES for codec_type in change.types}
    assert written <= documents.defaults().keys()
    assert all(change.after < change.since for change in changes.CHANGES)


def test_the_command_line_writes_for_a_release_and_refuses_with_exit_code_6(clean: None, tmp_path: Path) -> None:
    source = str(PEFTS.case("bert-lora-list").adapter)
    words = ("convert", source, "--to", "peft", "--peft-version")
    assert type_command(*words, "0.10", "--out", str(tmp_path / "a")).status == 0
    assert "use_dora" in json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    boft = str(PEFTS.case("bert-boft").adapter)
    typed = type_command("convert", boft, "--to", "peft", "--peft-version", "0.9", "--out", str(tmp_path / "b"))
    assert typed.status == 6
    assert "it has no type BOFT, which came with 0.11" in typed.err
    report = adapterhub.convert(
        PEFTS.case("bert-lora-list").adapter, tmp_path / "c", to="peft", options={"peft_version": "0.9"}, verify=True
    )
    assert report.streamed is False
    assert report.verified is not None
    assert report.verified.difference == 0.0
