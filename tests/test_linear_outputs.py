"""Law 2 for all that acts at linear maps: files of `adapters` give what that library computed, and return as they were.

The bases are made anew from the names of their parameters, by which transformers 4 knew them; see tests/recipes/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from golden import Archive
from safetensors.torch import load_file
from test_adapters_format import same
from test_family_outputs import assert_same, base_of, close, inputs_of
from tiny_models import answers

from adapterhub.converters import adapters as adapters_format
from adapterhub.converters import read, write
from adapterhub.loader import attach

FOLDER = Archive("linear-cases.tar.gz").folder()
DOCUMENT = json.loads((FOLDER / "cases.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = DOCUMENT["cases"]
EXPECTED = load_file(FOLDER / "expected.safetensors")


def name_of(case: dict[str, Any]) -> str:
    return f"{case['family']}-{case['case']}"


def test_every_family_has_cases_of_every_method() -> None:
    for family in FAMILIES:
        kinds = {case["case"] for case in [*CASES, *DOCUMENT["refused"]] if case["family"] == family}
        assert {"lora", "lora-all", "ia3-of-paper", "dora", "vera-q", "mtl-output", "layers"} <= kinds


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_it_gives_the_output_of_the_reference(case: dict[str, Any]) -> None:
    base = base_of(case["family"])
    before = answers(base, inputs_of(case["family"]))
    adapters = attach(base)
    adapters.load(FOLDER / name_of(case), set_active=True)
    found, expected = answers(base, inputs_of(case["family"])), EXPECTED[name_of(case)]
    assert close(found, expected), float((found - expected).abs().max())
    adapters.activate(None)
    assert torch.equal(answers(base, inputs_of(case["family"])), before)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_the_library_wrote_is_the_same_after_reading_and_writing(case: dict[str, Any], tmp_path: Path) -> None:
    parts = adapters_format.FORMAT.read(FOLDER / name_of(case))
    adapter = adapters_format.decode(parts)
    assert same(adapters_format.encode(adapter), parts)
    native = read(write(adapter, tmp_path / "x.safetensors", format="native"))
    assert_same(adapter, native)
    assert same(adapters_format.encode(native), parts)
