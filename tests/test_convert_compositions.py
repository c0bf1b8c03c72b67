"""convert of compositions: a setup folder of `adapters` into ours and back, from a registry, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_session import type_command
from golden import SETUPS, Case
from safetensors.torch import load_file
from test_saved_compositions import output_of, place_of, setup_base, setups

import adapterhub
from adapterhub import Stack
from adapterhub.arrangement import read
from adapterhub.errors import StateError, UnsupportedError, UsageError
from adapterhub.hub.base_models import load_model
from adapterhub.loader import attach
from adapterhub.methods import LoraConfig

pytestmark = pytest.mark.usefixtures("clean")


def setup_model() -> str:
    return str(SETUPS.folder() / "base")


def contents(folder: Path) -> dict[str, Any]:
    """Return relative path → document or tensors of every file in a folder."""
    found: dict[str, Any] = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        key = str(file.relative_to(folder))
        if file.suffix == ".json":
            found[key] = json.loads(file.read_text())
        else:
            found[key] = {name: tensor.tolist() for name, tensor in load_file(file).items()}
    return found


@pytest.mark.parametrize("case", [case for case in setups() if str(case) != "fuse-no-head"], ids=str)
def test_a_setup_folder_becomes_ours_and_itself_again(case: Case, tmp_path: Path) -> None:
    model = setup_base()
    ours, back = tmp_path / "ours", tmp_path / "back"
    report = adapterhub.convert(place_of(case), ours, to="native", base=model, verify=True)
    assert (report.source.format, report.target.format, report.exact) == ("adapters", "native", True)
    assert report.verified is not None
    assert report.verified.difference < 1e-6
    assert (report.tensors.read, report.tensors.transformed) == (report.tensors.written, ())
    assert report.composition == str(read(ours).composition)
    adapters = attach(model)
    adapters.load(str(ours), set_active=True)
    assert torch.allclose(output_of(adapters, case), case.expected()[case["output_key"]], atol=2e-5, rtol=1e-5)
    adapters.detach()
    again = adapterhub.convert(ours, back, to="adapters", base=model, verify=True)
    assert again.verified is not None
    assert again.verified.difference < 1e-6
    wanted = contents(place_of(case))
    if isinstance(wanted["adapter_setup.json"].get("head_setup"), (list, dict)):
        # The library takes these heads where none are said.
        wanted["adapter_setup.json"]["head_setup"] = None
    assert contents(back) == wanted


def test_a_composition_of_a_registry_becomes_a_setup_folder_and_keeps_its_pins_as_native(
    shelf: Path, base: Path, tmp_path: Path
) -> None:
    made = adapterhub.compose("both@1.0.0", "parallel(movies, books)", base=str(base), push=shelf)
    assert made.outcome is not None
    typed = type_command(
        *("convert", "both@1.0.0", "--to", "adapters", "--out", "theirs", "--base", str(base), "--verify", "--json")
    )
    assert typed.status == 0, typed.err
    report = typed.json
    assert report["composition"] == "parallel(movies, books)"
    assert report["source"]["digest"] == made.digest
    assert report["verified"]["difference"] < 1e-6
    assert sorted(report["target"]["files"]) == sorted(contents(Path("theirs")))
    assert report["tensors"]["read"] == report["tensors"]["written"] > 0
    assert {name.partition(": ")[0] for name in report["tensors"]["renamed"]} == {"movies", "books"}
    copied = adapterhub.convert("both", "copy.json", to="native", base=str(base), name="two@2.0.0")
    assert (copied.adapter, copied.tensors.written) == ("two", 0)
    whole, source = read(Path("copy.json")), made.arrangement
    assert (whole.version, whole.adapters, whole.base) == ("2.0.0", source.adapters, source.base)


def test_a_dry_run_of_a_composition_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    case = SETUPS.case("stack-of-fuse")
    words = ("convert", str(place_of(case)), "--to", "native", "--out", "ours", "--base", setup_model(), "--json")
    dry = type_command(*words, "--dry-run")
    assert dry.status == 0, dry.err
    assert not Path("ours").exists()
    wet = type_command(*words)
    assert wet.status == 0, wet.err
    assert dry.json == {**wet.json, "written": False}
    text = type_command(*words[:-1], "--force").out
    assert 'composition  stack(Lang-en, fuse(a, c, name="a+c"))' in text


def test_a_composition_takes_the_place_of_another_only_if_told(tmp_path: Path) -> None:
    first, second = place_of(SETUPS.case("stack-of-fuse")), place_of(SETUPS.case("average"))
    adapterhub.convert(first, "there", to="adapters", base=setup_model())
    with pytest.raises(StateError, match="there exists already"):
        adapterhub.convert(second, "there", to="adapters", base=setup_model())
    assert contents(Path("there")) == contents(first)
    adapterhub.convert(second, "there", to="adapters", base=setup_model(), force=True)
    there, wanted = contents(Path("there")), contents(second)
    assert {file: there.get(file) for file in wanted} == wanted
    with pytest.raises(UsageError, match="lie within each other"):
        adapterhub.convert(first, first / "inside", to="native", base=setup_model())


def test_what_has_no_word_for_compositions_says_so_and_what_it_cannot_say_of_the_adapters(tmp_path: Path) -> None:
    typed = type_command(
        *("convert", str(place_of(SETUPS.case("stack-of-fuse"))), "--to", "peft", "--out", "x", "--json")
    )
    assert typed.status == 6
    assert "peft has no word for compositions, such as stack(" in typed.error["message"]
    assert "a+c: PEFT has no type for fusion" in typed.error["message"]
    assert not Path("x").exists()


def test_adapters_that_the_library_knows_in_other_words_are_told_in_them_and_all_others_refused(
    base: Path, tmp_path: Path
) -> None:
    model = load_model(str(base))
    adapters = attach(model)
    adapters.add("some", "lora[r=2,rank_stabilised=true]+classification_head")
    adapters.add("biased", LoraConfig(update_bias=True))
    adapters.add("behind", LoraConfig(targets=("attention_output",)))
    for name, leaves in (("good", ["some"]), ("bad", ["some", "biased", "behind"])):
        adapters.compose(name, Stack(*leaves))
        adapters.save(name, tmp_path / name)
    adapters.detach()
    report = adapterhub.convert(tmp_path / "good", tmp_path / "theirs", to="adapters", base=model, verify=True)
    assert report.verified is not None
    assert report.verified.difference < 1e-6
    with pytest.raises(UnsupportedError, match=r"biased: .*no bias.*; behind: .*attention_output"):
        adapterhub.convert(tmp_path / "bad", tmp_path / "no", to="adapters", base=model)
    assert not (tmp_path / "no").exists()


def test_what_adapters_computes_otherwise_is_refused_with_the_difference(shelf: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "average(movies, books)", head="books", base=str(base), out="both.json")
    with pytest.raises(UnsupportedError, match="`adapters` computes something else for average"):
        adapterhub.convert("./both.json", "theirs", to="adapters", base=str(base))
    assert not Path("theirs").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"approximate": "lora", "rank": 2}, "is a composition, which is converted as it is"),
        ({"options": {"alpha": 16}}, "is a composition, which is converted as it is"),
        ({"name": "No Name"}, "is not NAME or NAME@VERSION"),
    ],
)
def test_what_is_said_of_one_adapter_is_refused_of_a_composition(words: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        adapterhub.convert(place_of(SETUPS.case("average")), "x", to="native", base=setup_model(), **words)
