"""Law 2 for Compacter, invertible adapters and ReFT: what `adapters` wrote gives what that library computed.

The bases are made anew from the names of their parameters, by which transformers 4 knew them; see tests/recipes/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, batch
from golden import Archive
from make_further_cases import MASKS, cases_of, with_head
from safetensors.torch import load_file
from test_family_outputs import assert_same, base_of, close
from tiny_models import answers
from transformers import PreTrainedModel

from adapterhub.architectures import by_name
from adapterhub.converters import read, write
from adapterhub.converters.torch_file import load as load_torch
from adapterhub.errors import FormatError, UnsupportedError
from adapterhub.loader import attach

FOLDER = Archive("further-cases.tar.gz").folder()
DOCUMENT = json.loads((FOLDER / "cases.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = [case for case in DOCUMENT["cases"] if case["outputs"]]
LACKING: list[dict[str, Any]] = [case for case in DOCUMENT["cases"] if not case["outputs"]]
EXPECTED = load_file(FOLDER / "expected.safetensors")
WITH_LOGITS = [case for case in CASES if any(name.endswith("-logits") for name in case["outputs"])]


def name_of(case: dict[str, Any]) -> str:
    return f"{case['family']}-{case['case']}"


def inputs_of(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The batch that the recipe asked."""
    found: dict[str, torch.Tensor] = batch(base_of(case["family"]), padded=FAMILIES[case["family"]].padded)
    if "decoder_input_ids" in found and "reft" in case["case"]:
        found["decoder_input_ids"] = torch.tensor([[68, 10, 73, 5, 11, 12], [7, 81, 12, 94, 6, 8]])
    return found


def language_model(family: str) -> PreTrainedModel:
    made: PreTrainedModel = with_head(family, by_name(FAMILIES[family].row).past)
    return made


def test_there_are_cases_of_every_method_on_every_family() -> None:
    refused = {(row["family"], row["case"]): row["error"] for row in DOCUMENT["refused"]}
    made = {(case["family"], case["case"]) for case in DOCUMENT["cases"]}
    wanted = {(family, case) for family in FAMILIES for case in cases_of(family)}
    assert made | refused.keys() == wanted
    assert {family for family, case in refused if case == "inverse"} == {"vit", "beit", "clip_vision_model"}


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_an_adapter_gives_the_output_of_the_reference(case: dict[str, Any]) -> None:
    base, inputs = base_of(case["family"]), inputs_of(case)
    before = answers(base, inputs)
    adapters = attach(base)
    adapters.load(FOLDER / name_of(case), set_active=True)
    found, expected = answers(base, inputs), EXPECTED[name_of(case)]
    assert close(found, expected), float((found - expected).abs().max())
    for kind, mask in MASKS.items():
        if f"{name_of(case)}-{kind}" in EXPECTED:
            other = {"input_ids": inputs["input_ids"]}
            found = answers(base, other if mask is None else {**other, "attention_mask": torch.tensor(mask)})
            assert close(found, EXPECTED[f"{name_of(case)}-{kind}"]), kind
    adapters.activate(None)
    assert torch.equal(answers(base, inputs), before)


@pytest.mark.parametrize("case", WITH_LOGITS, ids=name_of)
def test_the_inverse_stands_in_front_of_output_embeddings_where_the_reference_has_it(case: dict[str, Any]) -> None:
    base = language_model(case["family"])
    attach(base).load(FOLDER / name_of(case), set_active=True)
    found, expected = answers(base, inputs_of(case)), EXPECTED[f"{name_of(case)}-logits"]
    assert close(found, expected), float((found - expected).abs().max())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_the_library_wrote_is_the_same_after_reading_and_writing(case: dict[str, Any], tmp_path: Path) -> None:
    source = FOLDER / name_of(case)
    adapter = read(source)
    again = Path(write(adapter, tmp_path / "again", format="adapters"))
    config = "adapter_config.json"
    assert json.loads((again / config).read_text()) == json.loads((source / config).read_text())
    mine, theirs = load_file(again / "adapter.safetensors"), weights(source)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[key]) for key, x in mine.items())
    assert_same(adapter, read(again))
    assert_same(adapter, read(write(adapter, tmp_path / "x.safetensors", format="native")))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "adapter.safetensors").exists():
        return load_file(folder / "adapter.safetensors")
    return load_torch(folder / "pytorch_adapter.bin", inside=folder)[0]


@pytest.mark.parametrize("case", LACKING, ids=name_of)
def test_a_compacter_without_what_its_layers_share_is_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"shared_parameters.*without a head"):
        read(FOLDER / name_of(case))


def test_sizes_that_differ_are_refused_where_compacter_shares_weights() -> None:
    adapters = attach(base_of("clip"))
    with pytest.raises(UnsupportedError, match=r"different hidden sizes \(24, 32\)"):
        adapters.add("x", "compacter[reduction_factor=4,phm_dim=2]")
    adapters.add("x", "compacter[reduction_factor=4,phm_dim=2,shared_phm_rule=false]")
