"""Compositions on the Hub, in buckets and in registries of OCI: pushed, pulled, shown, run, locked and loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from bucket_places import Shop
from cli_session import type_command
from composed_adapters import TEXTS, answers, attached
from hub_double import Hub

import adapterhub
from adapterhub import Stack
from adapterhub.arrangement import read
from adapterhub.errors import IntegrityError, NotFoundError, OfflineError, StateError, UsageError
from adapterhub.hub import card
from adapterhub.registry import open_registry, pull

pytestmark = [
    pytest.mark.usefixtures("online"),
    # huggingface_hub 2.4.0 itself, where it uploads a large file.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]
LICENCE = ("--license", "apache-2.0")


@pytest.fixture(params=["hf://me/registry", "hf://me/both", "s3", "oci"])
def away(request: pytest.FixtureRequest) -> str:
    """Somewhere on the network, where nothing is yet."""
    fixture = {"s3": "bucket", "oci": "oci_repository"}.get(request.param)
    return str(request.getfixturevalue(fixture) if fixture else request.param)


def creating(away: str) -> tuple[str, ...]:
    return () if away.endswith("both") or away.startswith("oci:") else ("--create",)


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> Callable[[str], None]:
    """Forget everything that is on this machine but the base model."""

    def forget(name: str) -> None:
        monkeypatch.setenv("ADAPTERHUB_CACHE", name)
        monkeypatch.delenv("ADAPTERHUB_REGISTRY", raising=False)
        shutil.rmtree(shelf, ignore_errors=True)

    return forget


@pytest.mark.parametrize("command", ["push", "compose"])
def test_a_composition_is_used_from_wherever_it_was_published(
    away: str,
    command: str,
    shelf: Path,
    base: Path,
    hub: Hub,
    another_machine: Callable[[str], None],
) -> None:
    on = ("--base", str(base))
    text = "stack(low, movies@1.0.0)"
    expected = type_command("run", text, *on, *TEXTS, "--json").out
    if command == "push":
        adapterhub.compose("both@1.0.0", text, base=str(base))
        words: tuple[str, ...] = ("push", "./both-1.0.0.json", "--to", away, "--as", "me/both@1.1.0")
    else:
        words = ("compose", "both@1.1.0", text, *on, "--push", away)
    typed = type_command(*words, *LICENCE, *creating(away), "--json")
    assert typed.status == 0, typed.err
    assert not list(Path().glob("both-1.1.0*"))
    again = type_command(*words, *LICENCE, *creating(away))
    assert again.status == 0, again.err

    another_machine("another")
    name = "me/both" if command == "push" else "both"
    at = ("--registry", away)
    typed = type_command("pull", f"{name}@^1", *at)
    assert typed.status == 0, typed.err
    assert "movies: already here, digest checked" in typed.err
    assert type_command("run", name, *at, *on, *TEXTS, "--json").out == expected
    assert type_command("verify", name, "--run", *at, *on).status == 0
    assert "├── low" in type_command("show", name, *at).out
    assert "stack(low, movies)" in type_command("list", *at).out

    Path("adapterhub.toml").write_text(f'registry = "{away}"\n[adapters]\nmine = "{name}@^1"\n')
    typed = type_command("lock")
    assert typed.status == 0, typed.err
    another_machine("a third")
    assert type_command("sync", "--frozen").status == 0
    for known in ("mine", name):
        assert type_command("run", known, "--frozen", "--offline", *on, *TEXTS, "--json").out == expected


@pytest.mark.parametrize("away", ["hf://me/both", "oci"], indirect=True)
def test_a_repository_of_one_composition_is_a_reference_of_its_own(
    away: str,
    shelf: Path,
    base: Path,
    hub: Hub,
    another_machine: Callable[[str], None],
) -> None:
    made = adapterhub.compose("both@1.0.0", "stack(low, movies)", base=str(base))
    wanted = answers(adapters := attached(base), adapters.load(f"./{made.paths[0]}"))
    assert type_command("push", f"./{made.paths[0]}", "--to", away, *LICENCE).status == 0
    another_machine("another")
    loaded = attached(base)
    assert answers(loaded, loaded.load(away)).equal(wanted)
    assert loaded.active is None
    assert loaded.compositions == ("both",)
    expected = type_command("run", away, "--base", str(base), *TEXTS, "--json").out
    assert type_command("show", away, "--json").json["adapters"].keys() == {"low", "movies"}
    Path("adapterhub.toml").write_text(f'[adapters]\nmine = "{away}"\n')
    typed = type_command("lock")
    assert typed.status == 0, typed.err
    another_machine("a third")
    typed = type_command("run", "mine", "--frozen", "--base", str(base), *TEXTS, "--json")
    assert typed.out == expected, typed.err


def test_a_repository_has_one_commit_a_tag_and_a_card_for_each_version(shelf: Path, base: Path, hub: Hub) -> None:
    text, where = "average(low, movies@1.0.0)", "hf://me/both"
    first = adapterhub.compose("both@1.0.0", text, base=str(base), head="low", out="first")
    adapterhub.push(first.paths[0], where, license="MIT")
    repository = hub.storage.get("me/both")
    assert len(repository.commits) == 2
    assert repository.tags == {"v1.0.0": repository.head}
    files = repository.files("main")
    assert {path.partition("-")[0] for path in files} >= {
        "README.md",
        "composition.json",
        "index.json",
        "low",
        "movies",
    }
    header, body = card.split(files["README.md"].data.decode())
    assert {key: header[key] for key in ("library_name", "base_model", "pipeline_tag", "license")} == {
        "library_name": "adapterhub",
        "base_model": "acme/tiny-bert",
        "pipeline_tag": "text-classification",
        "license": "mit",
    }
    assert {"adapterhub", "composition", "average", "base_model:adapter:acme/tiny-bert"} <= set(header["tags"])
    assert "- `movies`: `./movies-" in body
    assert 'adapters.load("hf://me/both")' in body
    assert yaml.safe_load(files["README.md"].data.decode().split("---\n")[1]) == header

    second = adapterhub.compose("both@2.0.0", "stack(low, books)", base=str(base), push=where)
    assert second.outcome is not None
    assert second.outcome.commit == repository.head
    assert [path.partition("-")[0] for path in second.outcome.removed] == ["movies"]
    assert repository.tags.keys() == {"v1.0.0", "v2.0.0"}
    assert read(pull(where).path).composition == Stack("low", "books")
    assert set(pull(f"{where}@1.0.0").parts) == set(pull("both@1.0.0", registry=where).parts) == {"low", "movies"}
    with pytest.raises(StateError, match=r"has both@2\.0\.0 already, with other bytes"):
        adapterhub.compose("both@2.0.0", "stack(books, low)", base=str(base), push=where)
    with pytest.raises(StateError, match="is the repository of both"):
        adapterhub.compose("other@1.0.0", "stack(books)", base=str(base), push=where)


def test_only_the_files_of_a_composition_go_when_another_version_comes(shelf: Path, base: Path, hub: Hub) -> None:
    where = "hf://me/low"
    hub.storage.put("me/low", {"composition.json": b'{"notes": []}', "README.md": b"---\nlicense: mit\n---\n"})
    adapterhub.push(shelf / "low-1.0.0.safetensors", where)
    assert hub.storage.get("me/low").files("main")["composition.json"].data == b'{"notes": []}'
    typed = type_command("push", "bundled::moods-bert", "--to", "hf://me/moods", "--as", "moods@1.0.0")
    assert typed.status == 0, typed.err
    adapterhub.push("bundled::tweets-bert", "hf://me/moods", name="moods@2.0.0")
    assert "composition.json" not in hub.storage.get("me/moods").files("main")
    assert pull("hf://me/moods").path.name == "adapterhub.safetensors"
    assert len(pull("moods@1.0.0", registry="hf://me/moods").parts) == 3


def test_adapters_of_the_package_stay_references_and_one_file_is_enough(hub: Hub, base: Path) -> None:
    typed = type_command("push", "moods-bert", "--to", "hf://me/moods", "--as", "my-moods@1.0.0", "--json")
    assert typed.status == 0, typed.err
    assert set(typed.json["files"]) == {"composition.json", "index.json", "README.md"}
    found = read(pull("hf://me/moods").path)
    assert found.name == "my-moods"
    assert found.composition == read(pull("moods-bert").path).composition
    assert {pin.reference for pin in found.adapters.values()} == {
        pin.reference for pin in read(pull("moods-bert").path).adapters.values()
    }
    assert pull("hf://me/moods", offline=True).parts.keys() == found.adapters.keys()
    with pytest.raises(OfflineError):
        pull("hf://me/moods@v9", offline=True)


def test_a_card_needs_a_licence_and_nothing_is_written_without(shelf: Path, base: Path, hub: Hub) -> None:
    with pytest.raises(UsageError, match="'both' has no licence, and hf://me/both gets a model card") as caught:
        adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), push="hf://me/both")
    assert caught.value.hint == "give --license apache-2.0"
    assert hub.storage.repositories == {}
    typed = type_command(
        *("compose", "both@1.0.0", "stack(low)", "--base", str(base), "--push", "hf://me/both", *LICENCE, "--dry-run")
    )
    assert (typed.status, hub.storage.repositories) == (0, {}), typed.err
    hub.storage.put("me/both", {"README.md": b"---\nlicense: cc-by-4.0\n---\nMy words.\n"})
    adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), push="hf://me/both")
    assert read(pull("hf://me/both").path).license == "cc-by-4.0"
    assert hub.storage.get("me/both").files("main")["README.md"].data.endswith(b"---\nMy words.\n")


def test_a_registry_is_made_elsewhere_only_if_asked_for(shelf: Path, base: Path, shop: Shop) -> None:
    bucket = shop.url
    with pytest.raises(NotFoundError, match="--create makes one"):
        adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), push=bucket)
    adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), push=bucket, create=True)
    assert set(pull("both", registry=bucket).parts) == {"low"}


def test_adapters_that_the_place_offers_are_not_sent_again(shelf: Path, base: Path, bucket: str) -> None:
    adapterhub.push(shelf / "low-1.0.0.safetensors", bucket, license="MIT", create=True)
    made = adapterhub.compose("both@1.0.0", "stack(low, books)", base=str(base), push=bucket, registry=str(shelf))
    assert made.arrangement.adapters["low"].reference.startswith("./low-")
    Path("draft.json").write_text(
        f'{{"composition": "stack(low, b)", "adapters": {{"b": "{shelf}/books-1.0.0.safetensors"}}}}'
    )
    made = adapterhub.compose("both@2.0.0", "draft.json", base=str(base), push=bucket, registry=bucket)
    pins = made.arrangement.adapters
    assert (pins["low"].reference, pins["b"].reference.partition("-")[0]) == ("low@1.0.0", "./b")
    assert pull("both", registry=bucket).parts["low"].artifact == pull("low", registry=bucket).artifact


def test_a_repository_that_lost_an_adapter_is_told(
    shelf: Path, base: Path, hub: Hub, another_machine: Callable[[str], None]
) -> None:
    made = adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), out="both")
    adapterhub.push(made.paths[0], "hf://me/both", license="MIT")
    files = {path: file.data for path, file in hub.storage.get("me/both").files("main").items()}
    hub.storage.put("me/lost", {"composition.json": files["composition.json"]})
    with pytest.raises(NotFoundError, match=r"hf://me/lost holds a composition without low-\w+\.safetensors"):
        pull("hf://me/lost")
    (beside,) = (path for path in files if path.startswith("low-"))
    hub.storage.put("me/wrong", {"composition.json": files["composition.json"], beside: b"other"})
    with pytest.raises(IntegrityError, match="the composition 'both': adapter 'low'"):
        pull("hf://me/wrong")
    hub.storage.put("me/music", {"composition.json": b'{"notes": []}', "adapterhub.bin": b"", "a.safetensors": b"x"})
    assert pull("hf://me/music").path.read_bytes() == b"x"


def test_a_registry_of_oci_holds_its_files_as_layers(shelf: Path, base: Path, oci_repository: str) -> None:
    made = adapterhub.compose("both@1.0.0", "stack(low)", base=str(base), push=oci_repository)
    assert made.outcome is not None
    assert {path.partition("-")[0] for path in made.outcome.files} == {
        "composition/composition.json",
        "composition/low",
    }
    artifact = open_registry(oci_repository).index.entry("both").versions["1.0.0"].artifacts[0]
    assert (artifact.format, artifact.method) == ("composition", "stack(low)")
