"""A version that is taken back is never chosen, stays for who pins it, and comes back unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_session import type_command
from hub_double import Hub
from publications import a_publication
from remote_cases import a_file

from adapterhub.errors import NotFoundError
from adapterhub.registry import Index, Settings, Yank, open_registry, publisher_at, pull

# huggingface_hub 2.4.0 itself, where it uploads a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(params=["folder", "registry on the hub", "adapter on the hub", "s3", "oci"])
def place(request: pytest.FixtureRequest, hub: Hub, tmp_path: Path) -> str:
    """A place with versions 1.0.0 and 1.1.0 of me/a."""
    where = str(tmp_path / "hub") if request.param == "folder" else "hf://me/a-bert"
    if request.param == "s3":
        where = f"{request.getfixturevalue('bucket')}/registry"
    if request.param == "oci":
        where = request.getfixturevalue("oci_repository")
    for version in ("1.0.0", "1.1.0"):
        create = version == "1.0.0" and request.param not in ("adapter on the hub", "oci")
        publisher = publisher_at(where, settings=Settings.load(), create=create)
        publisher.publish(a_publication(tmp_path / "sources", "me/a", version, version.encode()))
    return where


def yank(place: str, *arguments: str) -> str:
    typed = type_command("yank", *arguments, "--registry", place)
    assert typed.status == 0, typed.err
    return typed.out


def test_a_yanked_version_is_never_chosen_and_found_by_whoever_asks_for_it(place: str) -> None:
    assert yank(place, "me/a@1.1.0", "--reason", "labels are swapped") == f"me/a@1.1.0 is yanked in {place}\n"
    assert open_registry(place).index.resolve("me/a").version == "1.0.0"
    with pytest.raises(NotFoundError, match=r"1\.1\.0 \(yanked\)"):
        open_registry(place).index.resolve("me/a@>=1.1")
    with pytest.warns(UserWarning, match=r"me/a@1\.1\.0 is yanked: labels are swapped"):
        assert pull("me/a@1.1.0", registry=place).path.read_bytes() == b"native 1.1.0"


def test_what_is_put_back_is_what_it_was(place: str) -> None:
    before = open_registry(place).index.entry("me/a")
    yank(place, "me/a@1.0.0")
    yank(place, "me/a@1.0.0", "--reason", "why")
    yank(place, "me/a@1.0.0", "--undo")
    assert open_registry(place).index.entry("me/a") == before
    assert pull("me/a@1.0.0", registry=place).path.read_bytes() == b"native 1.0.0"


def test_yanked_twice_nothing_changes(place: str, hub: Hub) -> None:
    yank(place, "me/a@1.0.0", "--reason", "why")
    commits = len(hub.storage.get("me/a-bert").commits) if place.startswith("hf:") else 0
    assert yank(place, "me/a@1.0.0", "--reason", "why") == "me/a@1.0.0 is yanked already\n"
    if commits:
        assert len(hub.storage.get("me/a-bert").commits) == commits
        assert [c.title for c in hub.storage.get("me/a-bert").commits.values()][-1] == "Yank me/a@1.0.0"


def test_a_dry_run_changes_nothing(place: str) -> None:
    before = open_registry(place).index.entry("me/a")
    assert "would be yanked" in yank(place, "me/a@1.1.0", "--dry-run")
    assert open_registry(place).index.entry("me/a") == before


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("me/a@2.0.0",), 3, "me/a has no version 2.0.0"),
        (("me/b@1.0.0",), 3, "there is no adapter 'me/b'"),
        (("me/a",), 2, "is not one version of an adapter"),
        (("me/a@^1",), 2, "is not one version of an adapter"),
        (("hf://me/a@1.0.0",), 2, "is not one version of an adapter"),
        (("me/a@1.0.0", "--undo", "--reason", "x"), 2, "--reason is for yanking"),
        (("me/a@1.0.0", "--registry", "bundled"), 2, "the registry in the package is not published to"),
    ],
)
def test_what_cannot_be_yanked_says_why(
    tmp_path: Path, clean: None, arguments: tuple[str, ...], status: int, words: str
) -> None:
    publisher = publisher_at(str(tmp_path / "hub"), settings=Settings.load(), create=True)
    publisher.publish(a_publication(tmp_path / "sources"))
    chosen = () if "--registry" in arguments else ("--registry", str(tmp_path / "hub"))
    typed = type_command("yank", *arguments, *chosen)
    assert typed.status == status
    assert words in typed.err


def test_no_repository_is_made_by_yanking(hub: Hub) -> None:
    assert type_command("yank", "me/a@1.0.0", "--registry", "hf://me/none").status == 3
    assert hub.storage.repositories == {}


def test_a_registry_of_the_settings_is_yanked_from_by_its_name(tmp_path: Path, clean: None) -> None:
    publisher_at("hub", settings=Settings.load(), create=True).publish(a_publication(tmp_path / "sources"))
    Path("adapterhub.toml").write_text('[registries]\nours = "hub"\n')
    assert type_command("yank", "ours::me/a@1.0.0").status == 0
    assert Index.load("hub/index.json").entry("me/a").versions["1.0.0"].yanked


def test_an_alias_is_yanked_as_its_entry(tmp_path: Path) -> None:
    index = Index().add("a", "1.0.0", a_publication(tmp_path / "x").offers[0].record("x"), published="2026-01-01")
    index = index.add("a", "1.0.0", index.entry("a").versions["1.0.0"].artifacts[0], published="", aliases=("b/a@x",))
    changed = Yank(name="b/a@x", version="1.0.0").added_to(index, ())
    assert changed.entry("a").versions["1.0.0"].yanked


@pytest.mark.parametrize("reason", ["labels are swapped", ""])
def test_show_tells_that_a_version_is_yanked_and_why(tmp_path: Path, clean: None, reason: str) -> None:
    index = Index().add("a", "1.0.0", a_file("hf://me/a@main/file", b"one"), published="2026-01-01")
    index.yank("a", "1.0.0", reason=reason).write(tmp_path / "index.json")
    typed = type_command("show", "a@1.0.0", "--registry", str(tmp_path))
    assert f"\nyanked      {reason or 'no reason is given'}\n" in typed.out
    assert "versions    1.0.0 (yanked)" in typed.out
