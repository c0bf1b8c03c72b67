"""Law 2 for what nobody thought of: adapters and compositions drawn at random give what `adapters` computed.

tests/recipes/make_drawn_cases.py draws and makes as many as one likes; those here found faults, or are a fair sample.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_models import answers, inputs, plain, taken_by
from drawn_options import MODELS
from golden import Archive, node
from safetensors.torch import load_file
from test_adapters_format import same

from adapterhub.architectures import by_name
from adapterhub.converters import adapters as adapters_format
from adapterhub.errors import FormatError, UnsupportedError, UsageError
from adapterhub.loader import attach

FOLDER = Archive("drawn-cases.tar.gz").folder()
DOCUMENT = json.loads((FOLDER / "cases.json").read_text("utf-8"))
EXPECTED = load_file(FOLDER / "expected.safetensors")
TOLERANCE = 1e-4

REFUSED: dict[str, str] = {
    "composition-228": "a split of which some adapters have nothing at a site",
    "composition-380": "post_add",
    "dated-296": "targets and inputs are empty",
    "method-1000": "targets is empty",
    "method-1355": "empty",
    "method-2195": "empty",
}
"""Case → words of the error with which it is refused, though the library computes something."""

STEEP = ("method-23",)
"""Cases that make much of a last bit: in double precision what is rounded is the reference's alone."""

LACKING = [case for case in DOCUMENT["cases"] if case.get("lost") or case.get("reloads_otherwise")]
"""Cases whose files do not hold what the library computed before it saved them."""
CASES = [case for case in DOCUMENT["cases"] if case not in LACKING and case["id"] not in REFUSED]


def name_of(case: dict[str, Any]) -> str:
    return f"{case['id']}-{case['what']}-{case['family']}"


def folder_of(case: dict[str, Any], name: str) -> Path:
    return FOLDER / str(case["id"]) / name.replace(",", "+")


def answered(case: dict[str, Any], kind: str) -> dict[str, torch.Tensor]:
    """Return what the model of a case answers with its adapters, bare or of a class with a head."""
    past = by_name(MODELS[case["family"]].row).past
    model, bare = plain(case["family"], kind, case["attention"], past)
    given = inputs(case["id"], case["shape"], taken_by(bare))
    if case["id"] in STEEP:
        model.double()
    adapters = attach(model, compat=case.get("compat"))
    for name in (*case["adapters"], *case.get("fusions", ())):
        adapters.load(folder_of(case, name), name=name)
    adapters.activate(node(case["active"]) if "active" in case else next(iter(case["adapters"])))
    found: dict[str, torch.Tensor] = answers(model, given)
    return found


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_it_gives_the_output_of_the_reference(case: dict[str, Any]) -> None:
    kinds = [("bare", ""), ("head", "head.")] if case["class"] == "head" else [("bare", "")]
    for kind, prefix in kinds:
        for key, found in answered(case, kind).items():
            expected = EXPECTED.get(f"{case['id']} {prefix}{key}")
            if expected is None:
                continue
            assert found.shape == expected.shape
            scale = max(1.0, float(expected.abs().max()))
            assert float((found - expected).abs().max()) < TOLERANCE * scale, (prefix, key)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_the_library_wrote_is_the_same_after_reading_and_writing(case: dict[str, Any]) -> None:
    for name in case["adapters"]:
        parts = adapters_format.FORMAT.read(folder_of(case, name))
        assert same(adapters_format.encode(adapters_format.decode(parts)), parts)


@pytest.mark.parametrize("case", [case for case in DOCUMENT["cases"] if case["id"] in REFUSED], ids=name_of)
def test_what_is_refused_is_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises((FormatError, UnsupportedError, UsageError), match=REFUSED[case["id"]]):
        answered(case, "bare")
