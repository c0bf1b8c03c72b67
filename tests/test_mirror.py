"""A mirror has what its registry has, whoever was stopped, failed or published meanwhile."""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from cli_session import type_command
from local_server import Answer, Request, StaticHost, running
from publications import a_publication
from remote_cases import a_file, a_folder, sha

from adapterhub.errors import StateError
from adapterhub.registry import Index, Settings, Store, atomic, open_registry, publisher_at, pull, sharding
from adapterhub.registry.local_runner import Threads
from adapterhub.registry.mirroring import Copy, Mirror

pytestmark = pytest.mark.usefixtures("online")

COUNT = 30


def contents(number: int) -> dict[str, bytes]:
    return {"adapter_config.json": b"{%d}" % number, "sub/adapter_model.safetensors": b"%05d" % number * 4_000}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with files and folders, aliases, a yanked version and a URL that leads out of it."""
    home = tmp_path / "a"
    index = Index()
    for number in range(COUNT):
        for path, data in contents(number).items():
            (home / f"n-{number}" / path).parent.mkdir(parents=True, exist_ok=True)
            (home / f"n-{number}" / path).write_bytes(data)
        name = f"me/n{number}"
        index = index.add(name, "1.0.0", a_folder(f"n-{number}", contents(number)), published="2026-01-01")
        single = contents(number)["sub/adapter_model.safetensors"]
        url = f"n-{number}/sub/adapter_model.safetensors"
        index = index.add(name, "1.1.0", a_file(url, single), published="2026-01-02", aliases=(f"Alias-{number}",))
    index = index.yank("me/n1", "1.1.0", reason="bad")
    atomic.write(home / "index.json", index.dumps())
    return home


def mirror(*arguments: str | Path) -> Any:
    typed = type_command("index", "mirror", *map(str, arguments), "--json")
    assert typed.status == 0, typed.out + typed.err
    return typed.json


def said(place: Path | str) -> dict[str, object]:
    """Return all that an index says but for the places of the files."""
    index = open_registry(place).index

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "url"}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(index.entry(name).to_json()) for name in index.names()}


def is_right(place: Path) -> bool:
    """Return whether an index is valid, and all files that it names are there and are what it says."""
    opened = open_registry(place)
    entries = {name: opened.index.entry(name) for name in opened.index.names()}
    artifacts = [a for entry in entries.values() for release in entry.versions.values() for a in release.artifacts]
    with tempfile.TemporaryDirectory() as folder:
        for artifact in artifacts:
            opened.fetch(artifact, artifact.url, store=Store(folder), offline=True)
    return not opened.index.sharded or not sharding.faults(place, sharding.whole(place))


# What it is.


@pytest.mark.parametrize("layout", ["one file", "shards", "from shards"])
def test_a_mirror_says_what_the_registry_says_and_has_its_files(registry: Path, tmp_path: Path, layout: str) -> None:
    before = said(registry)
    if layout == "from shards":
        sharding.shard(registry)
    if layout == "shards":
        sharding.shard(tmp_path / "b")
    found = mirror(registry, tmp_path / "b")
    shutil.rmtree(registry)
    assert found["adapters"] == len(found["copied"]) == COUNT
    assert said(tmp_path / "b") == before
    assert is_right(tmp_path / "b")
    assert Index.load(tmp_path / "b" / "index.json").sharded == (layout != "one file")
    assert sha(pull("alias-7@1.1.0", registry=tmp_path / "b").path.read_bytes()) == sha(
        contents(7)["sub/adapter_model.safetensors"]
    )


def test_a_mirror_of_a_mirror_has_the_files_too(registry: Path, tmp_path: Path) -> None:
    mirror(registry, tmp_path / "b")
    with running(StaticHost(served(tmp_path / "b"))) as host:
        assert mirror(host.url, tmp_path / "c")["size"] == mirror(registry, tmp_path / "d", "--dry-run")["size"]
    assert is_right(tmp_path / "c")
    assert files(tmp_path / "c") == files(tmp_path / "b")


def files(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in served(folder).items() if not path.rpartition("/")[2].startswith(".")}


def test_mirrored_again_only_what_is_new_is_copied(registry: Path, tmp_path: Path) -> None:
    mirror(registry, tmp_path / "b")
    assert mirror(registry, tmp_path / "b")["copied"] == []
    publisher_at(str(registry), settings=Settings.load()).publish(a_publication(tmp_path / "s", "me/n3", "2.0.0"))
    assert type_command("yank", "me/n4@1.1.0", "--registry", str(registry)).status == 0
    found = mirror(registry, tmp_path / "b")
    assert [one["name"] for one in found["copied"]] == ["me/n3"]
    assert said(tmp_path / "b") == said(registry)


def test_a_dry_run_tells_what_would_be_copied_and_writes_nothing(registry: Path, tmp_path: Path) -> None:
    planned = mirror(registry, tmp_path / "b", "--dry-run")
    assert not (tmp_path / "b").exists()
    done = mirror(registry, tmp_path / "b")
    assert {key: planned[key] for key in ("adapters", "copied", "size")} == {
        key: done[key] for key in ("adapters", "copied", "size")
    }


def test_what_the_mirror_has_of_its_own_stays(registry: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "b")
    publisher_at(place, settings=Settings.load(), create=True).publish(a_publication(tmp_path / "s", "me/n3", "9.0.0"))
    publisher_at(place, settings=Settings.load()).publish(a_publication(tmp_path / "s", "own"))
    mirror(registry, place)
    assert set(said(place)) == {*said(registry), "own"}
    assert list(open_registry(place).index.entry("me/n3").versions) == ["1.0.0", "1.1.0", "9.0.0"]


def test_what_is_published_to_the_mirror_meanwhile_is_not_lost(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "b"
    publisher_at(str(place), settings=Settings.load(), create=True).publish(a_publication(tmp_path / "s", "own"))
    original = Copy._bring
    done: list[bool] = []

    def publishing(*arguments: object) -> int:
        if not done:
            done.append(True)
            publisher = publisher_at(str(place), settings=Settings.load())
            publisher.publish(a_publication(tmp_path / "s", "me/n3", "9.0.0"))
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Copy, "_bring", publishing)
    mirror(registry, place, "--jobs", "1")
    assert "9.0.0" in open_registry(place).index.entry("me/n3").versions
    assert set(said(place)) == {*said(registry), "own"}


def test_urls_that_lead_elsewhere_are_copied_or_kept_as_asked(tmp_path: Path) -> None:
    with running(StaticHost({"x.bin": b"there"})) as host:
        place = tmp_path / "a"
        place.mkdir()
        Index().add("x", "1.0.0", a_file(f"{host.url}/x.bin", b"there"), published="2026-01-01").write(
            place / "index.json"
        )
        mirror(place, tmp_path / "kept", "--keep-urls")
        assert host.requests == []
        assert open_registry(tmp_path / "kept").index.resolve("x").artifact.url == f"{host.url}/x.bin"
        mirror(place, tmp_path / "copied")
        assert pull("x", registry=tmp_path / "copied", offline=True).path.read_bytes() == b"there"


def test_a_further_source_of_the_same_bytes_is_asked_where_the_first_has_none(tmp_path: Path) -> None:
    with running(StaticHost({"x.bin": b"there"})) as host:
        sources = ("hf://me/other@main", f"{host.url}/gone.bin", f"{host.url}/x.bin")
        record = dataclasses.replace(a_file(f"{host.url}/lost.bin", b"there"), sources=sources)
        (tmp_path / "a").mkdir()
        Index().add("x", "1.0.0", record, published="2026-01-01").write(tmp_path / "a" / "index.json")
        mirror(tmp_path / "a", tmp_path / "b")
    assert pull("x", registry=tmp_path / "b", offline=True).path.read_bytes() == b"there"


# What goes wrong.


def test_what_cannot_be_had_is_told_and_the_others_are_there(registry: Path, tmp_path: Path) -> None:
    shutil.rmtree(registry / "n-5")
    (registry / "n-6" / "adapter_config.json").write_bytes(b"wrong")
    typed = type_command("index", "mirror", str(registry), str(tmp_path / "b"))
    assert typed.status == 5
    assert "2 adapters were not copied" in typed.err
    assert "me/n5: there is no n-5" in typed.err
    assert "me/n6: adapter_config.json has digest" in typed.err
    assert "28 adapters copied" in typed.err
    assert "2 failed" in typed.err
    assert set(said(tmp_path / "b")) == set(said(registry)) - {"me/n5", "me/n6"}
    assert is_right(tmp_path / "b")
    for path, data in {**{f"n-5/{p}": d for p, d in contents(5).items()}, "n-6/adapter_config.json": b"{6}"}.items():
        (registry / path).parent.mkdir(parents=True, exist_ok=True)
        (registry / path).write_bytes(data)
    assert len(mirror(registry, tmp_path / "b")["copied"]) == 2
    assert said(tmp_path / "b") == said(registry)


def test_a_version_that_is_there_with_other_bytes_is_a_fault_and_not_overwritten(
    registry: Path, tmp_path: Path
) -> None:
    other = Index().add("me/n3", "1.1.0", a_file("x", b"other"), published="2026-01-01")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"other")
    other.write(tmp_path / "b" / "index.json")
    typed = type_command("index", "mirror", str(registry), str(tmp_path / "b"))
    assert (typed.status, "me/n3@1.1.0 has another native artifact" in typed.err) == (1, True)
    assert pull("me/n3", registry=tmp_path / "b").path.read_bytes() == b"other"
    assert len(said(tmp_path / "b")) == COUNT


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_an_entry_that_contradicts_the_mirrors_own_does_not_keep_the_others_out(
    registry: Path, tmp_path: Path, sharded: bool
) -> None:
    place = tmp_path / "b"
    place.mkdir()
    (place / "x").write_bytes(b"own")
    own = Index().add("own", "1.0.0", a_file("x", b"own"), published="2026-01-01", aliases=("alias-7",))
    own.write(place / "index.json")
    if sharded:
        sharding.shard(place)
    typed = type_command("index", "mirror", str(registry), str(place), "--json")
    assert typed.status == 1
    assert [(one["name"], one["code"]) for one in typed.json["failed"]] == [("me/n7", "E_SCHEMA")]
    assert len(typed.json["copied"]) == COUNT - 1
    assert set(said(place)) == {*said(registry), "own"} - {"me/n7"}
    assert is_right(place)


def test_two_mirrors_to_one_folder_are_refused(registry: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "b" / ".mirror").mkdir(parents=True)
    with FileLock(tmp_path / "b" / ".mirror" / "lock"), pytest.raises(StateError, match="another process mirrors"):
        Mirror(open_registry(registry), tmp_path / "b").run(Threads(1))


def test_a_host_that_cannot_be_listed_cannot_be_mirrored(registry: Path, tmp_path: Path) -> None:
    sharding.shard(registry)
    with running(StaticHost(served(registry))) as host:
        assert type_command("index", "mirror", host.url, str(tmp_path / "b")).status == 6
        sharding.pack(registry)
        host.files.update(served(registry))
        mirror(host.url, tmp_path / "b")
    assert said(tmp_path / "b") == said(registry)


def served(folder: Path) -> dict[str, bytes]:
    return {quote(p.relative_to(folder).as_posix()): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Stopped.


@pytest.fixture
def host(registry: Path) -> Iterator[StaticHost]:
    """The registry on a host that takes its time."""

    def slowly(request: Request) -> Answer | None:
        time.sleep(0.01)
        return None

    with running(StaticHost(served(registry))) as found:
        found.faults.append(slowly)
        yield found


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("times", [pytest.param(30, marks=pytest.mark.slow), 4])
def test_a_mirror_that_is_killed_goes_on_where_it_was(
    registry: Path, host: StaticHost, tmp_path: Path, sharded: bool, times: int
) -> None:
    place = tmp_path / "b"
    if sharded:
        sharding.shard(place)
    chance = random.Random(times)
    command = [sys.executable, "-m", "adapterhub.cli", "index", "mirror", host.url, str(place), "--jobs", "2"]
    for _ in range(times):
        before = len(host.requests)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(host.requests) < before + 4 and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (place / "index.json").is_file():
            assert is_right(place)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said(place) == said(registry)
    assert is_right(place)
    asked = [unquote(request.path) for request in host.requests if "index.json" not in request.path]
    # Every file once, and again at most those that were under way when a process died.
    assert len(asked) <= COUNT * 3 + times * 2
    assert [path for path in (place / ".mirror").iterdir() if path.suffix == ".part"] == []
