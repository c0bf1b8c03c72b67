"""Folders of compositions that `adapters` saved: loaded whole, with that library's output, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import Archive, node
from safetensors.torch import load_file
from test_archives import packed
from test_hostile_input import ends_in_ours
from transformers import AutoModel

from adapterhub import Fuse, Stack
from adapterhub.composition import parse
from adapterhub.converters import read
from adapterhub.errors import AdapterHubError, FormatError, StateError, UnsupportedError, UsageError
from adapterhub.loader import AdapterSet, attach
from adapterhub.loader.setup_folders import setup_at

FOLDER = Archive("setup-cases.tar.gz").folder()
KNOWN = json.loads((FOLDER / "cases.json").read_text())
CASES: dict[str, dict[str, Any]] = KNOWN["cases"]
INPUTS = {name: torch.tensor(value) for name, value in KNOWN["inputs"].items()}


def adapters_of(*, compat: str | None = None) -> AdapterSet:
    return attach(AutoModel.from_pretrained(FOLDER / "base").eval(), compat=compat)


def answer(adapters: AdapterSet) -> torch.Tensor:
    with torch.no_grad():
        found = adapters.model(**INPUTS)
    if hasattr(found, "by_name"):
        return torch.cat([part[0] for part in found.by_name.values()])
    first: torch.Tensor = found[0]
    return first


@pytest.mark.parametrize("name", CASES)
def test_a_setup_answers_as_the_library_that_saved_it(name: str) -> None:
    adapters = adapters_of(compat="adapters")
    text = adapters.load(str(FOLDER / name), set_active=True)
    wanted = load_file(FOLDER / name / "expected.safetensors")["output"]
    assert torch.allclose(answer(adapters), wanted, atol=1e-4, rtol=1e-4)
    data = CASES[name]["active"]
    assert parse(text) == (Fuse("a", "b", name="mixed") if data.get("name") else node(data))
    assert str(adapters.active) == text


def test_a_setup_can_be_activated_later_by_its_text() -> None:
    adapters = adapters_of()
    text = adapters.load(FOLDER / "stack-of-fuse")
    assert adapters.active is None
    assert set(adapters.names) == {"d", "a", "b", "a,b"}
    adapters.activate(text, head=False)
    assert adapters.active == Stack("d", Fuse("a", "b"))


def test_a_setup_with_a_fault_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = copy(tmp_path, "stack-of-fuse")
    (folder / "b" / "pytorch_adapter.bin").write_bytes(b"damaged")
    adapters = adapters_of()
    with pytest.raises(FormatError):
        adapters.load(folder, set_active=True)
    assert adapters.names == ()
    other = copy(tmp_path / "other", "stack")
    document = json.loads((other / "b" / "adapter_config.json").read_text())
    (other / "b" / "adapter_config.json").write_text(json.dumps(document | {"model_type": "roberta"}))
    with pytest.raises(AdapterHubError):
        adapters.load(other)
    assert adapters.names == ()


def test_a_taken_name_is_told_before_anything_is_loaded() -> None:
    adapters = adapters_of()
    adapters.add("b", "seq_bn")
    with pytest.raises(StateError, match="'b'"):
        adapters.load(FOLDER / "stack")
    assert adapters.names == ("b",)
    adapters.load(FOLDER / "stack", overwrite_ok=True)
    assert set(adapters.names) == {"a", "b"}


def test_a_setup_has_no_name_of_its_own() -> None:
    with pytest.raises(UsageError, match="none of its own"):
        adapters_of().load(FOLDER / "stack", name="x")


def test_a_setup_is_not_one_adapter_and_not_read_from_an_archive(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="composition"):
        read(FOLDER / "stack")
    folder = copy(tmp_path, "stack")
    for name in ("a", "b", "expected.safetensors"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UnsupportedError, match="unpack"):
        adapters_of().load(packed(folder, tmp_path / "x.zip"))


def copy(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(FOLDER / name, tmp_path / "setup"))


def single(name: Any) -> dict[str, Any]:
    return {"type": "single", "children": [name]}


def nested(depth: int) -> dict[str, Any]:
    found = single("a")
    for _ in range(depth):
        found = {"type": "Stack", "children": [found]}
    return found


HOSTILE: dict[str, Any] = {
    "nothing": None,
    "a text": "a",
    "no children": {"type": "Stack"},
    "an empty stack": {"type": "Stack", "children": []},
    "an unknown kind": {"type": "Sum", "children": [single("a")]},
    "a kind that is no text": {"type": ["Stack"], "children": [single("a")]},
    "a class of Python": {"type": "AdapterCompositionBlock", "children": [single("a")]},
    "a name that is no text": {"type": "Stack", "children": [single(["a"])]},
    "a name that climbs": {"type": "Stack", "children": [single("../a")]},
    "an absolute name": {"type": "Stack", "children": [single("/etc")]},
    "a name with a zero byte": {"type": "Stack", "children": [single("a\x00")]},
    "a long name": {"type": "Stack", "children": [single("a" * 1000)]},
    "a folder that is not there": {"type": "Stack", "children": [single("nowhere")]},
    "a file for a folder": {"type": "Stack", "children": [single("expected.safetensors")]},
    "deep nesting": nested(50),
    "a thousand children": {"type": "Stack", "children": [single("a")] * 100_000},
    "what may not be nested": {"type": "Fuse", "children": [{"type": "Fuse", "children": [single("a")]}]},
    "no settings": {"type": "Split", "children": [single("a"), single("b")]},
    "an unknown setting": {"type": "Stack", "children": [single("a")], "kwargs": {"splits": [1]}},
    "settings that are none": {"type": "Split", "children": [single("a")], "kwargs": [1]},
    "negative splits": {"type": "Split", "children": [single("a"), single("b")], "kwargs": {"splits": [-1, 2]}},
    "splits beyond all": {"type": "Split", "children": [single("a")], "kwargs": {"splits": 1e400}},
    "an unknown field": {"type": "Stack", "children": [single("a")], "name": "x"},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_setup_ends_in_an_error_of_ours(what: str, tmp_path: Path) -> None:
    folder = copy(tmp_path, "stack")
    text = json.dumps({"adapter_setup": HOSTILE[what], "head_setup": None, "version": "adapters.1.3.0"})
    (folder / "adapter_setup.json").write_text(text)
    message = ends_in_ours(lambda: setup_at(folder))
    assert "setup" in message


def test_a_setup_too_deep_for_json_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    folder = copy(tmp_path, "stack")
    (folder / "adapter_setup.json").write_text('{"adapter_setup":' + '{"type":"Stack","children":[' * 50_000)
    ends_in_ours(lambda: setup_at(folder))


@pytest.mark.parametrize("head", [1, {}, [], [1], {"children": [{"children": 3}]}, "../a", ["a", "nowhere"], "missing"])
def test_a_hostile_choice_of_heads_ends_in_an_error_of_ours(head: Any, tmp_path: Path) -> None:
    folder = copy(tmp_path, "stack")
    document = json.loads((folder / "adapter_setup.json").read_text())
    (folder / "adapter_setup.json").write_text(json.dumps(document | {"head_setup": head}))
    ends_in_ours(lambda: setup_at(folder))


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a link to a folder elsewhere": lambda path: path.symlink_to(FOLDER / "stack" / "a"),
    "a link upwards": lambda path: path.symlink_to(".."),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": lambda path: os.mkfifo(path),
    "a setup in a setup": lambda path: shutil.copytree(FOLDER / "stack", path),
}


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_folder_of_an_adapter_ends_in_an_error_of_ours(what: str, tmp_path: Path) -> None:
    folder = copy(tmp_path, "stack")
    shutil.rmtree(folder / "a")
    SPECIAL[what](folder / "a")
    with pytest.raises(AdapterHubError):
        adapters_of().load(folder)
