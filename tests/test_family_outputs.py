"""Law 2 for every family: bottlenecks of `adapters` give what that library computed, also after a way there and back.

The bases are made anew from the names of their parameters, by which transformers 4 knew them; see tests/recipes/.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, batch, configuration, settle
from golden import GOLDEN, Archive, Case
from safetensors.torch import load_file
from tiny_models import answers
from transformers import PreTrainedModel

from adapterhub.adapter import Adapter
from adapterhub.architectures import by_name
from adapterhub.converters import read, write
from adapterhub.errors import UnsupportedError
from adapterhub.loader import attach

FOLDER = Archive("family-cases.tar.gz").folder()
DOCUMENT = json.loads((FOLDER / "cases.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = DOCUMENT["cases"]
EXPECTED = load_file(FOLDER / "expected.safetensors")
TOLERANCE = 2e-5


def name_of(case: dict[str, Any]) -> str:
    return f"{case['family']}-{case['case']}"


def base_of(family: str) -> PreTrainedModel:
    row = by_name(FAMILIES[family].row)
    made: PreTrainedModel = getattr(transformers, FAMILIES[family].model)(configuration(family))
    settle(made, row.past)
    return made


@cache
def inputs_of(family: str) -> dict[str, torch.Tensor]:
    return batch(base_of(family), padded=FAMILIES[family].padded)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_every_family_has_cases_of_every_kind_of_bottleneck() -> None:
    for family in FAMILIES:
        kinds = {case["case"] for case in CASES if case["family"] == family}
        assert {"seq", "seq-everywhere", "double", "layers"} <= kinds
        assert "par" in kinds or family == "phi"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_of_today_computes_what_that_of_transformers_4_did(family: str) -> None:
    assert close(answers(base_of(family), inputs_of(family)), EXPECTED[family])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_bottleneck_gives_the_output_of_the_reference(case: dict[str, Any]) -> None:
    base = base_of(case["family"])
    adapters = attach(base)
    adapters.load(FOLDER / name_of(case), set_active=True)
    found, expected = answers(base, inputs_of(case["family"])), EXPECTED[name_of(case)]
    assert close(found, expected), float((found - expected).abs().max())
    adapters.activate(None)
    assert close(answers(base, inputs_of(case["family"])), EXPECTED[case["family"]])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_the_library_wrote_is_the_same_after_reading_and_writing(case: dict[str, Any], tmp_path: Path) -> None:
    source = FOLDER / name_of(case)
    adapter = read(source)
    again = Path(write(adapter, tmp_path / "again", format="adapters"))
    weights, config = "adapter.safetensors", "adapter_config.json"
    assert json.loads((again / config).read_text()) == json.loads((source / config).read_text())
    mine, theirs = load_file(again / weights), load_file(source / weights)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[key]) for key, x in mine.items())
    native = read(write(adapter, tmp_path / "x.safetensors", format="native"))
    assert_same(adapter, native)


def assert_same(a: Adapter, b: Adapter) -> None:
    assert a.config == b.config
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(x, b.tensors[key]) for key, x in a.tensors.items())


REFUSED_IN_HOOKS = [row["family"] for row in DOCUMENT["refused"] if "layer hooking" in row["error"]]


@pytest.mark.parametrize("family", sorted({*REFUSED_IN_HOOKS} & {"modernbert", "gemma2", "gemma3_text"}))
def test_what_the_library_refuses_where_the_model_goes_on_itself_is_refused_here_too(family: str) -> None:
    with pytest.raises(UnsupportedError, match="original_ln_after"):
        attach(base_of(family)).add("x", "double_seq_bn[original_ln_after=false]")


def golden_bottlenecks() -> list[Case]:
    return [case for case in GOLDEN.cases(groups="A", kinds="adapters-loader") if is_plain_bottleneck(case.adapter)]


def is_plain_bottleneck(folder: Path) -> bool:
    config = json.loads((folder / "adapter_config.json").read_text())["config"]
    return not (config.get("architecture") or config.get("phm_layer") or config.get("inv_adapter"))


@pytest.mark.parametrize("case", golden_bottlenecks(), ids=str)
@torch.no_grad()
def test_golden_bottlenecks_give_the_output_of_the_reference(case: Case, tmp_path: Path) -> None:
    base = getattr(transformers, case["base_class"]).from_pretrained(case.base).eval()
    # Some lie beside a copy of the base model's own head.
    folder = Path(shutil.copytree(case.adapter, tmp_path / "a", ignore=shutil.ignore_patterns("*head*")))
    adapters = attach(base)
    adapters.load(folder, set_active=True)
    assert case.close(base(**case.inputs())[case["output_key"]], case.expected()["output"])
    adapters.activate(None)
    assert case.close(base(**case.inputs())[case["output_key"]], case.expected()["base_output"])
