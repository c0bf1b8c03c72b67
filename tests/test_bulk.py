"""Work on all adapters of a registry: what fails is told, what was done is not done again, whoever was stopped."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from bulk_registry import make_registry
from cli_session import type_command

import adapterhub
from adapterhub import hub
from adapterhub.errors import AdapterHubError
from adapterhub.hub.bulk_converting import convert_all
from adapterhub.hub.bulk_verifying import Verify, verify_all
from adapterhub.hub.listed_conversion import Convert
from adapterhub.registry import Index, Settings, open_registry, pull, sharding
from adapterhub.registry.local_runner import Threads

pytestmark = pytest.mark.usefixtures("clean")

COUNT = 6
ALL = COUNT * 2
LORAS = COUNT // 2 * 2


@pytest.fixture(scope="session")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_registry(tmp_path_factory.mktemp("bulk") / "hub", base, COUNT)


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Path:
    """A registry of LoRAs, which PEFT has words for, and LoReFT, which it has none for; two versions of each."""
    return Path(shutil.copytree(made, tmp_path / "hub"))


def done(*arguments: str | Path, status: int = 0) -> Any:
    """Return the report of a command for programs."""
    typed = type_command("index", *map(str, arguments), "--json", "--jobs", "1")
    assert typed.status == status, typed.out + typed.err
    return typed.json


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def stopping(monkeypatch: pytest.MonkeyPatch, kind: type, after: int) -> list[str]:
    """Let a function of tasks be interrupted after some, and return what lists the names of those that were begun."""
    begun: list[str] = []
    original = kind.__call__

    def called(self: Any, value: Any) -> Any:
        listed = value if kind is Verify else value.listed
        begun.append(listed.title)
        if len(begun) == after + 1:
            raise KeyboardInterrupt
        return original(self, value)

    monkeypatch.setattr(kind, "__call__", called)
    return begun


# Verify.


def test_all_adapters_of_a_registry_are_verified_as_verify_does(registry: Path) -> None:
    found = done("verify-all", registry)
    assert (len(found["verified"]), found["skipped"], found["failed"]) == (ALL, [], [])
    assert found["registry"] == str(registry / "index.json")
    alone = hub.verify("a0@1.1.0", registry=str(registry))
    name = "a0@1.1.0 for acme/tiny-bert, native"
    checks = {one["name"]: one["checks"] for one in found["verified"]}[name]
    assert checks == [check.to_json() for check in alone]
    assert [check["name"] for check in checks] == ["digest", "format", "tensors"]
    # Done to the end, it begins anew.
    assert len(done("verify-all", registry)["verified"]) == ALL


def test_what_is_wrong_is_told_with_its_reason_and_the_others_are_verified(registry: Path) -> None:
    damage(registry / "a1-1.0.0.safetensors")
    (registry / "a2-1.1.0.safetensors").unlink()
    found = done("verify-all", registry, status=5)
    assert [one["name"][:8] for one in found["failed"]] == ["a1@1.0.0", "a2@1.1.0"]
    assert [one["code"] for one in found["failed"]] == ["E_DIGEST", "E_NOT_FOUND"]
    assert (found["ok"], found["error"]["code"], len(found["verified"])) == (False, "E_INTEGRITY", ALL - 2)
    typed = type_command("index", "verify-all", str(registry), "--jobs", "1")
    assert typed.status == 5
    assert "2 artifacts are not what they should be" in typed.err
    assert f"{ALL - 2} verified before" in typed.err
    assert "a1@1.0.0 for acme/tiny-bert, native: a1@1.0.0: a1-1.0.0.safetensors has digest" in typed.err
    typed = type_command("index", "verify-all", str(registry), "--jobs", "1", "--afresh", "-q")
    assert (typed.status, len(typed.out.splitlines())) == (5, ALL - 2)


def test_bytes_that_the_index_vouches_for_are_read_too(registry: Path) -> None:
    # What somebody has put into the index with its digest, and is no adapter.
    index = json.loads((registry / "index.json").read_text())
    artifact = index["adapters"]["a0"]["versions"]["1.0.0"]["artifacts"][0]
    path = registry / "a0-1.0.0.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    artifact["digest"], artifact["size"] = adapterhub.registry.digest.of_file(path), path.stat().st_size
    (registry / "index.json").write_text(json.dumps(index))
    found = done("verify-all", registry, status=5)
    assert [one["code"] for one in found["failed"]] == ["E_FORMAT"]


def test_the_registry_is_looked_at_and_not_what_the_cache_has_of_it(registry: Path) -> None:
    pull("a0@1.0.0", registry=registry)
    damage(registry / "a0-1.0.0.safetensors")
    assert len(done("verify-all", registry, status=5)["failed"]) == 1


def test_a_stopped_list_goes_on_and_one_with_faults_looks_at_these_alone(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(registry / "a0-1.0.0.safetensors")
    with monkeypatch.context() as patch:
        begun = stopping(patch, Verify, 5)
        assert type_command("index", "verify-all", str(registry), "--jobs", "1").status == 130
        assert 6 <= len(begun) <= 7
    found = done("verify-all", registry, status=5)
    assert len(found["skipped"]) == len(begun) - 2  # All but the one at fault and the one that was interrupted.
    assert (len(found["verified"]), len(found["failed"])) == (ALL + 1 - len(begun), 1)
    assert len(done("verify-all", registry, status=5)["skipped"]) == ALL - 1
    assert len(done("verify-all", registry, "--afresh", status=5)["verified"]) == ALL - 1
    damage(registry / "a0-1.0.0.safetensors")
    found = done("verify-all", registry)
    assert (len(found["skipped"]), [one["name"][:8] for one in found["verified"]]) == (ALL - 1, ["a0@1.0.0"])
    assert list((Settings.load().cache / "bulk").glob("*.jsonl")) == []


def test_what_has_changed_since_is_looked_at_again(registry: Path) -> None:
    damage(registry / "a0-1.0.0.safetensors")
    done("verify-all", registry, status=5)
    index = json.loads((registry / "index.json").read_text())
    versions = index["adapters"]["a3"]["versions"]
    versions["1.1.0"]["artifacts"] = versions["1.0.0"]["artifacts"]
    (registry / "index.json").write_text(json.dumps(index))
    found = done("verify-all", registry, status=5)
    assert [one["name"][:8] for one in found["verified"]] == ["a3@1.1.0"]


def test_a_journal_that_was_cut_is_read_up_to_there(registry: Path) -> None:
    damage(registry / "a0-1.0.0.safetensors")
    done("verify-all", registry, status=5)
    (journal,) = (Settings.load().cache / "bulk").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    found = done("verify-all", registry, status=5)
    assert (len(found["skipped"]), len(found["verified"])) == (4, ALL - 5)
    assert [json.loads(line)["name"] for line in journal.read_bytes().splitlines()][:4] == [
        json.loads(line)["name"] for line in lines[:4]
    ]


def test_a_composition_is_verified_with_its_adapters(registry: Path, base: Path) -> None:
    composed = type_command(
        *("compose", "both@1.0.0", "stack(a0, a2)", "--base", str(base), "--registry", str(registry)),
        *("--license", "MIT", "--push", str(registry)),
    )
    assert composed.status == 0, composed.err
    assert len(done("verify-all", registry)["verified"]) == ALL + 1
    (registry / "a0-1.1.0.safetensors").unlink()
    failed = done("verify-all", registry, status=3)["failed"]
    assert [one["name"].partition("@")[0] for one in failed] == ["a0", "both"]


# Convert.


def test_all_adapters_of_a_registry_are_converted_and_what_cannot_be_is_told(registry: Path, tmp_path: Path) -> None:
    found = done("convert-all", registry, tmp_path / "out", "--to", "peft", status=6)
    assert len(found["converted"]) == LORAS
    assert {one["code"] for one in found["failed"]} == {"E_UNSUPPORTED"}
    assert [one["name"][:8] for one in found["failed"]] == [f"a{n}@1.{m}.0" for n in (1, 3, 5) for m in (0, 1)]
    assert all(one["exact"] for one in found["converted"])
    opened = open_registry(tmp_path / "out")
    assert list(opened.index.names()) == ["a0", "a2", "a4"]
    assert list(opened.index.entry("a0").versions) == ["1.0.0", "1.1.0"]
    (registry / "a0-1.0.0.safetensors").rename(tmp_path / "source.safetensors")
    source = adapterhub.read(tmp_path / "source.safetensors")
    there = adapterhub.read(pull("a0@1.0.0", registry=opened, offline=True).path)
    assert there.config == source.config
    assert all(torch.equal(there.tensors[key], tensor) for key, tensor in source.tensors.items())
    assert done("verify-all", tmp_path / "out")["failed"] == []


def test_native_files_are_those_that_pull_makes(registry: Path, tmp_path: Path) -> None:
    done("convert-all", registry, tmp_path / "peft", "--to", "peft", status=6)
    found = done("convert-all", tmp_path / "peft", tmp_path / "native", "--to", "native")
    assert len(found["converted"]) == LORAS
    pulled = hub.fetch("a0@1.0.0", registry=tmp_path / "peft", format="native").path
    assert pull("a0@1.0.0", registry=tmp_path / "native").path.read_bytes() == pulled.read_bytes()
    assert type_command("index", "check", str(tmp_path / "native")).status == 0


@pytest.mark.parametrize("to", ["native", "peft", "adapters"])
def test_an_archive_is_verified_and_converted_like_any_other(registry: Path, tmp_path: Path, to: str) -> None:
    done("convert-all", registry, tmp_path / "folders", "--to", "adapters")
    folder = pull("a0@1.0.0", registry=tmp_path / "folders").path
    (tmp_path / "zips").mkdir()
    file = Path(shutil.make_archive(str(tmp_path / "zips" / "a0"), "zip", folder))
    artifact = dataclasses.replace(
        open_registry(registry).index.resolve("a0").artifact,
        format="adapters",
        url="a0.zip",
        digest=adapterhub.registry.digest.of_file(file),
        size=file.stat().st_size,
    )
    Index().add("a0", "1.0.0", artifact, published="2026-01-01").write(tmp_path / "zips" / "index.json")
    assert len(done("verify-all", tmp_path / "zips")["verified"]) == 1
    done("convert-all", tmp_path / "zips", tmp_path / "out", "--to", to)
    there = adapterhub.read(pull("a0", registry=tmp_path / "out").path)
    source = adapterhub.read(registry / "a0-1.0.0.safetensors")
    assert all(torch.equal(there.tensors[key], tensor) for key, tensor in source.tensors.items())
    assert len(done("verify-all", tmp_path / "out")["verified"]) == 1


def test_what_is_in_the_format_is_copied(registry: Path, tmp_path: Path) -> None:
    assert len(done("convert-all", registry, tmp_path / "out", "--to", "native")["converted"]) == ALL
    for name in ("a0", "a1"):
        ours, theirs = (open_registry(place).index.resolve(name).artifact for place in (tmp_path / "out", registry))
        assert (ours.identity, ours.extra) == (theirs.identity, {})


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_the_versions_of_a_registry_get_another_format_in_place(registry: Path, sharded: bool) -> None:
    if sharded:
        sharding.shard(registry)
    before = open_registry(registry).index.entry("a1").to_json()
    done("convert-all", registry, registry, "--to", "peft", status=6)
    release = open_registry(registry).index.entry("a0").versions["1.0.0"]
    assert [one.format for one in release.artifacts] == ["native", "peft"]
    assert release.artifacts[1].extra == {"made_of": release.artifacts[0].identity}
    assert open_registry(registry).index.entry("a1").to_json() == before
    again = done("convert-all", registry, registry, "--to", "peft", status=6)
    assert (again["converted"], len(again["skipped"])) == ([], LORAS)
    # What has several formats is copied in the one that was asked for.
    copied = done("convert-all", registry, registry.parent / "peft", "--to", "peft", status=6)
    assert {one["digest"] for one in copied["converted"]} == {
        entry.versions[version].artifacts[1].identity
        for entry in map(open_registry(registry).index.entry, ("a0", "a2", "a4"))
        for version in entry.versions
    }
    files = [path for path in (registry.parent / "peft" / "adapters").rglob("*") if path.is_file()]
    assert all(path.stat().st_mode & 0o200 for path in files)


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_converted_again_only_what_is_new_is_converted(registry: Path, tmp_path: Path, sharded: bool) -> None:
    if sharded:
        sharding.shard(registry)
    done("convert-all", registry, tmp_path / "out", "--to", "adapters")
    assert open_registry(tmp_path / "out").index.sharded == sharded
    pushed = type_command("push", str(registry / "a0-1.0.0.safetensors"), "--as", "a0@2.0.0", "--to", str(registry))
    assert pushed.status == 0, pushed.err
    assert type_command("yank", "a1@1.0.0", "--registry", str(registry)).status == 0
    found = done("convert-all", registry, tmp_path / "out", "--to", "adapters")
    assert [one["name"] for one in found["converted"]] == ["a0@2.0.0 for acme/tiny-bert, native"]
    assert len(found["skipped"]) == ALL
    assert open_registry(tmp_path / "out").index.entry("a1").versions["1.0.0"].yanked


def test_a_version_that_is_there_of_other_bytes_is_a_fault_and_not_overwritten(registry: Path, tmp_path: Path) -> None:
    done("convert-all", registry, tmp_path / "out", "--to", "adapters")
    before = open_registry(tmp_path / "out").index.resolve("a0@1.0.0").artifact
    index = json.loads((registry / "index.json").read_text())
    versions = index["adapters"]["a0"]["versions"]
    versions["1.0.0"]["artifacts"] = versions["1.1.0"]["artifacts"]
    (registry / "index.json").write_text(json.dumps(index))
    found = done("convert-all", registry, tmp_path / "out", "--to", "adapters", status=1)
    assert [(one["name"][:8], one["code"]) for one in found["failed"]] == [("a0@1.0.0", "E_STATE")]
    assert open_registry(tmp_path / "out").index.resolve("a0@1.0.0").artifact == before


def test_a_dry_run_tells_what_would_be_converted_and_keeps_nothing(registry: Path, tmp_path: Path) -> None:
    planned = done("convert-all", registry, tmp_path / "out", "--to", "peft", "--dry-run", status=6)
    assert not (tmp_path / "out").exists()
    real = done("convert-all", registry, tmp_path / "out", "--to", "peft", status=6)
    assert [planned[key] for key in ("converted", "failed")] == [real[key] for key in ("converted", "failed")]


def test_a_composition_is_not_converted_and_says_why(registry: Path, base: Path, tmp_path: Path) -> None:
    composed = type_command(
        *("compose", "both@1.0.0", "stack(a0, a2)", "--base", str(base), "--registry", str(registry)),
        *("--license", "MIT", "--push", str(registry)),
    )
    assert composed.status == 0, composed.err
    (failed,) = done("convert-all", registry, tmp_path / "out", "--to", "adapters", status=6)["failed"]
    assert (failed["name"][:4], "by their digests" in failed["message"]) == ("both", True)


def test_options_of_formats_are_heeded_and_unknown_formats_named(registry: Path, tmp_path: Path) -> None:
    done("convert-all", registry, tmp_path / "out", "--to", "peft", "--peft-version", "0.9", status=6)
    config = json.loads((pull("a0", registry=tmp_path / "out").path / "adapter_config.json").read_text())
    assert "use_dora" in config
    assert "lora_bias" not in config
    typed = type_command("index", "convert-all", str(registry), str(tmp_path / "x"), "--to", "gibberish")
    assert (typed.status, "gibberish" in typed.err) == (2, True)
    assert not (tmp_path / "x").exists()


def test_an_interrupted_conversion_goes_on(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("convert-all", registry, tmp_path / "out", "--to", "adapters")
    with monkeypatch.context() as patch:
        begun = stopping(patch, Convert, 5)
        assert type_command("index", *map(str, arguments), "--jobs", "1").status == 130
    assert len(list(open_registry(tmp_path / "out").index.names())) >= 2
    found = done(*arguments)
    assert len(found["skipped"]) == len(begun) - 1
    assert len(found["converted"]) == ALL + 1 - len(begun)
    assert done("verify-all", tmp_path / "out")["failed"] == []


def test_two_conversions_to_one_folder_and_two_looks_at_one_registry_are_refused(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("convert-all", str(registry), str(tmp_path / "out"), "--to", "adapters", "--jobs", "1")
    found: list[int] = []

    def once(self: Any, value: Any) -> Any:
        found.append(type_command("index", *arguments).status)
        raise AdapterHubError("enough")

    monkeypatch.setattr(Convert, "__call__", once)
    convert_all(open_registry(registry), str(registry), tmp_path / "out", Threads(1), to="adapters")
    assert set(found) == {1}
    found.clear()

    def look(self: Any, value: Any) -> Any:
        found.append(type_command("index", "verify-all", str(registry)).status)
        raise AdapterHubError("enough")

    monkeypatch.setattr(Verify, "__call__", look)
    verify_all(open_registry(registry), str(registry), Threads(1), settings=Settings.load())
    assert set(found) == {1}


# Stopped, with processes.


def journal_lines(folder: Path) -> int:
    path = folder / ".convert" / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.slow
def test_a_conversion_in_processes_that_is_killed_goes_on_where_it_was(base: Path, tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "hub", base, 30, ("lora[r=2]",))
    out = tmp_path / "out"
    chance = random.Random(4)
    command = [sys.executable, "-m", "adapterhub.cli", "index", "convert-all", str(registry), str(out)]
    command += ["--to", "adapters", "--jobs", "2", "--json"]
    before = 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and journal_lines(out) < before + 3:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # Nothing that was noted is ever forgotten.
        assert journal_lines(out) >= before
        before = journal_lines(out)
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert len(found["skipped"]) + len(found["converted"]) == 60
    assert len(found["skipped"]) >= before
    assert {path.name for path in (out / ".convert").iterdir()} <= {"lock", ".journal.jsonl.lock"}
    assert done("verify-all", out)["failed"] == []
    assert len(list(open_registry(out).index.names())) == 30
