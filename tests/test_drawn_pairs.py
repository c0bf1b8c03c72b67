"""What one library made at random is written for the other and computes the same there, or is refused by name.

tests/recipes/make_drawn_pairs.py draws as many as one likes; those here found faults, or are a fair sample. `make
peers` loads what is written for `adapters` in that library; here it is read again.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from drawn_options import MODELS
from drawn_pairs import peft_case
from golden import PAIRS, PREFIXES, Case
from make_drawn_pairs import kind_of, made_by_peft, make_base
from test_peft_outputs import assert_close, base_of, output_of

import adapterhub
from adapterhub.architectures import by_name
from adapterhub.errors import UnsupportedError

pytestmark = pytest.mark.usefixtures("quiet")

CONVERTED: dict[int, bool] = {
    **dict.fromkeys((12, 81, 106, 132, 168, 204, 270, 282), False),
    **dict.fromkeys((10_000, 10_008, 10_015, 10_020, 10_033, 10_036, 10_044, 10_057), False),
    **dict.fromkeys((10_001, 10_006, 10_011, 10_012, 10_021, 10_025, 10_034), True),
    **dict.fromkeys((6, 10, 40, 54, 61, 78, 114, 126, 129, 145, 165, 181, 194, 216, 224, 260, 274), True),
}
"""Number of a case of PEFT that `adapters` can compute → whether what stands in some layers needs the base model."""

REFUSED: dict[int, str] = {
    26: "it scales outputs, not what maps read",
    98: "no word for layer_norm",
    105: "its updates have no bias",
    141: "has no name in it",
    154: "its updates have no bias",
    10_027: "has no name in it",
}
"""Number of a case of PEFT that `adapters` cannot compute → the reason."""

BEYOND: dict[str, str] = {
    "pair-adapters-29": "counts the text's positions on behind the prefix",
    "pair-adapters-38": "no type for reft",
    "pair-adapters-57": "no type for mtl_lora",
    "pair-adapters-76": "vectors have gates",
    "pair-adapters-228": "updates have gates",
}
"""Case of `adapters` that PEFT cannot compute → the reason."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


def base_folder(root: Path, name: str, kind: str) -> Path:
    folder = root / "bases" / f"{name}-{kind}"
    return folder if folder.exists() else make_base(root, name, kind, by_name(MODELS[name].row).past)


def made_here(root: Path, number: int) -> Case:
    """Return a case of PEFT, made by that library now."""
    drawn, identity = peft_case(number), f"pair-peft-{number}"
    base_folder(root, drawn["family"], kind_of(drawn))
    torch.manual_seed(0)
    found = made_by_peft(root, identity, drawn)
    fields: dict[str, Any] = {"id": identity, "adapters": [{"name": "task", "path": "adapters/task"}], **found}
    return Case(root / identity, fields)


def answered(case: Case, path: Path) -> torch.Tensor:
    """Return the output with an adapter in any format."""
    model = base_of(case)
    adapterhub.attach(model).load(path, name="task", set_active=True)
    return output_of(case, model)


@pytest.mark.parametrize("number", CONVERTED)
def test_an_adapter_of_peft_computes_the_same_as_one_of_the_other_library(
    number: int, root: Path, tmp_path: Path
) -> None:
    case = made_here(root, number)
    assert_close(case, answered(case, case.adapter))
    if CONVERTED[number]:
        with pytest.raises(UnsupportedError, match="adapters format cannot say"):
            adapterhub.convert(case.adapter, tmp_path / "alone", to="adapters")
    report = adapterhub.convert(
        case.adapter, tmp_path / "out", to="adapters", base=case.base if CONVERTED[number] else None
    )
    assert report.exact
    assert_close(case, answered(case, tmp_path / "out"))


@pytest.mark.parametrize("number", REFUSED)
def test_what_the_other_library_cannot_compute_is_refused_with_its_base_too(
    number: int, root: Path, tmp_path: Path
) -> None:
    case = made_here(root, number)
    assert_close(case, answered(case, case.adapter))
    for base in (None, case.base):
        with pytest.raises(UnsupportedError, match=REFUSED[number]):
            adapterhub.convert(case.adapter, tmp_path / "out", to="adapters", base=base)
        assert not (tmp_path / "out").exists()


def with_base(case: Case, root: Path) -> Case:
    """Return a case of the archive with the base that its numbers were made on."""
    drawn = case["drawn"]
    kind = case["base"].removeprefix(f"../bases/{drawn['family']}-")
    folder = base_folder(root, drawn["family"], kind)
    return Case(case.folder, {**case.fields, "base": str(folder)})


@pytest.mark.parametrize("case", PAIRS.cases(), ids=str)
def test_an_adapter_of_the_other_library_computes_the_same_in_peft_or_is_refused(
    case: Case, root: Path, tmp_path: Path
) -> None:
    case = with_base(case, root)
    assert_close(case, answered(case, case.adapter))
    if case["id"] in BEYOND:
        with pytest.raises(UnsupportedError, match=BEYOND[case["id"]]):
            adapterhub.convert(case.adapter, tmp_path / "out", to="peft", base=case.base)
        return
    assert adapterhub.convert(case.adapter, tmp_path / "out", to="peft", base=case.base).exact
    document = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    if "PEFT_PLUGIN" in document["peft_type"]:
        importlib.import_module("adapterhub.peft_plugin")  # registers the type
    wrapped = (document["auto_mapping"] or {}).get("base_model_class") or case["base_class"]
    labels = case.expected()["output"].shape[-1]
    words: dict[str, Any] = {"num_labels": labels} if "Classification" in wrapped else {}
    words |= {"attn_implementation": case["attn_implementation"]} if case["attn_implementation"] else {}
    model = getattr(transformers, wrapped).from_pretrained(case.base, **words).eval()
    assert_close(case, output_of(case, peft.PeftModel.from_pretrained(model, tmp_path / "out").eval()))


@pytest.mark.parametrize("case", [case for case in PAIRS.cases() if "EncoderDecoder" in case["base_class"]], ids=str)
def test_a_model_of_two_is_made_up_to_verify_what_is_for_one(case: Case, tmp_path: Path) -> None:
    report = adapterhub.convert(case.adapter, tmp_path / "a.safetensors", to="native", verify=True)
    assert report.verified is not None
    assert report.verified.random
    assert report.verified.difference == 0


@pytest.mark.parametrize(
    "case",
    [
        *(PREFIXES.case(name) for name in ("a-t5-mlp", "a-t5-leave_out_both", "a-mbart-leave_out_both")),
        *(PAIRS.case(f"pair-adapters-{number}") for number in (13, 57, 285)),
    ],
    ids=str,
)
def test_a_base_is_made_up_with_the_heads_layers_and_widths_that_an_adapter_tells(case: Case, tmp_path: Path) -> None:
    report = adapterhub.convert(case.adapter, tmp_path / "a.safetensors", to="native", verify=True)
    assert report.verified is not None
    assert report.verified.random
    assert report.verified.difference < 1e-4
