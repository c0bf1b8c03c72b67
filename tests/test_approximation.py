"""Approximation by LoRA: exact where the rank is enough, as good as can be where not, and never unasked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden import GOLDEN, PEFTS, Case
from test_convert import report_of
from test_peft_outputs import OWN, PROMPTS, base_of

import adapterhub
from adapterhub.adapter import Provenance
from adapterhub.errors import BaseMismatchError, UnsupportedError

EVERY = list({case["method"]: case for case in reversed(OWN) if case["arch"] == "bert"}.values())
CHANGING = [case for case in EVERY if case["method"] not in (*PROMPTS, "LN_TUNING")]
DEPENDING = {"BOFT", "HIRA", "HRA", "IA3", "OFT", "ROAD", "FOURIERFT", "BEFT", "WAVEFT"}
DEPENDING |= {"DEFT", "GLORA", "MISS", "PEANUT", "RANDLORA", "SHIRA", "SUPERTUNING"}
"""Types whose tensors alone do not say what is added to a weight."""


@pytest.fixture(autouse=True)
def alone(clean: None) -> None:
    """Keep every test from the settings of the person who tests."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CHANGING, ids=lambda case: case["method"])
def test_with_all_its_energy_a_change_of_weights_is_the_same_as_a_lora(case: Case, tmp_path: Path) -> None:
    report = adapterhub.convert(
        case.adapter, tmp_path / "a", to="native", base=case.base, approximate="lora", energy=1.0, verify=True
    )
    assert report.exact
    assert report.verified is not None
    assert report.verified.difference <= 2e-4 < (1.0 if report.verified.effect is None else report.verified.effect)
    assert all(layer.error <= 1e-6 for layer in report.layers)
    assert "lora" in report.methods


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CHANGING, ids=lambda case: case["method"])
def test_without_the_base_it_is_the_same_or_refused_by_name(case: Case, tmp_path: Path) -> None:
    if case["method"] in DEPENDING:
        with pytest.raises(UnsupportedError, match="depends on the base model"):
            adapterhub.convert(case.adapter, tmp_path / "a", to="native", approximate="lora", energy=1.0)
        return
    for name, base in (("a", None), ("b", case.base)):
        adapterhub.convert(case.adapter, tmp_path / name, to="native", approximate="lora", energy=1.0, base=base)
    one, other = (adapterhub.read(tmp_path / name).tensors for name in "ab")
    assert one.keys() == other.keys()
    products = [key.removesuffix("A") for key in one if key.endswith(".lora_A")]
    assert products
    for key in products:
        mine, yours = (tensors[f"{key}B"] @ tensors[f"{key}A"] for tensors in (one, other))
        assert torch.allclose(mine, yours, atol=1e-5)


def test_the_error_of_each_map_is_the_smallest_that_its_rank_allows(tmp_path: Path) -> None:
    case = PEFTS.case("bert-loha")
    adapter = adapterhub.read(case.adapter)
    report = adapterhub.convert(case.adapter, tmp_path / "a", to="peft", approximate="lora", rank=2, base=case.base)
    assert not report.exact
    assert {layer.rank for layer in report.layers} == {2}
    adapters = adapterhub.attach(base_of(case))
    name = adapters.load(adapter)
    path = report.layers[0].path
    before = adapters.model.base_model.get_submodule(path).weight.detach().double()
    adapters.merge(name)
    delta = adapters.model.base_model.get_submodule(path).weight.detach().double() - before
    values = torch.linalg.svdvals(delta)
    expected = float(values[2:].norm() / values.norm())
    assert report.layers[0].error == pytest.approx(expected, rel=1e-4)


def test_energy_chooses_the_fewest_ranks_that_keep_it(tmp_path: Path) -> None:
    case = PEFTS.case("bert-loha")
    report = adapterhub.convert(case.adapter, tmp_path / "a", to="peft", approximate="lora", energy=0.9, base=case.base)
    for layer in report.layers:
        assert layer.error**2 <= 0.1
        fewer = adapterhub.convert(
            case.adapter, tmp_path / "b", to="peft", approximate="lora", rank=max(1, layer.rank - 1), force=True
        )
        worse = next(one for one in fewer.layers if one.path == layer.path)
        assert worse.error**2 > 0.1 or layer.rank == 1


def test_what_was_lost_stands_in_every_file_and_stays_there(tmp_path: Path) -> None:
    case = PEFTS.case("bert-loha")
    first = adapterhub.convert(case.adapter, tmp_path / "a", to="peft", approximate="lora", rank=2)
    worst = max(layer.error for layer in first.layers)

    def origin(path: Path) -> Provenance:
        found = adapterhub.read(path).manifest.provenance
        assert found is not None
        return found

    assert (origin(tmp_path / "a").exact, origin(tmp_path / "a").error) == (False, worst)
    onward = adapterhub.convert(tmp_path / "a", tmp_path / "b", to="native")
    assert not onward.exact
    back = adapterhub.convert(tmp_path / "b", tmp_path / "c", to="adapters")
    assert not back.exact
    assert (origin(tmp_path / "c").exact, origin(tmp_path / "c").error) == (False, worst)
    assert origin(tmp_path / "c").digest == first.source.digest


def test_a_lora_of_few_ranks_stays_as_it_is(tmp_path: Path) -> None:
    case = GOLDEN.case("e-bert-lora-qv")
    report = report_of(case, "peft", tmp_path / "a", approximate="lora", rank=64)
    assert report.exact
    assert not report.layers
    assert not report.tensors.transformed


def test_a_lora_is_compressed_for_both_libraries(tmp_path: Path) -> None:
    case = GOLDEN.case("e-gpt2-lora-qkv")
    for to in ("peft", "adapters"):
        report = report_of(case, to, tmp_path / to, approximate="lora", rank=1, base=case.base, verify=True)
        assert not report.exact
        assert adapterhub.read(tmp_path / to).config[0].to_json()["r"] == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("e-refuse-seqbn", "it has bottlenecks, which depend on their input"),
        ("e-refuse-mixed-union", "it has bottlenecks, which depend on their input"),
        ("e-gpt2-prefix-flat", "it has prefixes, which depend on their input"),
    ],
)
def test_what_is_no_change_of_weights_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    case = GOLDEN.case(name)
    with pytest.raises(UnsupportedError, match=reason):
        report_of(case, "peft", tmp_path / "a", approximate="lora", rank=4, base=case.base)
    assert not (tmp_path / "a").exists()


def test_another_base_model_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(BaseMismatchError):
        adapterhub.convert(
            PEFTS.case("bert-hra").adapter,
            tmp_path / "a",
            to="peft",
            approximate="lora",
            rank=4,
            base=GOLDEN.case("e-gpt2-lora-qkv").base,
        )


CONVOLUTIONS = ("vit-lora-convolution", "vit-loha", "vit-loha-effective", "vit-lokr", "vit-lokr-effective", "vit-hra")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_changes_of_convolutions_become_loras_of_convolutions(name: str, tmp_path: Path) -> None:
    case = PEFTS.case(name)
    report = adapterhub.convert(
        case.adapter, tmp_path / "a", to="peft", base=case.base, approximate="lora", energy=1.0, verify=True
    )
    assert report.exact
    assert report.verified is not None
    assert report.verified.difference <= 2e-4 < (report.verified.effect or 1.0)
    assert any("patch_embeddings" in layer.path for layer in report.layers)
    less = adapterhub.convert(case.adapter, tmp_path / "b", to="peft", base=case.base, approximate="lora", rank=1)
    assert any(layer.error > 0.1 for layer in less.layers if "patch_embeddings" in layer.path)
