"""Prefixes of different lengths side by side: with compat="adapters" what that library computes, else what is meant.

The bases are made anew from the names of their parameters, by which transformers 4 knew them; see tests/recipes/.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from families import FAMILIES
from golden import Archive, node
from make_uneven_cases import MASKS, attentions, inputs_of, plain
from safetensors.torch import load_file
from test_family_outputs import close
from tiny_models import answers
from transformers import PreTrainedModel

from adapterhub.architectures import by_name
from adapterhub.composition import leaves
from adapterhub.errors import UnsupportedError
from adapterhub.loader import AdapterSet, attach

FOLDER = Archive("uneven-cases.tar.gz").folder()
DOCUMENT = json.loads((FOLDER / "cases.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = DOCUMENT["cases"]
EXPECTED = load_file(FOLDER / "expected.safetensors")

APART = ("t5", "mt5", "xmod", "xmod-pre-norm", "clip", "encoder-decoder-gpt2")
"""Families that refuse it, or whose rows depend on each other, or which files of the library change besides."""
ROWS = [case for case in CASES if case["id"].endswith(" rows") and case["family"] not in APART]


def base_of(case: dict[str, Any]) -> PreTrainedModel:
    family = case["family"]
    made: PreTrainedModel = plain(family, case["attention"], by_name(FAMILIES[family].row).past)
    return made


def prepared(case: dict[str, Any], compat: str | None) -> AdapterSet:
    adapters = attach(base_of(case), compat=compat)
    for name in leaves(node(case["active"])):
        if name not in adapters.names:
            adapters.load(FOLDER / f"{case['family']}-{name}", name=name)
    return adapters


def refusal(case: dict[str, Any]) -> str | None:
    """Why a case is refused, None if it is not."""
    if case["family"] == "encoder-decoder-gpt2":
        return "changes the scores of prefixes in batches with padding"  # in its DistilBERT alone
    return None


@pytest.mark.parametrize("case", [case for case in CASES if not refusal(case)], ids=lambda case: str(case["id"]))
def test_rows_see_what_the_library_fills_shorter_prefixes_up_with(case: dict[str, Any]) -> None:
    adapters = prepared(case, "adapters")
    adapters.activate(node(case["active"]))
    for behind in case["masks"]:
        expected = EXPECTED[case["id"] + behind]
        found = answers(adapters.model, inputs_of(base_of(case), MASKS[behind]))
        assert close(found, expected), (behind, float((found - expected).abs().max()))


@pytest.mark.parametrize("case", [case for case in CASES if refusal(case)], ids=lambda case: str(case["id"]))
def test_what_cannot_be_computed_as_there_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=refusal(case)):
        prepared(case, "adapters").activate(node(case["active"]))


@pytest.mark.parametrize("case", ROWS, ids=lambda case: str(case["id"]))
def test_without_compat_each_row_is_as_if_it_were_alone(case: dict[str, Any]) -> None:
    adapters = prepared(case, None)
    for padded in {MASKS[behind] for behind in case["masks"]}:
        inputs = inputs_of(base_of(case), padded)
        alone = []
        for row, name in enumerate(leaves(node(case["active"]))):
            adapters.activate(name)
            alone.append(answers(adapters.model, inputs)[row])
        adapters.activate(node(case["active"]))
        assert close(answers(adapters.model, inputs), torch.stack(alone)), padded


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_a_bias_that_counts_the_prefix_wants_prefixes_of_one_length(family: str) -> None:
    case = next(case for case in CASES if case["id"] == f"{family}-eager rows")
    with pytest.raises(UnsupportedError, match=r"relative position bias at .* counts the prefix"):
        prepared(case, None).activate(node(case["active"]))


def test_there_are_cases_of_every_family_that_has_prefixes_in_the_library() -> None:
    asked = {(case["family"], case["attention"]) for case in CASES}
    assert asked == set(attentions())
    fails = {row["case"].split()[0] for row in DOCUMENT["refused"] if "don't support" not in row["error"]}
    assert fails == {"gptj-eager", "clip", "clip_text_model", "clip_vision_model", "clip_vision_model-eager"}
