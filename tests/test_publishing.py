"""Publishing is one step: whoever dies, races or repeats, a registry stays what it was or becomes what it should be."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_places import Shop
from hub_double import Hub
from local_server import Answer, Request, once
from publications import a_publication, is_right, publish

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    NotFoundError,
    OfflineError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import (
    Index,
    Settings,
    Store,
    conditions,
    contention,
    open_registry,
    publisher_at,
    pull,
    schemes,
    shards,
)

pytestmark = [
    pytest.mark.usefixtures("online"),
    # huggingface_hub 2.4.0 itself, where it uploads a large file.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@pytest.fixture(params=["folder", "hub", *schemes.BUCKETS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty registry: a folder, a repository, or a bucket."""
    if request.param in schemes.BUCKETS:
        shop: Shop = request.getfixturevalue(request.param)
        shop.put("index.json", Index().dumps())
        return shop.url
    if request.param == "folder":
        Index().write(made(tmp_path / "registry") / "index.json")
        return str(tmp_path / "registry")
    request.getfixturevalue("hub").storage.put("me/registry", {"index.json": Index().dumps()})
    return "hf://me/registry"


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# One after the other.


def test_what_was_published_can_be_pulled(place: str, tmp_path: Path) -> None:
    assert publish(place, tmp_path)
    assert is_right(place, "me/a", "1.0.0")
    assert publish(place, tmp_path, version="1.1.0", data=b"more")
    assert is_right(place, "me/a", "1.0.0")
    assert is_right(place, "me/a", "1.1.0", b"more")
    assert open_registry(place).index.entry("me/a").license == "MIT"


def test_the_same_again_is_no_change_and_other_bytes_are_refused(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    before = list(open_registry(place).index.names())
    assert not publish(place, tmp_path)
    with pytest.raises(StateError, match=r"me/a@1\.0\.0 has another native artifact .*published versions never change"):
        publish(place, tmp_path, data=b"other")
    assert is_right(place, "me/a", "1.0.0")
    assert list(open_registry(place).index.names()) == before


def test_a_name_that_another_entry_has_as_its_alias_is_refused(tmp_path: Path) -> None:
    index = Index().add(
        "sst2-bert",
        "1.0.0",
        a_publication(tmp_path / "x").offers[0].record("x"),
        published="2026-01-01",
        aliases=("me/a",),
    )
    index.write(made(tmp_path / "registry") / "index.json")
    with pytest.raises(StateError, match="'me/a' is another name of sst2-bert"):
        publish(str(tmp_path / "registry"), tmp_path)


def test_a_dry_run_writes_nothing_and_tells_all(place: str, tmp_path: Path, hub: Hub) -> None:
    publisher = publisher_at(place, settings=Settings.load())
    before = contents(tmp_path / "registry"), len(hub.storage.repositories)
    outcome = publisher.publish(a_publication(tmp_path / "sources"), dry_run=True)
    assert outcome.new
    assert sum(path.endswith("adapter_model.safetensors") for path in outcome.files) == 1
    assert (contents(tmp_path / "registry"), len(hub.storage.repositories)) == before
    assert not list(open_registry(place).index.names())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# At the same time.


@pytest.mark.parametrize("names", [["me/a"] * 16, [f"a-{number}" for number in range(16)]], ids=["versions", "names"])
def test_of_sixteen_publishers_at_once_none_is_lost(place: str, tmp_path: Path, names: list[str]) -> None:
    versions = [f"1.0.{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        tasks = [
            pool.submit(publish, place, tmp_path, name, version, version.encode())
            for name, version in zip(names, versions, strict=True)
        ]
        while not all(task.done() for task in tasks):
            open_registry(place, settings=Settings.load(cache=tmp_path / "reader"))
            time.sleep(0.01)
        assert all(task.result() for task in tasks)
    index = open_registry(place).index
    assert sum(len(index.entry(name).versions) for name in index.names()) == 16
    assert all(is_right(place, name, version, version.encode()) for name, version in zip(names, versions, strict=True))


def test_of_eight_publishers_of_one_version_one_wins_and_the_others_are_told(place: str, tmp_path: Path) -> None:
    def one(number: int) -> str:
        try:
            publish(place, tmp_path / str(number), data=b"%d" % number)
        except StateError as error:
            return error.hint
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        hints = sorted(pool.map(one, range(8)))
    winner, *others = hints
    assert len(set(others)) == 1
    assert others[0].startswith("published versions never change")
    assert is_right(place, "me/a", "1.0.0", winner.encode())


# Killed.

PUBLISH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from publications import a_publication
from adapterhub.registry import Settings, publisher_at
from adapterhub.registry import folder_publisher, hf_publisher
if sys.argv[1].startswith("hf:"):
    from huggingface_hub import constants
    constants.HF_HUB_DISABLE_XET = True
publisher = publisher_at(sys.argv[1], settings=Settings.load())
publication = a_publication(Path(sys.argv[2]), version=sys.argv[4], data=b"x" * 200_000)
print("ready", flush=True)
publisher.publish(publication)
"""


@pytest.mark.parametrize(
    ("place", "times"),
    [
        *(pytest.param(kind, 50, marks=pytest.mark.slow) for kind in ("folder", "hub", "s3")),
        *((kind, 8) for kind in ("folder", "hub", "s3")),
        *((kind, 4) for kind in ("az", "gs")),
    ],
    indirect=["place"],
)
def test_a_publisher_that_is_killed_leaves_a_registry_that_works(
    request: pytest.FixtureRequest, place: str, tmp_path: Path, times: int
) -> None:
    chance, scheme = random.Random(times), place.partition("://")[0]
    longest = {"hf": 0.4, **dict.fromkeys(schemes.BUCKETS, 0.2)}.get(scheme, 0.03)
    for number in range(times):
        version = f"1.0.{number}"
        command = [sys.executable, "-c", PUBLISH, place, str(tmp_path / "s"), str(Path(__file__).parent), version]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        open_registry(place)
        publish(place, tmp_path, version=version, data=b"x" * 200_000)
        assert is_right(place, "me/a", version, b"x" * 200_000)
    entry = open_registry(place).index.entry("me/a")
    assert len(entry.versions) == times
    if not place.startswith("hf:"):
        named = {path for r in entry.versions.values() for a in r.artifacts for path in files_of(a.to_json())}
        there = request.getfixturevalue(scheme).paths() if "://" in place else set(contents(Path(place)))
        assert {path for path in there if not path.startswith(conditions.TRIAL)} - {
            "index.json",
            ".index.json.lock",
        } == named


@pytest.mark.parametrize("layout", [Index(), shards.MARKER])
def test_what_writers_left_that_died_goes_with_the_next_push(tmp_path: Path, layout: Index) -> None:
    home = tmp_path / "registry"
    group = home / Path(shards.path_of("me/a")).parent
    group.mkdir(parents=True)
    layout.write(home / "index.json")
    left = [home / ".index.json.abc.tmp", home / ".index.signed.json.abc.tmp"]
    left += [group / ".me~a.json.abc.tmp"] if layout.sharded else []
    for path in left:
        path.write_bytes(b"{")
    publish(str(home), tmp_path)
    assert [path for path in left if path.exists()] == []


def files_of(artifact: dict[str, object]) -> list[str]:
    """Return the paths of an artifact's files."""
    listed = artifact.get("files")
    assert isinstance(listed, list | None)
    return [str(artifact["url"])] if listed is None else [f"{artifact['url']}/{file['path']}" for file in listed]


def test_what_cannot_be_written_leaves_the_registry_as_it_was(as_nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(as_nobody)
    registry = made(as_nobody / "registry")
    Index().write(registry / "index.json")
    publication = a_publication(as_nobody / "sources")
    registry.chmod(0o555)
    with pytest.raises(AdapterHubError, match="cannot write"):
        publisher_at(str(registry), settings=Settings(cache=as_nobody)).publish(publication)
    registry.chmod(0o777)
    assert list(registry.iterdir()) == [registry / "index.json"]


# Places.


def test_a_registry_is_made_only_if_asked_for(hub: Hub, tmp_path: Path) -> None:
    place = str(tmp_path / "new")
    with pytest.raises(NotFoundError, match=r"there is no registry at .*; --create makes one"):
        publish(place, tmp_path)
    assert not (tmp_path / "new").exists()
    for where in (place, "hf://me/new"):
        publisher = publisher_at(where, settings=Settings.load(), create=True, private=True)
        publisher.publish(a_publication(tmp_path / "sources"))
        assert is_right(where, "me/a", "1.0.0")
    assert hub.storage.get("me/new").private
    assert not hub.storage.get("me/new").tags


def test_a_registry_may_be_called_by_its_name_in_the_settings(tmp_path: Path) -> None:
    Index().write(made(tmp_path / "registry") / "index.json")
    (tmp_path / "adapterhub.toml").write_text('[registries]\nours = "registry"\n')
    assert publish("ours", tmp_path)
    assert is_right(str(tmp_path / "registry"), "me/a", "1.0.0")


def test_places_that_cannot_be_published_to_say_so(hub: Hub, tmp_path: Path) -> None:
    for place, error in (
        ("https://host/hub", UnsupportedError),
        ("ftp://host/hub", UnsupportedError),
        ("bundled", UsageError),
        ("hf://me/a@v1.0.0", UsageError),
    ):
        with pytest.raises(error):
            publish(place, tmp_path)
    with pytest.raises(OfflineError) as caught:
        publisher_at("hf://me/a", settings=Settings.load(offline=True))
    assert caught.value.exit_code == 7
    assert hub.requests == []


def test_a_user_without_rights_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(AuthenticationError) as caught:
        publish("hf://me/a", tmp_path)
    assert caught.value.exit_code == 4
    assert "wrong" not in str(caught.value)


# The repository of one adapter.


def test_a_repository_of_one_adapter_has_its_newest_version_at_the_root(hub: Hub, tmp_path: Path) -> None:
    place = "hf://me/a-bert"
    assert publish(place, tmp_path)
    repository = hub.storage.get("me/a-bert")
    assert set(repository.files("main")) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapterhub.safetensors",
        "index.json",
    }
    first = repository.head
    assert publish(place, tmp_path, version="1.1.0", data=b"two")
    assert [commit.title for commit in repository.commits.values()] == [
        "initial commit",
        "Publish me/a@1.0.0",
        "Publish me/a@1.1.0",
    ]
    assert repository.tags == {"v1.0.0": first, "v1.1.0": repository.head}
    assert pull(place).path.read_bytes() == b"native two"
    assert pull(f"{place}@1.0.0").path.read_bytes() == b"native bytes"
    assert is_right(place, "me/a", "1.0.0")
    assert is_right(place, "me/a", "1.1.0", b"two")
    assert pull("me/a@~1.0", registry=place).path.read_bytes() == b"native bytes"


def test_files_of_the_former_version_are_not_mixed_with_those_of_the_next(hub: Hub, tmp_path: Path) -> None:
    foreign = {"adapter_model.bin": b"old", "adapters/pytorch_adapter.bin": b"old", "notes.txt": b"mine"}
    hub.storage.put("me/a-bert", foreign)
    outcome = publisher_at("hf://me/a-bert", settings=Settings.load()).publish(a_publication(tmp_path / "s"))
    assert outcome.removed == ("adapter_model.bin", "adapters/pytorch_adapter.bin")
    assert hub.storage.get("me/a-bert").files("main")["notes.txt"].data == b"mine"
    assert "adapter_model.bin" not in hub.storage.get("me/a-bert").files("main")


def test_the_model_card_that_is_there_is_given_to_be_merged(hub: Hub, tmp_path: Path) -> None:
    hub.storage.put("me/a-bert", {"README.md": b"# mine\n"})
    publish("hf://me/a-bert", tmp_path)
    assert hub.storage.get("me/a-bert").files("main")["README.md"].data == b"# mine\n"


def test_a_push_that_died_before_its_tag_is_completed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.faults.append(once(Answer(status=500), "/tag/" + "x", times=0))
    hub.faults.append(lambda request: Answer(status=400) if "/tag/" in request.path else None)
    with pytest.raises(AdapterHubError):
        publish("hf://me/a-bert", tmp_path)
    assert is_right("hf://me/a-bert", "me/a", "1.0.0")
    hub.faults.clear()
    head = hub.storage.get("me/a-bert").head
    assert not publish("hf://me/a-bert", tmp_path)
    assert hub.storage.get("me/a-bert").tags == {"v1.0.0": head}
    assert hub.storage.get("me/a-bert").head == head


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub, tmp_path: Path) -> None:
    lost: list[Answer] = []

    def fault(request: Request) -> Answer | None:
        if "/commit/" not in request.path or lost:
            return None
        lost.append(hub.proper(request))
        return Answer(b"lost", cut=0)

    hub.faults.append(fault)
    publish("hf://me/a-bert", tmp_path)
    assert lost
    assert len(hub.storage.get("me/a-bert").commits) == 2
    assert is_right("hf://me/a-bert", "me/a", "1.0.0")


def test_a_repository_of_another_adapter_or_with_a_foreign_tag_is_not_published_to(hub: Hub, tmp_path: Path) -> None:
    publish("hf://me/a-bert", tmp_path)
    with pytest.raises(StateError, match="is the repository of me/a; publish to another"):
        publish("hf://me/a-bert", tmp_path, name="me/b")
    with pytest.raises(StateError, match="is the repository of one adapter"):
        publisher_at("hf://me/a-bert", settings=Settings.load(), create=True)
    hub.storage.tag("me/a-bert", "v2.0.0", "main")
    with pytest.raises(StateError, match=r"has a tag v2\.0\.0 already"):
        publish("hf://me/a-bert", tmp_path, version="2.0.0", data=b"2")
    with pytest.raises(StateError, match="with other bytes or formats"):
        publish("hf://me/a-bert", tmp_path, data=b"other")
    assert is_right("hf://me/a-bert", "me/a", "1.0.0")


def test_who_never_gets_a_turn_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "PATIENCE_SECONDS", 0.3)
    hub.faults.append(lambda request: Answer(status=412) if "/commit/" in request.path else None)
    with pytest.raises(StateError, match="others keep publishing to hf://me/a-bert"):
        publish("hf://me/a-bert", tmp_path)
    hub.faults.clear()
    assert publish("hf://me/a-bert", tmp_path)


def test_an_index_in_a_repository_is_valid_at_every_commit(hub: Hub, tmp_path: Path) -> None:
    for number in range(3):
        publish("hf://me/a-bert", tmp_path, version=f"1.{number}.0", data=b"%d" % number)
    for commit in list(hub.storage.get("me/a-bert").commits)[1:]:
        data = hub.storage.get("me/a-bert").files(commit)["index.json"].data
        Index.loads(data).check()
        versions = json.loads(data)["adapters"]["me/a"]["versions"]
        opened = open_registry(f"hf://me/a-bert@{commit}")
        for version in versions:
            path = pull(f"me/a@{version}", registry=opened, store=Store(tmp_path / "fresh")).path
            assert path.read_bytes() == b"native " + version.split(".")[1].encode()
