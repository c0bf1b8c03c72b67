"""Compositions through files: what was saved computes what it did, and setup folders what `adapters` computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import COMPOSITIONS, GOLDEN, SETUPS, Case
from safetensors.torch import load_file
from test_reference_outputs import base_of
from tiny_models import inputs, model
from torch import Tensor
from transformers import BertModel

import adapterhub
from adapterhub import Average, BatchSplit, Fuse, MultiTask, Parallel, Split, Stack
from adapterhub.arrangement import read
from adapterhub.composition import Composition
from adapterhub.converters import setup_folder
from adapterhub.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.loader import AdapterSet, attach
from adapterhub.methods import FusionConfig

pytestmark = pytest.mark.usefixtures("clean")

FEW = "fuse-of-stack stack-of-fuse split-of-split average-raw rows-prefix parallel-of-stack stack-inverse-first"
"""Compositions of the further cases that go through files; all of them are held against the reference elsewhere."""


def cases() -> list[Case]:
    further = [case for case in COMPOSITIONS.cases(archs="bert gpt2 t5") if str(case).split("-", 2)[2] in FEW.split()]
    return [*GOLDEN.cases(groups="B", kinds="composition"), *further]


@torch.no_grad()
def output_of(adapters: AdapterSet, case: Case) -> Tensor:
    found: Tensor = adapters.model(**case.inputs())[case["output_key"]]
    return found


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_saved_composition_gives_the_output_of_the_reference(case: Case, tmp_path: Path) -> None:
    first = attach(base_of(case), compat="adapters")
    for row in [*case["adapters"], *case["fusions"]]:
        first.load(case.folder / row["path"], name=row["name"])
    node = Stack(case.active) if isinstance(case.active, str) else case.active
    assert node is not None
    first.compose("mine", node)
    path = first.save("mine", tmp_path / "mine")
    again = first.save("mine", tmp_path / "again")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        file.name: file.read_bytes() for file in again.iterdir()
    }

    second = attach(base_of(case))
    assert second.load(str(path), set_active=True) == "mine"
    assert case.close(output_of(second, case), case.expected()["output"])
    replay = second.replay("mine")
    assert replay.difference <= 1e-5
    assert replay.effect is None or replay.effect > 1e-3


@pytest.mark.parametrize(
    "setup",
    [
        Stack("a", "b"),
        Average("a", "b", weights=[2, -0.5], normalize_weights=False),
        Split("a", "b", splits=[9, 4]),
        BatchSplit("a", Stack("b", "a"), batch_sizes=[1, 4]),
        Parallel("a", "b"),
        MultiTask("a", "b"),
        Fuse("a", "b"),
        Stack("a", Fuse("a", "b")),
    ],
    ids=str,
)
@pytest.mark.parametrize("heads", [(), ("no", "yes")], ids=["bare", "headed"])
def test_every_kind_has_a_probe_that_it_answers(setup: Composition, heads: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn[reduction_factor=4]", labels=heads)
    adapters.add("a,b", "fusion")
    for key, parameter in adapters.model.get_submodule("adapterhub").named_parameters():
        if "fusion" not in key:
            torch.nn.init.normal_(parameter, std=0.3)
    shares = heads and isinstance(setup, (Average, Split, Fuse))
    adapters.compose("mine", setup, head="a" if shares or (heads and "fuse" in str(setup)) else None)
    path = adapters.save("mine", tmp_path / "mine")
    probe = read(path).probe
    assert probe is not None
    rows = {"batch_split": 5}.get(setup.type, 2)
    assert torch.tensor(probe.inputs["input_ids"]).shape == (rows, 13 if isinstance(setup, Split) else 8)
    assert probe.output == ("logits" if heads else "last_hidden_state")
    other = attach(model())
    other.load(str(path))
    assert other.replay("mine").difference < 1e-5
    for name in ("a", "b"):
        for parameter in other.model.get_submodule(f"adapterhub.{name}").parameters():
            torch.nn.init.zeros_(parameter)
    with pytest.raises(IntegrityError, match="composition 'mine' does not answer its probe"):
        other.replay("mine")


def test_splits_beyond_what_the_model_reads_are_refused(tmp_path: Path) -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn")
    adapters.compose("long", Split("a", "b", splits=[30, 30]))
    with pytest.raises(UsageError, match="the splits cover 60 tokens, and the base model reads 40"):
        adapters.save("long", tmp_path / "long")


def test_a_composition_in_memory_is_named_activated_and_forgotten() -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn", labels=["no", "yes"])
    adapters.compose("both", Average("a", "b"), head="b")
    with pytest.raises(StateError, match="a composition called 'both' is loaded already"):
        adapters.compose("both", Stack("a", "b"))
    with pytest.raises(NotFoundError, match="no adapter called 'c' is loaded"):
        adapters.compose("other", Stack("a", "c"))
    with pytest.raises(UnsupportedError, match="2 heads cannot share the answer"):
        adapters.compose("other", Average("a", "b"))
    assert adapters.compositions == ("both",)
    adapters.activate("both")
    with adapters.using("a"):
        assert adapters.active == "a"
    assert adapters.active == "both"
    assert adapters.manifest("both").labels == ("no", "yes")
    adapters.activate("both", head="a")
    active: object = adapters.active
    assert active == Average("a", "b")
    adapters.activate("both")
    adapters.compose("both", Stack("a", "b"), overwrite_ok=True)
    assert adapters.active is None
    adapters.delete("both")
    assert (adapters.names, adapters.compositions) == (("a", "b"), ())
    with pytest.raises(NotFoundError, match="no composition called 'both' is loaded; loaded are: none"):
        adapters.arrangement("both")


def test_a_swap_to_a_composition_makes_its_plan_once() -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn")
    adapters.compose("both", Stack("a", "b"))
    adapters.activate("both")
    plan = adapters._installation.plan
    adapters.activate("a")
    adapters.activate("both")
    assert adapters._installation.plan is plan


def test_a_composition_is_merged_by_its_name() -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "lora[r=2]")
        for parameter in adapters.model.get_submodule(f"adapterhub.{name}").parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    adapters.compose("both", Average("a", "b"))
    with torch.no_grad(), adapters.using("both"):
        wanted = adapters.model(**inputs()).last_hidden_state
    adapters.merge("both")
    with torch.no_grad():
        assert torch.allclose(adapters.model(**inputs()).last_hidden_state, wanted, atol=1e-5)


def setups() -> list[Case]:
    return SETUPS.cases()


def place_of(case: Case) -> Path:
    return case.folder / "setup"


def setup_base() -> Any:
    return BertModel.from_pretrained(SETUPS.folder() / "base").eval()


def loaded(case: Case) -> AdapterSet:
    adapters = attach(setup_base())
    if str(case) == "fuse-no-head":
        with pytest.warns(UserWarning, match="says no head for fuse.*; those of a, c are left out"):
            adapters.load(place_of(case), set_active=True)
    else:
        adapters.load(place_of(case), set_active=True)
    return adapters


@pytest.mark.parametrize("case", setups(), ids=str)
def test_a_setup_folder_gives_the_output_of_the_library_that_wrote_it(case: Case) -> None:
    adapters = loaded(case)
    want = case.expected()[case["output_key"]]
    assert torch.allclose(output_of(adapters, case), want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", [case for case in setups() if str(case) != "fuse-no-head"], ids=str)
def test_a_setup_folder_is_written_back_as_it_was(case: Case, tmp_path: Path) -> None:
    adapters = loaded(case)
    (name,) = adapters.compositions
    back = adapters.save(name, tmp_path / "back", format="adapters")
    files = sorted(file.relative_to(place_of(case)) for file in place_of(case).rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(back) for file in back.rglob("*") if file.is_file())
    for file in files:
        here, there = place_of(case) / file, back / file
        if file.suffix == ".json":
            wanted = json.loads(here.read_text())
            if isinstance(wanted.get("head_setup"), (list, dict)):
                # The library takes these heads where none are said.
                wanted["head_setup"] = None
            assert json.loads(there.read_text()) == wanted, file
        else:
            ours, theirs = load_file(there), load_file(here)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), file


def test_a_setup_folder_becomes_a_composition_and_a_setup_folder_again(tmp_path: Path) -> None:
    case = SETUPS.case("stack-of-fuse")
    base = str(SETUPS.folder() / "base")
    made = adapterhub.compose("theirs@1.0.0", str(place_of(case)), base=base, out=tmp_path / "ours")
    assert str(made.arrangement.composition) == 'stack(Lang-en, fuse(a, c, name="a+c"))'
    assert (made.arrangement.head, made.arrangement.rules) == ("top", "adapters")
    adapters = attach(setup_base())
    adapters.load(str(tmp_path / "ours"), set_active=True)
    assert torch.allclose(output_of(adapters, case), case.expected()["logits"], atol=2e-5, rtol=1e-5)
    assert adapters.replay("theirs").difference < 1e-5
    back = adapterhub.compose("t", str(tmp_path / "ours"), base=base, out=tmp_path / "back", format="adapters").paths[0]
    assert json.loads((back / "adapter_setup.json").read_text()) == json.loads(
        (place_of(case) / "adapter_setup.json").read_text()
    )
    with pytest.raises(UnsupportedError, match="computes by the rules of adapters, and what it is put into does not"):
        adapterhub.compose("more@1.0.0", f"stack({tmp_path / 'ours'})", base=base)


def rows(*names: str) -> list[Any]:
    return [{"type": "single", "children": [name]} for name in names]


def changed(tmp_path: Path, case: str, change: Any) -> Path:
    """Return a copy of a setup folder with another document."""
    folder = Path(shutil.copytree(place_of(SETUPS.case(case)), tmp_path / "copy"))
    document = json.loads((folder / "adapter_setup.json").read_text())
    change(document)
    (folder / "adapter_setup.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda d: d.update(adapter_setup=None), FormatError, "adapter_setup is no object"),
        (lambda d: d["adapter_setup"].update(type="Chain"), FormatError, "'Chain' is no kind of composition"),
        (lambda d: d["adapter_setup"].update(children=[]), FormatError, "a node has no children"),
        (lambda d: d["adapter_setup"].update(type="Split"), FormatError, "split lacks splits"),
        (lambda d: d["adapter_setup"].update(kwargs=[1]), FormatError, "kwargs of stack is no object"),
        (lambda d: d["adapter_setup"].update(kwargs={"x": 1}), FormatError, "stack has no setting 'x'"),
        (
            lambda d: d["adapter_setup"]["children"][0].update(children=["../stack"]),
            FormatError,
            "'../stack' leads out of the folder",
        ),
        (
            lambda d: d["adapter_setup"]["children"][0].update(children=["gone"]),
            FormatError,
            "there is no folder of 'gone'",
        ),
        (lambda d: d["adapter_setup"]["children"][0].update(children=[1]), FormatError, "is not one name"),
        (
            lambda d: d["adapter_setup"]["children"].insert(
                0, {"type": "Stack", "children": [d["adapter_setup"]["children"][0]]}
            ),
            FormatError,
            "stack may not stand in stack",
        ),
        (lambda d: d.update(head_setup=["a", "top"]), UnsupportedError, r"the heads \['a', 'top'\] answer"),
        (
            lambda d: d.update(
                adapter_setup={
                    "type": "BatchSplit",
                    "children": rows("a", "Lang-en"),
                    "kwargs": {"batch_sizes": [1, 2]},
                },
                head_setup=["a", "Lang-en"],
            ),
            UnsupportedError,
            r"the heads \['a', 'Lang-en'\] answer",
        ),
        (
            lambda d: d.update(
                adapter_setup={
                    "type": "BatchSplit",
                    "children": rows("a", "Lang-en"),
                    "kwargs": {"batch_sizes": [1, 2]},
                },
                head_setup={"type": "BatchSplit", "children": rows("a", "Lang-en"), "kwargs": {"batch_sizes": [2, 1]}},
            ),
            UnsupportedError,
            r"batch_split\(a, Lang-en, batch_sizes=\[2, 1\]\) answer",
        ),
        (lambda d: d.update(head_setup="gone"), FormatError, "there is no folder of 'gone'"),
    ],
)
def test_a_fault_of_a_setup_folder_is_told(tmp_path: Path, change: Any, error: type[Exception], match: str) -> None:
    folder = changed(tmp_path, "stack", change)
    with pytest.raises(error, match=match):
        attach(setup_base()).load(folder)


def test_weights_of_an_average_that_the_library_would_change_are_told(tmp_path: Path) -> None:
    folder = changed(tmp_path, "average", lambda d: d["adapter_setup"]["kwargs"].update(weights=[1.0, 3.0]))
    with pytest.warns(UserWarning, match="the weights of an average add up to 4; they are taken as they stand"):
        setup = setup_folder.read(folder)
    assert setup.node == Average("Lang-en", "c", weights=[1, 3], normalize_weights=False)
    with pytest.raises(UnsupportedError, match="divides the weights by their sum"):
        setup_folder.document(setup.node, "")


def test_what_adapters_computes_otherwise_is_not_written_for_it(tmp_path: Path) -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn[reduction_factor=4]")
        for parameter in adapters.model.get_submodule(f"adapterhub.{name}").parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    adapters.compose("one", Stack("a"))
    adapters.compose("mean", Average("a", "b"))
    assert (adapters.save("one", tmp_path / "one", format="adapters") / "adapter_setup.json").is_file()
    with pytest.raises(UnsupportedError, match=r"`adapters` computes something else for average\(a, b\): off by"):
        adapters.save("mean", tmp_path / "mean", format="adapters")
    with pytest.raises(UnsupportedError, match="peft has no word for compositions"):
        adapters.save("mean", tmp_path / "mean", format="peft")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize("names", [(), ("x", "y")], ids=["unnamed", "named otherwise"])
def test_a_fusion_layer_is_written_for_the_adapters_of_its_setup(names: tuple[str, ...], tmp_path: Path) -> None:
    adapters = attach(model())
    for name in ("a", "b"):
        adapters.add(name, "seq_bn[reduction_factor=4]")
    adapters.add("mix", FusionConfig(adapters=names))
    adapters.compose("one", Fuse("a", "b", name="mix"))
    folder = adapters.save("one", tmp_path / "one", format="adapters")
    document = json.loads((folder / "a,b" / "adapter_fusion_config.json").read_text())
    # The library looks for the layer under these names.
    assert (document["name"], document["adapter_names"]) == ("a,b", ["a", "b"])


def test_a_folder_of_several_adapters_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="holds a composition of several adapters"):
        adapterhub.read(place_of(SETUPS.case("stack")))
    adapters = attach(model())
    adapters.add("a", "seq_bn")
    adapters.compose("one", Stack("a"))
    with pytest.raises(UnsupportedError, match="holds a composition of several adapters"):
        adapterhub.read(adapters.save("one", tmp_path / "one"))
