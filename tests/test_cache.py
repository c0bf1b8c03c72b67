"""The cache: what is in it and why, what goes and what stays, and one wrong byte is found."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from cli_session import type_command
from remote_cases import FOLDER, a_file, a_folder, sha

from adapterhub.registry import Index, Store, open_registry, pull
from adapterhub.registry.cache import DAY, prune

pytestmark = pytest.mark.usefixtures("clean")

MOODS = ("editorials-bert", "product-reviews-bert", "tweets-bert")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with two files, of which one lies in a folder too."""
    home = tmp_path / "hub"
    shared = FOLDER["adapter_config.json"]
    for path, data in {"a": b"one", "b": shared, **{f"lora/{p}": d for p, d in FOLDER.items()}}.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    index = Index().add("a", "1.0.0", a_file("a", b"one"), published="2026-01-01")
    index = index.add("b", "1.0.0", a_file("b", shared), published="2026-01-01")
    index.add("lora", "1.0.0", a_folder("lora", FOLDER), published="2026-01-01").write(home / "index.json")
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(home))
    return home


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def age(cache: Path, days: float, *names: str) -> None:
    """Let artifacts (all if none is named) have been used so many days ago."""
    for home in (cache / "artifacts").iterdir():
        if not names or {child.name for child in home.iterdir()} & set(names):
            os.utime(home, times=(time.time() - days * DAY,) * 2)


def names(*arguments: str) -> set[str]:
    """Return the names that `cache ls` or `cache prune` tells."""
    typed = type_command("cache", *arguments, "--json")
    assert typed.status == 0, typed.out
    return {one["name"] for one in typed.json["artifacts"]}


def objects(cache: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (cache / "objects").rglob("*") if path.is_file()}


def test_an_empty_cache_has_nothing_and_is_right(cache: Path) -> None:
    assert names("ls") == set()
    assert names("prune") == set()
    assert type_command("cache", "verify").status == 0
    assert "empty" in type_command("cache", "ls").err


def test_what_was_pulled_is_listed_with_its_size_and_who_needs_it(hub: Path, cache: Path, tmp_path: Path) -> None:
    Path("adapterhub.toml").write_text('[adapters]\nmine = "lora"\n')
    for command in (("lock",), ("sync",), ("pull", "a"), ("pull", "moods-bert", "--registry", "bundled")):
        assert type_command(*command).status == 0
    found = {one["name"]: one for one in type_command("cache", "ls", "--json").json["artifacts"]}
    assert found["a"]["needed_by"] == []
    assert found["a"]["digest"] == sha(b"one")
    assert (found["a"]["size"], found["lora"]["size"]) == (3, sum(map(len, FOLDER.values())))
    assert found["lora"]["needed_by"] == [str(tmp_path / "adapterhub.lock")]
    assert found["tweets-bert-1.0.0.safetensors"]["needed_by"] == ["moods-bert-1.0.0.json"]
    Path("adapterhub.lock").unlink()
    assert type_command("cache", "ls", "--json").json["artifacts"][3]["needed_by"] == []


def test_using_an_adapter_makes_it_used_now(hub: Path, cache: Path) -> None:
    pull("a")
    pull("b")
    age(cache, 40)
    pull("a")
    assert names("prune") == {"b"}
    assert names("ls") == {"a"}


def test_what_is_not_used_for_long_goes_with_its_objects_and_nothing_else(hub: Path, cache: Path) -> None:
    for name in ("a", "b", "lora"):
        pull(name)
    before = objects(cache)
    age(cache, 40, "a", "lora")
    assert names("prune", "--dry-run") == {"a", "lora"}
    assert objects(cache) == before
    assert names("prune", "--unused", "60") == set()
    freed = type_command("cache", "prune", "--json").json
    # b is the same bytes as a file of lora, and stays.
    assert objects(cache) == {sha(FOLDER["adapter_config.json"])}
    assert freed["freed"] == 3 + sum(map(len, FOLDER.values())) - len(FOLDER["adapter_config.json"])
    assert type_command("cache", "verify").status == 0
    assert pull("lora").path.is_dir()


def test_what_a_lock_names_stays_with_all_adapters_of_its_compositions_unless_asked(cache: Path) -> None:
    Path("adapterhub.toml").write_text('[adapters]\nmoods = "moods-bert"\n')
    assert type_command("sync").status == 0
    pull("sst2-bert", registry="bundled")
    age(cache, 1000)
    assert names("prune", "--unused", "0") == {"sst2-bert-1.0.0.safetensors"}
    kept = {"moods-bert-1.0.0.json", *(f"{name}-1.0.0.safetensors" for name in MOODS)}
    assert names("ls") == kept
    assert names("prune", "--unused", "0", "--locked") == kept
    assert objects(cache) == set()
    assert type_command("sync", "--frozen").status == 0


def test_the_adapters_of_a_composition_that_is_used_stay(cache: Path) -> None:
    pull("moods-bert", registry="bundled")
    age(cache, 1000)
    age(cache, 0, "moods-bert-1.0.0.json")
    assert names("prune") == set()


def test_a_lock_that_cannot_be_read_ends_a_prune_before_anything_is_removed(hub: Path, cache: Path) -> None:
    Path("adapterhub.toml").write_text('[adapters]\nmine = "a"\n')
    type_command("sync")
    Path("adapterhub.lock").write_text("{")
    age(cache, 1000)
    typed = type_command("cache", "prune", "--unused", "0")
    assert typed.status == 5
    assert objects(cache) == {sha(b"one")}


def test_leftovers_of_downloads_and_objects_of_nobody_go_after_a_day(hub: Path, cache: Path) -> None:
    store = Store(cache)
    store.put([b"nobody's"], sha(b"nobody's"), 8, "x")
    (cache / "tmp" / "old.part").write_bytes(b"half")
    assert type_command("cache", "prune", "--json").json["freed"] == 0
    for path in (cache / "tmp" / "old.part", store.path_of(sha(b"nobody's"))):
        os.utime(path, times=(time.time() - 2 * DAY,) * 2)
    assert type_command("cache", "prune", "--json").json["freed"] == 12
    assert objects(cache) == set()


def test_indexes_are_removed_only_if_asked(hub: Path, cache: Path) -> None:
    for folder in ("lookup", "checked"):
        (cache / folder).mkdir(parents=True)
        (cache / folder / "x").write_bytes(b"index")
    type_command("cache", "prune", "--unused", "0")
    assert (cache / "lookup").exists()
    assert type_command("cache", "prune", "--indexes", "--json").json["freed"] == 10
    assert not (cache / "lookup").exists()
    assert open_registry(hub).index.owners("a") == ["a"]


@pytest.mark.parametrize("where", ["objects", "artifacts"])
def test_one_wrong_byte_is_found_told_and_removed_if_asked(hub: Path, cache: Path, where: str) -> None:
    pull("a")
    pull("lora")
    victim = max(path for path in (cache / where).rglob("adapter_model.safetensors" if where[0] == "a" else "*"))
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.unlink()
    victim.write_bytes(data)
    typed = type_command("cache", "verify", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_INTEGRITY")
    assert str(victim if where == "objects" else victim.parent) in typed.error["message"]
    assert victim.read_bytes() == bytes(data)
    assert type_command("cache", "verify", "--remove").status == 5
    assert type_command("cache", "verify").status == 0
    assert (pull("lora").path / "adapter_model.safetensors").read_bytes() == FOLDER["adapter_model.safetensors"]
    assert type_command("cache", "verify").status == 0


def test_a_file_that_is_missing_in_a_folder_is_found(hub: Path, cache: Path) -> None:
    (pull("lora").path / "adapter_config.json").unlink()
    assert type_command("cache", "verify").status == 5


def test_copies_in_place_of_links_are_known_by_their_digests(hub: Path, cache: Path) -> None:
    path = pull("lora").path / "adapter_model.safetensors"
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    age(cache, 40)
    pull("lora")
    assert type_command("cache", "verify").status == 0
    assert names("prune") == set()
    assert len(objects(cache)) == len(FOLDER)


def test_what_was_used_in_this_minute_stays(hub: Path, cache: Path) -> None:
    pull("a")
    assert names("prune", "--unused", "0", "--locked") == set()


def test_pulling_while_it_is_pruned_gives_the_right_bytes(hub: Path, cache: Path) -> None:
    stop = threading.Event()

    def pruning() -> None:
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):
                age(cache, 1)
            prune(cache, unused_days=0)

    thread = threading.Thread(target=pruning)
    thread.start()
    try:
        for _ in range(150):
            # It may be gone again when it is opened: only here, where all is old at once.
            with contextlib.suppress(FileNotFoundError):
                assert pull("a").path.read_bytes() == b"one"
    finally:
        stop.set()
        thread.join()
    assert pull("a").path.read_bytes() == b"one"
