"""The verb `convert`: what comes out computes what went in, or is refused; and what it reports is true."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cli_session import type_command
from golden import GOLDEN, Case
from safetensors.torch import load_file
from test_peft_outputs import assert_close, base_of, output_of
from tiny_models import model

import adapterhub
from adapterhub.converters.report import Report
from adapterhub.errors import StateError, UnsupportedError, UsageError

PAIRS = GOLDEN.cases(groups="E", kinds="convert-pair")
REFUSED = {
    ("e-gpt2-prefix-flat", "adapters"): "counts the text's positions",
    ("e-gpt2-prefix-flat", "peft"): "it means positions='kept'",
    ("e-refuse-mixed-union", "adapters"): "no type for .* together",
    ("e-refuse-p-lora-oproj", "peft"): "attention_output|o_proj",
}
"""Case and the side that it is converted from → a part of the reason."""

BY_PLUG_IN = {("e-refuse-seqbn", "adapters")}
"""What PEFT computes once it has learned it; see test_peft_plugin.py."""


@pytest.fixture(autouse=True)
def alone(clean: None) -> None:
    """Keep every test from the settings of the person who tests."""


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sides(case: Case) -> dict[str, Path]:
    """Return format → the folder that the library of that format wrote."""
    found = {"adapters": case.adapter} if case["adapters"] else {}
    return found | ({"peft": case.folder / case["peft"]["path"]} if case.get("peft") else {})


def contents(path: Path) -> dict[str, bytes]:
    """Return name → bytes of every file."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the files in a folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    for file in sorted(folder.glob("*.bin")):
        found |= torch.load(file, weights_only=True)
    return found


def documents(folder: Path) -> dict[str, Any]:
    """Return name → value of the JSON documents in a folder."""
    return {file.name: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}


def same_tensors(a: Path, b: Path) -> bool:
    ours, theirs = tensors(a), tensors(b)
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[key].dtype and torch.equal(tensor, theirs[key]) for key, tensor in ours.items()
    )


def loaded(case: Case, path: Path) -> transformers.PreTrainedModel:
    base: transformers.PreTrainedModel = base_of(case)
    adapterhub.attach(base).load(path, set_active=True)
    return base


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", PAIRS, ids=str)
@pytest.mark.parametrize(("side", "to"), [("adapters", "peft"), ("peft", "adapters")])
def test_a_pair_of_the_two_libraries_is_converted_both_ways(case: Case, side: str, to: str, tmp_path: Path) -> None:
    source, out = sides(case)[side], tmp_path / to
    before = contents(source)
    typed = type_command(
        *("convert", str(source), "--to", to, "--out", str(out), "--base", str(case.base), "--verify", "--json")
    )
    assert typed.status == 0, typed.out
    assert typed.json["exact"]
    assert typed.json["verified"]["difference"] <= 1e-4 < typed.json["verified"]["effect"]
    assert contents(source) == before
    assert_close(case, output_of(case, loaded(case, out)))
    if to == "peft":
        import peft

        assert_close(case, output_of(case, peft.PeftModel.from_pretrained(base_of(case), out).eval()))


@pytest.mark.parametrize(("name", "side"), REFUSED)
def test_what_the_other_library_cannot_compute_is_refused_with_the_reason(name: str, side: str, tmp_path: Path) -> None:
    case = GOLDEN.case(name)
    to = {"adapters": "peft", "peft": "adapters"}[side]
    words = ("convert", str(sides(case)[side]), "--to", to, "--out", str(tmp_path / "out"), "--json")
    for base in ((), ("--base", str(case.base))):
        typed = type_command(*words, *base)
        assert typed.status == 6
        assert not (tmp_path / "out").exists()
    assert re.search(REFUSED[name, side], typed.error["message"]), typed.error["message"]


@pytest.mark.parametrize(
    ("method", "to", "reasons"),
    [
        ("mam", "peft", ["prefix_tuning, bottleneck together", "PEFT counts the text's positions on"]),
        ("unipelt", "peft", ["together", "prefix: its gates depend on the input", "lora: its updates have gates"]),
        ("lora[targets=[attention_output],update_bias=true]", "adapters", ["has no name in it", "have no bias"]),
        ("rslora[targets=[attention_output]]+layer_norm", "adapters", ["no word for layer_norm", "has no name in it"]),
        ("invertible+seq_bn", "peft", ["invertible beside another method"]),
    ],
)
def test_every_reason_of_a_refusal_is_told(method: str, to: str, reasons: list[str], tmp_path: Path) -> None:
    adapters = adapterhub.attach(model("bert"))
    adapters.add("a", method.replace("[targets=[attention_output]", '[targets=["attention_output"]'))
    adapters.save("a", tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedError) as caught:
        adapterhub.convert(tmp_path / "a.safetensors", tmp_path / "out", to=to)
    assert [reason for reason in reasons if reason not in str(caught.value)] == []


def test_every_refusal_of_the_golden_cases_is_tried() -> None:
    kinds = {"convert-inexact", "convert-refuse", "refuse"}
    wanted = {(str(case), side) for case in GOLDEN.cases(groups="E") if case["kind"] in kinds for side in sides(case)}
    assert wanted == REFUSED.keys() | BY_PLUG_IN


BACK = [
    *GOLDEN.cases(groups="ACF", kinds="adapters-loader head head-only static-head legacy legacy-head"),
    *GOLDEN.cases(groups="D", kinds="peft-loader"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", BACK, ids=str)
def test_what_goes_to_native_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    kind = "peft" if case["group"] == "D" else "adapters"
    there = adapterhub.convert(case.adapter, tmp_path / "a.safetensors", to="native", base=case.base)
    back = adapterhub.convert(tmp_path / "a.safetensors", tmp_path / "back", to=kind, base=case.base)
    assert there.source.format == back.target.format == kind
    assert there.exact
    assert back.exact
    assert same_tensors(tmp_path / "back", case.adapter)
    assert documents(tmp_path / "back") == documents(case.adapter)
    manifest = adapterhub.read(tmp_path / "a.safetensors").manifest
    assert manifest.provenance is not None
    assert (manifest.provenance.format, manifest.provenance.digest) == (kind, there.source.digest)
    assert there.source.digest.startswith("sha256:")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_foreign_fields_return_on_the_way_back_from_the_other_library(case: Case, tmp_path: Path) -> None:
    theirs = json.loads((sides(case)["adapters"] / "adapter_config.json").read_text("utf-8"))
    source = tmp_path / "source"
    source.mkdir()
    for file in sides(case)["adapters"].iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "adapter_config.json").write_text(json.dumps({**theirs, "acme_run": {"id": 7, "tags": ["x"]}}))
    there = adapterhub.convert(source, tmp_path / "peft", to="peft")
    assert any("acme_run" in field for field in there.fields.kept)
    back = adapterhub.convert(tmp_path / "peft", tmp_path / "back", to="adapters")
    assert documents(tmp_path / "back") == documents(source)
    if not there.tensors.transformed:
        assert same_tensors(tmp_path / "back", source)
    assert back.exact


def report_of(case: Case, to: str, out: Path, **options: Any) -> Report:
    return adapterhub.convert(sides(case)["adapters"], out, to=to, **options)


def test_the_report_tells_what_became_of_every_tensor(tmp_path: Path) -> None:
    plain = report_of(GOLDEN.case("e-bert-lora-qv"), "peft", tmp_path / "a").tensors
    assert (plain.read, plain.written, plain.carried, len(plain.renamed)) == (8, 8, 0, 8)
    assert plain.renamed["base_model.model.encoder.layer.1.attention.self.value.lora_B.weight"] == (
        "encoder.layer.1.attention.self.value.loras.task.lora_B"
    )
    merged = report_of(GOLDEN.case("e-gpt2-lora-qkv"), "peft", tmp_path / "b").tensors
    assert all(name.endswith("lora_B.weight") for name in merged.transformed)
    assert all(name.endswith("lora_A.weight") for name in merged.renamed)
    assert all(name.endswith("lora_B") for name in merged.consumed)


def test_a_dry_run_tells_files_and_sizes_and_writes_nothing(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    for to in ("native", "peft", "adapters"):
        dry = report_of(case, to, tmp_path / to, dry_run=True)
        assert not dry.written
        assert not any(tmp_path.iterdir())
        wet = report_of(case, to, tmp_path / to)
        out = tmp_path / to
        sizes = {"": out.stat().st_size} if out.is_file() else {f.name: f.stat().st_size for f in out.iterdir()}
        assert dry.target.files == wet.target.files == sizes
        assert dry.tensors == wet.tensors
        if out.is_dir():
            shutil.rmtree(out)
        else:
            out.unlink()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    for to, out in (("native", tmp_path / "a"), ("peft", tmp_path / "b")):
        report_of(case, to, out)
        before = contents(out)
        with pytest.raises(StateError, match="exists already"):
            report_of(case, to, out, name="other")
        assert contents(out) == before
        report_of(case, to, out, name="other", force=True)
        assert adapterhub.read(out).manifest.name == "other"


def test_a_destination_within_the_source_is_refused(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    source = tmp_path / "folder" / "source"
    source.mkdir(parents=True)
    for file in sides(case)["adapters"].iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    before = contents(source)
    for out in (source, source / "adapter.bin", tmp_path / "folder", source / "deep" / "er"):
        with pytest.raises(UsageError, match="lie within each other"):
            adapterhub.convert(source, out, to="peft", force=True)
    assert contents(source) == before


def test_the_name_of_the_target_can_be_chosen(tmp_path: Path) -> None:
    report = report_of(GOLDEN.case("e-bert-lora-qv"), "adapters", tmp_path / "a", name="mine-2")
    assert report.adapter == "mine-2"
    assert all(".loras.mine-2." in key for key in tensors(tmp_path / "a"))
    with pytest.raises(UsageError, match="can be called 'Mine!'"):
        report_of(GOLDEN.case("e-bert-lora-qv"), "adapters", tmp_path / "b", name="Mine!")


def test_a_format_is_taken_at_its_word(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    assert report_of(case, "native", tmp_path / "a", from_="adapters").source.format == "adapters"
    with pytest.raises(UsageError, match="no format is called 'gguff'"):
        report_of(case, "gguff", tmp_path / "b")
    with pytest.raises(adapterhub.FormatError):
        report_of(case, "native", tmp_path / "c", from_="peft")


def test_what_is_verified_stands_in_the_provenance_of_every_format(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    for to in ("native", "peft", "adapters"):
        report = report_of(case, to, tmp_path / to, verify=True)
        assert report.verified is not None
        assert report.verified.random
        found = adapterhub.read(tmp_path / to).manifest.provenance
        assert found is not None
        assert (found.format, found.difference, found.exact) == ("adapters", report.difference, True)
        assert found.digest == report.source.digest


def test_an_adapter_of_a_registry_is_pulled_first(registry: Path, base: Path, tmp_path: Path) -> None:
    report = adapterhub.convert("tiny-reviews", tmp_path / "a.safetensors", to="native", verify=True, base=str(base))
    assert report.source.format == "native"
    assert report.verified is not None
    assert report.verified.difference == 0.0


def test_a_live_base_model_is_enough_and_is_left_as_it_was(tmp_path: Path) -> None:
    base = model("bert")
    hub = adapterhub.attach(base)
    hub.add("dora", 'dora[targets=["query"]]')
    hub.save("dora", tmp_path / "dora.safetensors")
    hub.detach()
    state = {key: value.clone() for key, value in base.state_dict().items()}
    report = adapterhub.convert(tmp_path / "dora.safetensors", tmp_path / "peft", to="peft", base=base, verify=True)
    assert report.verified is not None
    assert not report.verified.random
    assert all(torch.equal(value, state[key]) for key, value in base.state_dict().items())


def test_an_approximation_needs_a_rank_or_an_energy(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    with pytest.raises(UsageError, match="rank or an energy"):
        report_of(case, "peft", tmp_path / "a", approximate="lora")
    with pytest.raises(UsageError, match="that of an approximation"):
        report_of(case, "peft", tmp_path / "a", rank=3)
    with pytest.raises(UnsupportedError, match=r"no type for .* together"):
        adapterhub.convert(GOLDEN.case("e-refuse-mixed-union").adapter, tmp_path / "b", to="peft")
