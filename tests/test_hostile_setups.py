"""Setup folders from strangers end in an error of ours: fast, in little memory, and nothing outside is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden import SETUPS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_input import confined, ends_in_ours
from transformers import BertModel

from adapterhub.converters import setup_folder
from adapterhub.errors import AdapterHubError
from adapterhub.loader import attach

ONE = {"type": "single", "children": ["a"]}


def copied(tmp_path: Path, case: str = "stack") -> Path:
    return Path(shutil.copytree(SETUPS.case(case).folder / "setup", tmp_path / "setup"))


def changed(folder: Path, document: Any) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / setup_folder.DOCUMENT).write_text(text, "utf-8")
    return folder


def loads(folder: Path) -> Callable[[], object]:
    model = BertModel.from_pretrained(SETUPS.folder() / "base").eval()
    return lambda: attach(model).load(folder)


def setup(node: Any, head: Any = None) -> dict[str, Any]:
    return {"adapter_setup": node, "head_setup": head, "version": "adapters.1.3.0"}


def stack(*names: Any) -> dict[str, Any]:
    return {"type": "Stack", "children": [{"type": "single", "children": [name]} for name in names]}


def nested(depth: int, kind: str = "Parallel") -> str:
    """Return a document with so many nodes inside each other."""
    inner = json.dumps(ONE)
    node = f'{{"type": "{kind}", "children": [' * depth + inner + "]}" * depth
    return f'{{"adapter_setup": {node}, "head_setup": null}}'


NAMES = {
    "nothing": "",
    "the folder itself": ".",
    "the folder above": "..",
    "a way out": "a/../../other",
    "an absolute path": "/etc",
    "a zero byte": "a\0b",
    "a letter that is none": "\ud800",
    "more than a name holds": "a" * 5000,
    "more than a path holds": "/".join(["a"] * 5000),
    "a way back in": "../setup/a",
    "a line of its own": "a\nb",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
@pytest.mark.parametrize("place", ["member", "head", "heads", "fusion"])
def test_a_name_that_is_no_folder_in_it_is_refused(place: str, name: str, tmp_path: Path) -> None:
    node = {"type": "Fuse", "children": stack("a", name)["children"]} if place == "fusion" else stack("a")
    document = {"member": setup(stack(name)), "head": setup(node, name), "heads": setup(node, [name])}
    ends_in_ours(loads(changed(copied(tmp_path), document.get(place, setup(node)))))


DOCUMENTS: dict[str, Any] = {
    "no object": [],
    "null": None,
    "no JSON": "{",
    "two of one name": '{"adapter_setup": {}, "adapter_setup": {}}',
    "an endless number": '{"adapter_setup": {"type": "Average", "children": [], "kwargs": {"weights": [1e999]}}}',
    "a node that is a list": setup([ONE]),
    "a node that is a name": setup("a"),
    "a node without a type": setup({"children": ["a"]}),
    "a type that is a list": setup({"type": ["Stack"], "children": [ONE]}),
    "children that are an object": setup({"type": "Stack", "children": {"a": ONE}}),
    "children that are a text": setup({"type": "Stack", "children": "a"}),
    "a child that is null": setup({"type": "Stack", "children": [None]}),
    "a child that is a name": setup({"type": "Stack", "children": ["a"]}),
    "a single of two": setup({"type": "single", "children": ["a", "c"]}),
    "a single of a node": setup({"type": "single", "children": [ONE]}),
    "a single that is empty": setup({"type": "single", "children": []}),
    "weights of another count": setup({**stack("a", "c"), "type": "Average", "kwargs": {"weights": [1.0]}}),
    "weights that are words": setup({**stack("a", "c"), "type": "Average", "kwargs": {"weights": ["a", "b"]}}),
    "weights that are a number": setup({**stack("a", "c"), "type": "Average", "kwargs": {"weights": 1}}),
    "weights that are truths": setup({**stack("a", "c"), "type": "Average", "kwargs": {"weights": [True, False]}}),
    "weights beyond floats": setup({**stack("a", "c"), "type": "Average", "kwargs": {"weights": [10**400, 1]}}),
    "splits below zero": setup({**stack("a", "c"), "type": "Split", "kwargs": {"splits": [-1, 2]}}),
    "splits that are fractions": setup({**stack("a", "c"), "type": "Split", "kwargs": {"splits": [0.5, 2]}}),
    "splits that are null": setup({**stack("a", "c"), "type": "Split", "kwargs": {"splits": None}}),
    "batch sizes that are nested": setup(
        {**stack("a", "c"), "type": "BatchSplit", "kwargs": {"batch_sizes": [[1], 2]}}
    ),
    "a fusion with a name from outside": setup({**stack("a", "c"), "type": "Fuse", "kwargs": {"name": "../x"}}),
    "a fusion of one": setup({**stack("a"), "type": "Fuse"}),
    "one adapter twice in a fusion": setup({**stack("a", "a"), "type": "Fuse"}),
    "heads that are a number": setup(stack("a"), 3),
    "heads that are numbers": setup(stack("a"), [1, 2]),
    "heads in a list of lists": setup(stack("a"), [["a"]]),
    "heads that are an object": setup(stack("a"), {}),
    "heads of another kind": setup(stack("a"), {"type": "Chain", "children": [ONE]}),
    "very many children": setup(stack(*["a"] * 100_000)),
    "very many names": setup({"type": "Parallel", "children": stack(*map(str, range(50_000)))["children"]}),
    "a hundred levels": nested(100),
    "a hundred thousand levels": nested(100_000),
    "levels of stacks": nested(50, "Stack"),
    "more than it may hold": json.dumps(setup(stack("a"))) + " " * setup_folder.LIMIT,
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_a_document_that_means_nothing_is_refused(document: Any, tmp_path: Path) -> None:
    ends_in_ours(loads(changed(copied(tmp_path), document)))


def outside(folder: Path, name: str) -> Path:
    """Move something out of the folder, and return where it is."""
    return Path(shutil.move(folder / name, folder.parent / "outside"))


def linked_member(folder: Path) -> None:
    (folder / "a").symlink_to(outside(folder, "a"))


def linked_document(folder: Path) -> None:
    (folder / setup_folder.DOCUMENT).symlink_to(outside(folder, setup_folder.DOCUMENT))


def linked_config(folder: Path) -> None:
    (folder / "a" / "adapter_config.json").symlink_to(outside(folder / "a", "adapter_config.json"))


def linked_fusion(folder: Path) -> None:
    (folder / "a,c").rename(folder / "other")
    target = outside(folder / "other", "adapter_fusion_config.json")
    (folder / "other" / "adapter_fusion_config.json").symlink_to(target)


def circle(folder: Path) -> None:
    shutil.rmtree(folder / "a")
    (folder / "a").symlink_to("a")


def itself(folder: Path) -> None:
    shutil.rmtree(folder / "a")
    (folder / "a").symlink_to(".")


def file_for_folder(folder: Path) -> None:
    shutil.rmtree(folder / "a")
    (folder / "a").write_text("{}")


def folder_for_file(folder: Path) -> None:
    (folder / setup_folder.DOCUMENT).unlink()
    (folder / setup_folder.DOCUMENT).mkdir()


def pipe_for_file(folder: Path) -> None:
    (folder / setup_folder.DOCUMENT).unlink()
    os.mkfifo(folder / setup_folder.DOCUMENT)


def emptied(folder: Path) -> None:
    for file in (folder / "a").iterdir():
        file.unlink()


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "a member that leads out": linked_member,
    "a document that leads out": linked_document,
    "a configuration that leads out": linked_config,
    "a fusion layer that leads out": linked_fusion,
    "a member that leads to itself": circle,
    "a member that is the setup": itself,
    "a member that is a file": file_for_folder,
    "a member that is empty": emptied,
    "a member that is missing": without("a"),
    "a fusion layer that is missing": without("a,c"),
    "a head that is missing": without("top"),
    "a document that is a folder": folder_for_file,
    "a document that never ends": pipe_for_file,
}


@pytest.mark.parametrize("change", FOLDERS.values(), ids=list(FOLDERS))
def test_a_folder_that_is_not_what_its_document_says_is_refused(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = copied(tmp_path, "fuse")
    change(folder)
    before = sorted(tmp_path.rglob("*"))
    ends_in_ours(loads(folder))
    assert sorted(tmp_path.rglob("*")) == before


def test_every_adapter_that_is_missing_is_named(tmp_path: Path) -> None:
    message = ends_in_ours(loads(changed(copied(tmp_path), setup(stack("one", "a", "two"), "three"))))
    assert all(f"'{name}'" in message for name in ("one", "two", "three"))


def test_what_is_not_hostile_is_loaded_in_the_same_bounds(tmp_path: Path) -> None:
    assert confined(loads(copied(tmp_path, "fuse")))["kind"] == "ok"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "Lang-en", "Stack", "single", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "children", "kwargs", "weights", "splits", "name"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=values, head=values)
def test_any_document_is_read_or_refused(node: Any, head: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.exists():
        shutil.copytree(SETUPS.case("stack").folder / "setup", folder)
    changed(folder, setup(node, head))
    try:
        found = setup_folder.read(folder)
    except AdapterHubError:
        return
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in found.folders.values())
