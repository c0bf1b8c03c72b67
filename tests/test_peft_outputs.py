"""Law 2 for files of PEFT: they give what that library computes, and what is written for it does so there."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from golden import GOLDEN, PEFTS, Case
from test_adapters_format import same

from adapterhub.adapter import Adapter
from adapterhub.architectures import by_model_type, by_name
from adapterhub.converters import peft as peft_format
from adapterhub.converters import read, write
from adapterhub.converters.peft import types
from adapterhub.errors import UnsupportedError
from adapterhub.loader import AdapterSet, attach
from adapterhub.loader.known_base import KnownBase

ALONE = GOLDEN.cases(groups="D", kinds="peft-loader")
NATIVE = [case for case in PEFTS.cases() if case["method"] not in types.REFUSED]
BEYOND = {"bert-waveft-sym4": "sym4", "vit-oft": "convolution"}
"""Cases of types that are read which are not, and why."""
OWN = [case for case in NATIVE if str(case) not in BEYOND]
PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "CPT", "CARTRIDGE")
UNTOLD = ("VERA", "VBLORA")
"""Types that `load_adapter` of transformers refuses: they share tensors among modules."""


def base_of(case: Case) -> Any:
    attention = {"attn_implementation": case["attn_implementation"]} if case.get("attn_implementation") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, case["base_class"]).from_pretrained(case.base, **attention).eval()


@torch.no_grad()
def output_of(case: Case, model: Any) -> torch.Tensor:
    found: torch.Tensor = model(**case.inputs())[case["output_key"]]
    return found


def assert_close(case: Case, found: torch.Tensor, name: str = "output") -> None:
    wanted = case.expected()[name]
    assert case.close(found, wanted), float((found - wanted).abs().max())


def loaded(case: Case) -> AdapterSet:
    """Return a base with the adapters of a case, none of them active."""
    adapters = attach(base_of(case))
    for name, folder in case.adapters.items():
        adapters.load(folder, name=name)
    return adapters


@pytest.mark.parametrize("case", [*ALONE, *OWN], ids=str)
def test_an_adapter_of_peft_gives_its_output(case: Case) -> None:
    adapters = loaded(case)
    before = output_of(case, adapters.model)
    adapters.activate(next(iter(case.adapters)))
    assert_close(case, output_of(case, adapters.model))
    adapters.activate(None)
    assert torch.equal(output_of(case, adapters.model), before)


MERGED = [case for case in OWN if case["method"] not in (*PROMPTS, "TRAINABLE_TOKENS") and "token" not in str(case)]


@pytest.mark.parametrize("case", MERGED, ids=str)
def test_a_merged_adapter_of_peft_computes_the_same(case: Case) -> None:
    adapters = loaded(case)
    adapters.merge("default", untie=True)
    found = output_of(case, adapters.model)
    assert torch.allclose(found, case.expected()["output"], atol=2e-4, rtol=2e-4)
    adapters.unmerge()


def plain(adapter: Adapter) -> Adapter:
    """Return an adapter without its source's spelling, but for the class that it was saved from."""
    extra = {"peft": {"prefix": adapter.manifest.extra["peft"]["prefix"]}}
    return dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra=extra))


def read_for(case: Case, folder: Path) -> Adapter:
    kind = json.loads((case.base / "config.json").read_text("utf-8"))["model_type"]
    return read(folder, row=by_model_type(kind))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Let the references warn about themselves, but not about tensors that they miss or do not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing adapter keys|nexpected keys|not found).*")
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", [*ALONE, *OWN], ids=str)
def test_what_is_written_gives_the_same_output_in_peft(case: Case, tmp_path: Path) -> None:
    adapter = read_for(case, case.adapter)
    folder = write(plain(adapter), tmp_path / "out", format="peft")
    assert read_for(case, folder).config == adapter.config
    assert_close(case, output_of(case, peft.PeftModel.from_pretrained(base_of(case), folder).eval()))


def in_transformers(case: Case) -> bool:
    """Whether `load_adapter` of transformers loads PEFT's own file of this case rightly."""
    document = json.loads((case.adapter / "adapter_config.json").read_text("utf-8"))
    # It begins DoRA's magnitudes anew (transformers 5.23), and draws the places of SHiRA another time.
    return not document.get("use_dora") and document["peft_type"] not in (*PROMPTS, *UNTOLD, "SHIRA")


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", [case for case in [*ALONE, *OWN] if in_transformers(case)], ids=str)
def test_what_is_written_gives_the_same_output_in_transformers(case: Case, tmp_path: Path) -> None:
    folder = write(plain(read_for(case, case.adapter)), tmp_path / "out", format="peft")
    base = base_of(case)
    base.load_adapter(str(folder))
    assert_close(case, output_of(case, base.eval()))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", GOLDEN.cases(groups="E", kinds="convert-pair"), ids=str)
def test_adapters_of_the_two_libraries_become_each_other(case: Case, tmp_path: Path) -> None:
    base = base_of(case)
    ours = write(read_for(case, case.folder / case["peft"]["path"]), tmp_path / "adapters", format="adapters")
    adapters = attach(base)
    adapters.load(ours, set_active=True)
    assert_close(case, output_of(case, base))
    theirs = write(read(case.adapter), tmp_path / "peft", format="peft")
    assert_close(case, output_of(case, peft.PeftModel.from_pretrained(base_of(case), theirs).eval()))


BY_PLUG_IN = "e-refuse-seqbn"
"""What PEFT computes once it has learned it; see test_peft_plugin.py."""

ANSWERLESS = GOLDEN.cases(groups="E", kinds="convert-inexact convert-refuse refuse")
REFUSED = [case for case in ANSWERLESS if str(case) != BY_PLUG_IN]


def test_no_pair_of_the_golden_cases_is_forgotten() -> None:
    pairs = GOLDEN.cases(groups="E", kinds="convert-pair")
    assert {str(case) for case in GOLDEN.cases(groups="E")} == {BY_PLUG_IN, *(str(case) for case in [*pairs, *REFUSED])}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_the_other_library_cannot_compute_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    if case["adapters"]:
        with pytest.raises(UnsupportedError, match="PEFT"):
            write(read(case.adapter), tmp_path / "peft", format="peft")
    if case.get("peft"):
        with pytest.raises(UnsupportedError, match="adapters format"):
            write(read_for(case, case.folder / case["peft"]["path"]), tmp_path / "adapters", format="adapters")


WITH_BASE = [case for case in GOLDEN.cases(groups="A") if case["id"] in ("a-bert-dora", "a-vit-vera")]
ROTATED = [case for case in GOLDEN.cases(groups="A") if "prefix" in str(case) and case["arch"].startswith("llama")]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", [*WITH_BASE, *ROTATED], ids=str)
def test_what_depends_on_the_base_is_said_in_other_numbers(case: Case, tmp_path: Path) -> None:
    folder = write(read(case.adapter), tmp_path / "peft", format="peft", base=KnownBase(base_of(case)))
    found = output_of(case, peft.PeftModel.from_pretrained(base_of(case), folder).eval())
    assert_close(case, found[:, -case.expected()["output"].shape[1] :])


@pytest.mark.parametrize("case", ROTATED, ids=str)
def test_a_prefix_whose_keys_are_turned_comes_back_by_turning_them_back(case: Case, tmp_path: Path) -> None:
    base = base_of(case)
    known = KnownBase(base)
    theirs = read(write(read(case.adapter), tmp_path / "peft", format="peft", base=known), row=by_name("llama"))
    bare = dataclasses.replace(theirs, manifest=dataclasses.replace(theirs.manifest, extra={}))
    ours = write(bare, tmp_path / "adapters", format="adapters", base=known)
    adapters = attach(base)
    adapters.load(ours, set_active=True)
    assert_close(case, output_of(case, base))


def test_a_prefix_is_not_written_where_positions_are_added(tmp_path: Path) -> None:
    case = GOLDEN.case("e-gpt2-prefix-flat")
    with pytest.raises(UnsupportedError, match="counts the text's positions"):
        write(read(case.adapter), tmp_path / "peft", format="peft", base=KnownBase(base_of(case)))


def test_dora_is_not_written_for_the_other_library_without_the_base() -> None:
    with pytest.raises(UnsupportedError, match="with the base model's weights it converts"):
        peft_format.encode(read(GOLDEN.case("a-bert-dora").adapter))


def test_dora_of_peft_becomes_that_of_adapters_where_the_maps_have_no_bias(tmp_path: Path) -> None:
    case = next(case for case in OWN if str(case) == "llama-lora-dora")
    base = base_of(case)
    ours = write(read_for(case, case.adapter), tmp_path / "adapters", format="adapters", base=KnownBase(base))
    adapters = attach(base)
    adapters.load(ours, set_active=True)
    assert_close(case, output_of(case, base))


@pytest.mark.parametrize("name", ["bert-lora-rslora-patterns", "bert-lora-patterns", "gpt2-lora-default"])
def test_lora_of_peft_with_its_own_ranks_and_scales_becomes_that_of_adapters(name: str, tmp_path: Path) -> None:
    case = PEFTS.case(name)
    ours = write(read_for(case, case.adapter), tmp_path / "adapters", format="adapters")
    adapters = attach(base_of(case))
    adapters.load(ours, set_active=True)
    assert_close(case, output_of(case, adapters.model))


FIRST = list({case["method"]: case for case in OWN if case["arch"] == "bert"}.values())


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case["method"])
def test_an_adapter_of_every_type_can_be_copied_pickled_and_trained(case: Case) -> None:
    adapters = loaded(case)
    adapters.activate("default")
    for model in (copy.deepcopy(adapters.model), pickle.loads(pickle.dumps(adapters.model))):
        assert_close(case, output_of(case, model))
    parameters = adapters.train("default")
    adapters.model(**case.inputs())[case["output_key"]].square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters)
    assert any(bool(parameter.grad.any()) for parameter in parameters if parameter.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case["method"])
def test_an_adapter_of_every_type_is_compiled_whole(case: Case) -> None:
    adapters = loaded(case)
    adapters.activate("default")
    torch.compiler.reset()
    compiled = torch.compile(adapters.model, backend="eager", fullgraph=True)
    assert_close(case, output_of(case, compiled))


CONVERTED = [case for case in PEFTS.cases() if case["method"] in types.REFUSED]


@pytest.mark.parametrize("case", CONVERTED, ids=str)
def test_a_type_that_is_not_read_says_why(case: Case) -> None:
    with pytest.raises(UnsupportedError, match=case["method"]) as caught:
        read_for(case, case.adapter)
    assert types.REFUSED[case["method"]].reason in str(caught.value)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "case", [case for case in CONVERTED if types.REFUSED[case["method"]].instead == types.CONVERT], ids=str
)
def test_what_peft_makes_a_lora_of_is_read_then(case: Case, tmp_path: Path) -> None:
    model = peft.PeftModel.from_pretrained(base_of(case), case.adapter).eval()
    peft.save_as_lora(tmp_path / "lora", model, rank=32)
    adapters = attach(base_of(case))
    adapters.load(tmp_path / "lora", set_active=True)
    found = output_of(case, adapters.model)
    assert torch.allclose(found, case.expected()["output"], atol=2e-4, rtol=2e-4)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "case", [case for case in CONVERTED if types.REFUSED[case["method"]].instead == types.MERGE], ids=str
)
def test_what_is_to_be_merged_can_be_merged_in_peft(case: Case) -> None:
    merged = peft.PeftModel.from_pretrained(base_of(case), case.adapter).eval().merge_and_unload()
    found = output_of(case, merged)
    assert torch.allclose(found, case.expected()["output"], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", BEYOND)
def test_an_option_that_is_not_computed_is_refused_by_name(name: str) -> None:
    case = PEFTS.case(name)
    with pytest.raises(UnsupportedError, match=BEYOND[name]):
        attach(base_of(case)).load(case.adapter, name="x")


@pytest.mark.parametrize("case", [*ALONE, *OWN], ids=str)
def test_writing_what_was_read_gives_every_value_and_bit_back(case: Case) -> None:
    parts = dataclasses.replace(peft_format.folder.read(case.adapter), row=by_model_type(_kind(case)))
    adapter = peft_format.decode(parts)
    assert same(peft_format.encode(adapter), parts)


def _kind(case: Case) -> str:
    found: str = json.loads((case.base / "config.json").read_text("utf-8"))["model_type"]
    return found
