"""A sharded index says what the index in one file says, moves one small file at a time, and loses nothing."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from bucket_places import Shop
from cli_session import type_command
from hub_double import Hub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_server import Answer, Request, StaticHost, running
from publications import a_publication
from test_lookup import NAMED, NAMES, QUERIES, an_entry, an_index, entries

from adapterhub.errors import AdapterHubError, FormatError, NotFoundError, OfflineError, SchemaError, UnsupportedError
from adapterhub.registry import (
    Index,
    Lookup,
    Settings,
    Yank,
    editing,
    open_registry,
    publisher_at,
    pull,
    shard_database,
    sharding,
    shards,
)

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

pytestmark = [
    pytest.mark.usefixtures("online"),
    # huggingface_hub 2.4.0 itself, where it uploads a large file.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sharded registry with a few entries."""
    return sharded(tmp_path / "hub", NAMED)


def sharded(folder: Path, found: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_bytes(an_index(found))
    sharding.shard(folder)
    return folder


def opened(place: Path | str, cache: Path | None = None, **flags: Any) -> Lookup:
    return open_registry(place, settings=Settings.load(cache=cache, **flags)).index


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


# It says the same.


def answers(index: Lookup, names: list[str], queries: list[list[str]]) -> list[object]:
    """Return what an index says to many questions."""

    def asked(question: Any, *arguments: Any) -> object:
        try:
            return question(*arguments)
        except (AdapterHubError, KeyError) as error:
            return type(error), str(error)

    return [
        len(index),
        list(index.names()),
        *(asked(index.owners, name) for name in names),
        *(asked(index.find, name) for name in names),
        *(asked(lambda n: index.entry(n).to_json(), name) for name in names),
        *(asked(lambda n: list(index.names(n)), name[:2]) for name in names),
        *(list(index.search(words)) for words in queries),
    ]


def unambiguous(found: dict[str, Any]) -> dict[str, Any]:
    """Return entries of which no two claim a name, as every index that is written."""
    taken: set[str] = {name.casefold() for name in found}
    for name, entry in found.items():
        kept = []
        for alias in entry.get("aliases", ()):
            if (folded := alias.removeprefix("@").casefold()) not in taken or folded == name:
                taken.add(folded)
                kept.append(alias)
        entry["aliases"] = kept
    return found


@settings(STEADY, max_examples=60)
@given(entries().map(unambiguous), st.lists(NAMES | st.text("ab2@A/~é.", max_size=6), max_size=5), st.lists(QUERIES))
def test_a_sharded_index_says_what_the_index_in_one_file_says(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any], names: list[str], queries: list[list[str]]
) -> None:
    place = sharded(tmp_path_factory.mktemp("hub"), found)
    flat = Index.loads(an_index(found))
    asked = [*names, *found, *(alias for entry in found.values() for alias in entry["aliases"])]
    assert answers(opened(place, place / "cache"), asked, queries) == answers(flat, asked, queries)
    assert sharding.whole(place) == flat
    assert sharding.faults(place, flat) == []


def test_capitals_aliases_and_old_names_are_found(place: Path) -> None:
    index = opened(place)
    for name in ("sst2-bert", "SST-2", "sentiment/SST-2@ukp", "@UKP/bert-base-uncased_nli_multinli_pfeiffer"):
        assert index.find(name) in ("sst2-bert", "nli")
    with pytest.raises(NotFoundError, match=r"did you mean sst2-bert"):
        index.find("sst2-brt")


def test_a_name_as_long_as_may_be_has_a_shard(tmp_path: Path) -> None:
    name = f"{'o' * 96}/{'n' * 96}"
    alias = f"{'a' * 150}@{'b' * 40}"
    place = sharded(tmp_path, {name: an_entry(aliases=[alias]), f"{'o' * 96}/{'n' * 95}m": an_entry()})
    assert opened(place).find(alias) == name
    assert opened(place).find(name) == name
    assert max(len(path.name) for path in place.rglob("*.json")) < 120


def test_an_alias_that_no_file_can_be_called_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(an_index({"a": an_entry(aliases=["con"])}))
    with pytest.raises(SchemaError, match="alias 'con' cannot be the name of a file"):
        sharding.shard(tmp_path)
    assert opened(tmp_path).find("con") == "a"


def test_an_alias_whose_entry_does_not_have_it_stands_for_nothing(place: Path) -> None:
    (place / shards.path_of("ghost")).parent.mkdir(exist_ok=True)
    (place / shards.path_of("ghost")).write_bytes(Index(alias_of=("sst2-bert",)).dumps())
    with pytest.raises(NotFoundError):
        opened(place).find("ghost")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"{", FormatError),
        (an_index({"sst2-bert": {}}), SchemaError),
        (shards.MARKER.dumps(), FormatError),
    ],
)
def test_a_broken_shard_is_named_and_the_others_go_on(place: Path, data: bytes, error: type[Exception]) -> None:
    (place / shards.path_of("sst2-bert")).write_bytes(data)
    with pytest.raises(error, match=r"index/../sst2-bert\.json of "):
        opened(place).find("sst2-bert")
    assert opened(place).find("movies") == "movies"


def test_an_index_that_says_it_is_sharded_and_has_entries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="the index is sharded and holds entries all the same"):
        Index(layout="sharded", adapters=Index.loads(an_index(NAMED)).adapters).check()
    assert json.loads(shards.MARKER.dumps()) == {
        "$schema": "urn:adapterhub:schema:index:1",
        "format": 1,
        "layout": "sharded",
        "adapters": {},
    }


# Publishing.


def publish(place: str | Path, tmp_path: Path, name: str, version: str = "1.0.0") -> bool:
    publisher = publisher_at(str(place), settings=Settings.load())
    return publisher.publish(a_publication(tmp_path / "sources", name, version, version.encode())).new


def test_a_publish_writes_the_files_of_the_adapter_and_one_shard(place: Path, tmp_path: Path) -> None:
    before = files(place)
    assert publish(place, tmp_path, "me/a")
    after = files(place)
    assert {path for path in after if before.get(path) != after[path] and not path.startswith("adapters/")} == {
        shards.path_of("me/a")
    }
    assert not publish(place, tmp_path, "me/a")
    assert pull("me/a", registry=place).path.read_bytes() == b"native 1.0.0"
    with pytest.raises(AdapterHubError, match="is another name of sst2-bert"):
        publish(place, tmp_path, "sst-2")


def test_a_yank_by_an_alias_changes_the_shard_of_the_entry(place: Path) -> None:
    before = files(place)
    assert type_command("yank", "sst-2@1.0.0", "--registry", str(place)).status == 0
    after = files(place)
    assert {path for path in after if before[path] != after[path]} == {shards.path_of("sst2-bert")}
    assert opened(place).entry("sst2-bert").versions["1.0.0"].yanked


@pytest.mark.parametrize("same", [False, True], ids=["names", "versions"])
def test_of_sixteen_publishers_at_once_none_is_lost(place: Path, tmp_path: Path, same: bool) -> None:
    names = ["me/a"] * 16 if same else [f"me/a-{number}" for number in range(16)]
    versions = [f"1.0.{number}" for number in range(16)]
    for _ in range(3):
        with ThreadPoolExecutor(16) as pool:
            tasks = [pool.submit(publish, place, tmp_path, *pair) for pair in zip(names, versions, strict=True)]
            while not all(task.done() for task in tasks):
                sharding.whole(place).check()
                list(opened(place, tmp_path / "reader").names())
                time.sleep(0.01)
            assert all(task.exception() is None for task in tasks)
    index = opened(place)
    assert sum(len(index.entry(name).versions) for name in set(names)) == 16
    for name, version in zip(names, versions, strict=True):
        assert pull(f"{name}@{version}", registry=place).path.read_bytes() == b"native " + version.encode()
    assert sharding.faults(place, sharding.whole(place)) == []


def test_sixteen_who_add_one_alias_each_to_one_entry_and_take_the_same_leave_one_owner(place: Path) -> None:
    def add(number: int) -> str:
        def change(index: Index) -> Index:
            old = index.entry("movies")
            artifact = old.versions["1.0.0"].artifacts[0]
            aliases = (*old.aliases, f"alias-{number}")
            return index.add("movies", "1.0.0", artifact, published="", aliases=aliases)

        editing.edit(place / "index.json", ["movies", f"alias-{number}"], change)
        return f"alias-{number}"

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(16)))
    index = opened(place)
    assert set(index.entry("movies").aliases) == set(added)
    assert [index.find(alias) for alias in added] == ["movies"] * 16


PUBLISH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from publications import a_publication
from adapterhub.registry import Settings, publisher_at
publisher = publisher_at(sys.argv[1], settings=Settings.load())
publications = [a_publication(Path(sys.argv[3]), f"me/a-{n % 7}", f"1.{sys.argv[4]}.{n}") for n in range(40)]
print("ready", flush=True)
for publication in publications:
    publisher.publish(publication)
"""


@pytest.mark.parametrize("times", [pytest.param(50, marks=pytest.mark.slow), 6])
def test_publishers_that_are_killed_leave_a_registry_that_works(place: Path, tmp_path: Path, times: int) -> None:
    chance = random.Random(times)
    for turn in range(times):
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", PUBLISH, str(place), here, str(tmp_path / "s"), str(turn)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        index = sharding.whole(place)
        index.check()
        assert sharding.faults(place, index) == []
        for name in index.names("me/"):
            newest = index.entry(name).latest
            assert pull(f"{name}@{newest}", registry=place).path.read_bytes() == b"native bytes"
    for number in range(7):
        assert publish(place, tmp_path, f"me/a-{number}", "2.0.0")
    assert not list((place / "index").rglob(".*.tmp"))


def test_publishers_and_the_change_to_shards_lose_nothing(tmp_path: Path) -> None:
    place = tmp_path / "hub"
    publisher_at(str(place), settings=Settings.load(), create=True).publish(a_publication(tmp_path / "x", "first"))
    with ThreadPoolExecutor(9) as pool:
        tasks = [pool.submit(publish, place, tmp_path, f"a-{number}") for number in range(16)]
        pool.submit(sharding.shard, place).result()
        assert all(task.result() for task in tasks)
    assert set(opened(place).names()) == {"first", *(f"a-{number}" for number in range(16))}
    assert sharding.faults(place, sharding.whole(place)) == []


# Lists and searches: the database of a folder, and what has changed since.


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sharded registry that gets a database and looks as if it had been there for long."""
    monkeypatch.setattr(shard_database, "FEW", 0)
    later = time.time_ns() + 60 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: later)
    return sharded(tmp_path / "hub", {f"n{number:03}": an_entry(summary=f"word{number}") for number in range(150)})


def databases(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "lookup").glob("*.sqlite"))


def test_a_database_is_made_once_and_again_when_much_has_changed(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    assert list(opened(many, cache).search(["word7"])) == ["n007", *(f"n{n:03}" for n in range(70, 80))]
    first = databases(cache)
    publish(many, tmp_path, "me/a")
    assert list(opened(many, cache).names("m")) == ["me/a"]
    assert databases(cache) == first
    monkeypatch.setattr(shard_database, "MOST_CHANGED", (0, 1000))
    assert len(opened(many, cache)) == 151
    assert len(databases(cache)) == 1
    assert databases(cache) != first


@settings(STEADY, max_examples=25)
@given(st.data())
def test_what_has_changed_since_the_database_was_made_is_found_as_if_it_were_new(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_database, "FEW", 0)
        later = time.time_ns() + 60 * 10**9
        patch.setattr("time.time_ns", lambda: later)
        before = unambiguous(data.draw(entries()))
        place = sharded(tmp_path_factory.mktemp("hub"), before)
        list(opened(place, place / "cache").names())
        after = unambiguous({**before, **data.draw(entries())})
        for path, document in shards.all_of(Index.loads(an_index(after))):
            (place / path).parent.mkdir(exist_ok=True)
            (place / "new").write_bytes(document)
            if not (place / path).exists() or (place / path).read_bytes() != document:
                (place / "new").replace(place / path)
        queries = data.draw(st.lists(QUERIES, min_size=2))
        asked = [*after, "absent", "ab2"]
        flat = Index.loads(an_index(after))
        assert answers(opened(place, place / "cache"), asked, queries) == answers(flat, asked, queries)
        assert len(databases(place / "cache")) == 1


def test_a_shard_that_is_gone_is_not_listed(many: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert len(opened(many, cache)) == 150
    (many / shards.path_of("n007")).unlink()
    assert "n007" not in list(opened(many, cache).names())


def test_a_damaged_database_is_made_anew(many: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    list(opened(many, cache).names())
    (path,) = (cache / "lookup").glob("*.sqlite")
    data = path.read_bytes()
    path.chmod(0o644)
    for cut in (data[: len(data) // 2], b"no database", data[:4096] + b"\0" * (len(data) - 4096)):
        (path,) = (cache / "lookup").glob("*.sqlite")
        path.chmod(0o644)
        path.write_bytes(cut)
        assert next(iter(opened(many, cache).search(["word7"]))) == "n007"


def test_what_is_too_new_is_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_database, "FEW", 0)
    place = sharded(tmp_path / "hub", NAMED)
    for word in ("first", "other"):
        changed = Index.loads(an_index({"movies": an_entry(summary=word)}))
        (place / shards.path_of("movies")).write_bytes(changed.dumps())
        assert list(opened(place).search([word])) == ["movies"]


# Over the network.


@pytest.fixture
def host(many: Path, tmp_path: Path) -> Iterator[StaticHost]:
    """A static host of a sharded registry with 151 adapters, of which one can be pulled."""
    publish(many, tmp_path, "me/a")
    with running(StaticHost(files(many))) as found:
        yield found


def test_an_adapter_of_a_static_host_is_resolved_with_two_requests_and_pulled_with_three(
    host: StaticHost, tmp_path: Path
) -> None:
    assert pull("me/a", registry=host.url).path.read_bytes() == b"native 1.0.0"
    paths = [unquote(request.path) for request in host.requests]
    assert paths[:2] == ["/index.json", f"/{shards.path_of('me/a')}"]
    assert len(paths) == 3
    host.requests.clear()
    pull("me/a", registry=host.url)
    assert [r.headers.get("if-none-match") is not None for r in host.requests] == [True, True]


def test_what_was_resolved_once_is_resolved_offline_and_nothing_else(host: StaticHost) -> None:
    opened(host.url).find("n007")
    host.requests.clear()
    assert opened(host.url, offline=True).find("n007") == "n007"
    with pytest.raises(OfflineError, match="was never fetched"):
        opened(host.url, offline=True).find("n008")
    assert host.requests == []


def test_a_host_is_listed_and_searched_once_it_is_packed(host: StaticHost, many: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"can be asked for names, but not be listed or searched; whoever keeps"):
        list(opened(host.url).names())
    with pytest.raises(NotFoundError, match="there is no adapter 'n0007'"):
        opened(host.url).find("n0007")
    typed = type_command("index", "pack", str(many), "--json")
    assert typed.json["adapters"] == 151
    host.files[shards.PACKED] = (many / shards.PACKED).read_bytes()
    assert next(iter(opened(host.url).search(["word7"]))) == "n007"
    assert len(opened(host.url)) == 151
    with pytest.raises(NotFoundError, match="did you mean n007"):
        opened(host.url).find("n0007")
    host.requests.clear()
    len(opened(host.url))
    assert [request.path for request in host.requests] == ["/index.json", f"/{shards.PACKED}"]


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(an_index(NAMED))[:-9], gzip.compress(b"{")])
def test_a_packed_index_that_is_damaged_is_refused(host: StaticHost, data: bytes) -> None:
    host.files[shards.PACKED] = data
    with pytest.raises(FormatError):
        list(opened(host.url).names())
    assert opened(host.url).find("n007") == "n007"


def test_a_packed_index_that_swells_is_refused() -> None:
    with pytest.raises(FormatError, match="larger than allowed"):
        shards.unpack(gzip.compress(b"0" * 10_000), 1_000, "x")


def test_a_broken_shard_of_a_host_is_refused(host: StaticHost) -> None:
    host.files[shards.path_of("n007")] = b"{"
    with pytest.raises(FormatError, match=r"n007\.json of http"):
        opened(host.url).find("n007")


def test_a_host_that_fails_is_an_error_and_not_an_unknown_name(host: StaticHost) -> None:
    def fails(request: Request) -> Answer | None:
        return Answer(status=403) if "n007" in request.path else None

    host.faults.append(fails)
    with pytest.raises(AdapterHubError) as caught:
        opened(host.url).find("n007")
    assert caught.value.exit_code == 4


def test_a_sharded_registry_in_a_bucket_is_read_listed_and_published_to(many: Path, tmp_path: Path, shop: Shop) -> None:
    bucket = shop.url
    publish(many, tmp_path, "me/a")
    sharding.pack(many)
    for path, data in files(many).items():
        shop.put(path, data)
    assert pull("me/a", registry=bucket).path.read_bytes() == b"native 1.0.0"
    assert opened(bucket).find("n007") == "n007"
    assert len(opened(bucket)) == 151
    with pytest.raises(NotFoundError, match="there is no adapter 'absent'"):
        opened(bucket).find("absent")
    assert publish(bucket, tmp_path, "me/b")
    assert pull("me/b", registry=bucket).path.read_bytes() == b"native 1.0.0"
    assert type_command("yank", "me/b@1.0.0", "--registry", bucket).status == 0
    assert opened(bucket).entry("me/b").versions["1.0.0"].yanked
    before = shop.paths()
    assert type_command("index", "pack", bucket, "--dry-run", "--json").json["adapters"] == 152
    assert list(opened(bucket).names("me/")) == ["me/a"]
    assert type_command("index", "pack", bucket, "--json").json["adapters"] == 152
    assert list(opened(bucket).names("me/")) == ["me/a", "me/b"]
    assert shop.paths() == before


# On the Hub.


@pytest.mark.parametrize("old", [False, True], ids=["new", "with entries"])
def test_a_registry_on_the_hub_is_sharded_published_to_yanked_and_read(hub: Hub, tmp_path: Path, old: bool) -> None:
    place = "hf://me/hub"
    if old:
        first = a_publication(tmp_path / "s", "first")
        publisher_at(place, settings=Settings.load(), create=True).publish(first)
    before = {path: file.data for path, file in hub.storage.get("me/hub").files("main").items()} if old else {}
    assert type_command("index", "shard", place, "--dry-run", "--json").json["shards"] == old
    assert not old or before == {path: file.data for path, file in hub.storage.get("me/hub").files("main").items()}
    assert type_command("index", "shard", place, "--json").json["shards"] == old
    assert type_command("index", "shard", place, "--json").json["shards"] is None
    assert publish(place, tmp_path, "me/a")
    assert publish(place, tmp_path, "me/a", "1.1.0")
    assert not publish(place, tmp_path, "me/a", "1.1.0")
    assert type_command("yank", "me/a@1.1.0", "--registry", place).status == 0
    assert opened(place).resolve("me/a").version == "1.0.0"
    assert pull("me/a", registry=place).path.read_bytes() == b"native 1.0.0"
    repository = hub.storage.get("me/hub")
    assert repository.files("main")["index.json"].data == shards.MARKER.dumps()
    assert {path for path in repository.files("main") if path.startswith("index/")} == {
        shards.path_of(name) for name in ["me/a", *(["first"] if old else [])]
    }
    assert not repository.tags
    assert type_command("index", "pack", place, "-q").out == f"{place}\n"
    assert list(opened(place).names("me/")) == ["me/a"]


def test_no_listing_of_a_sharded_repository_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    place = "hf://me/hub"
    type_command("index", "shard", place)
    hub.requests.clear()
    publish(place, tmp_path, "me/a")
    opened(place).find("me/a")
    about = [request for request in hub.requests if request.path.startswith("/api/models/me/hub")]
    assert all("expand" in request.query for request in about if request.method == "GET")
    hub.requests.clear()
    opened(place).find("me/a")
    assert len(hub.requests) == 2


def test_of_sixteen_publishers_to_a_sharded_repository_none_is_lost(hub: Hub, tmp_path: Path) -> None:
    place = "hf://me/hub"
    type_command("index", "shard", place)
    names = [f"a-{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda name: publish(place, tmp_path, name), names))
    assert [opened(place).find(name) for name in names] == names


def test_the_repository_of_one_adapter_is_not_sharded(hub: Hub, tmp_path: Path) -> None:
    publisher_at("hf://me/a", settings=Settings.load()).publish(a_publication(tmp_path / "s"))
    typed = type_command("index", "shard", "hf://me/a")
    assert (typed.status, "is the repository of one adapter" in typed.err) == (1, True)


def test_what_publishes_to_one_file_refuses_a_sharded_index(tmp_path: Path) -> None:
    publication = a_publication(tmp_path / "s")
    artifacts = tuple(offer.record("x") for offer in publication.offers)
    for change in (publication, Yank(name="me/a", version="1.0.0")):
        with pytest.raises(UnsupportedError, match="keeps its entries in one file per name"):
            change.added_to(shards.MARKER, artifacts)


# The commands.


def test_index_check_tells_what_is_wrong_with_shards(place: Path) -> None:
    assert type_command("index", "check", str(place), "--no-files").status == 0
    (place / shards.path_of("sst-2")).unlink()
    typed = type_command("index", "check", str(place), "--no-files")
    assert (typed.status, f"{shards.path_of('sst-2')} is missing" in typed.err) == (5, True)
    (place / shards.path_of("sst-2")).write_bytes(Index(alias_of=("nli",)).dumps())
    shutil.copy(place / shards.path_of("nli"), place / shards.path_of("movies"))
    typed = type_command("index", "check", str(place), "--no-files")
    assert typed.status == 5
    assert f"{shards.path_of('sst-2')} is not what it should be" in typed.err
    assert f"{shards.path_of('movies')} is not what it should be" in typed.err


def test_an_alias_that_a_dead_process_left_is_no_fault_and_goes_with_its_next_owner(place: Path) -> None:
    def left(alias: str, *owners: str) -> None:
        (place / shards.path_of(alias)).parent.mkdir(exist_ok=True)
        (place / shards.path_of(alias)).write_bytes(Index(alias_of=owners).dumps())

    left("ghost", "nli", "nobody")
    left("sst-2", "sst2-bert", "nli")
    assert type_command("index", "check", str(place), "--no-files").status == 0
    assert opened(place).find("sst-2") == "sst2-bert"

    def change(index: Index) -> Index:
        artifact = index.entry("movies").versions["1.0.0"].artifacts[0]
        return index.add("movies", "1.0.0", artifact, published="", aliases=("ghost",))

    editing.edit(place / "index.json", ["movies", "ghost"], change)
    assert opened(place).find("ghost") == "movies"
    assert shards.parse((place / shards.path_of("ghost")).read_bytes(), "x").alias_of == ("movies",)


def test_a_dry_run_shards_and_packs_nothing(many: Path, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = files(many)
    said = type_command("index", "pack", str(many), "--dry-run", "--json").json
    assert files(many) == before
    assert type_command("index", "pack", str(many), "--json").json == {**said, "dry_run": False}
    flat = tmp_path / "flat"
    publisher_at(str(flat), settings=Settings.load(), create=True).publish(a_publication(tmp_path / "s"))
    before = files(flat)
    assert type_command("index", "shard", str(flat), "--dry-run").out == f"{flat} would keep its index in 1 file\n"
    assert files(flat) == before


def test_what_cannot_be_sharded_or_packed_says_why(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(an_index(NAMED))
    typed = type_command("index", "pack", str(tmp_path))
    assert (typed.status, "has one index file, which needs no other" in typed.err) == (1, True)
    assert type_command("index", "shard", "https://host/hub").status == 6
    assert type_command("index", "pack", "https://host/hub").status == 6
    assert type_command("index", "pack", "s3://bucket/hub", "--offline").status == 7
    assert type_command("index", "pack", str(tmp_path / "none")).status == 3
    assert type_command("index", "shard", "bundled").status == 2


def test_list_and_search_work_on_a_sharded_folder(place: Path) -> None:
    for command in (("list",), ("search", "movie"), ("list", "-q")):
        assert "sst2-bert" in type_command(*command, "--registry", str(place)).out
