"""Looking things up: in memory and in a database the same is found, and a database never answers for another index."""

from __future__ import annotations

import difflib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterhub import schemas
from adapterhub.errors import NotFoundError, SchemaError, StateError, UsageError
from adapterhub.registry import (
    Index,
    Lookup,
    database,
    database_making,
    derived,
    matching,
    nearest,
    open_registry,
    stamps,
)
from adapterhub.registry.database import IndexDatabase

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
BASES = (("google-bert/bert-base-uncased", "bert"), ("FacebookAI/roberta-base", "roberta"), ("acme/bert", "bert"))
METHODS = ("seq_bn", "double_seq_bn[reduction_factor=8]+layer_norm", "LoRA[r=4]")
DIGEST = "sha256:" + "0" * 64


def an_entry(base: int = 0, method: int = 0, **fields: Any) -> dict[str, Any]:
    identity, architecture = BASES[base]
    artifact = {
        "base": {"id": identity, "architecture": architecture},
        "method": METHODS[method],
        "format": "native",
        "url": "a.safetensors",
        "digest": DIGEST,
        "size": 1,
    }
    return {**fields, "versions": {"1.0.0": {"published": "2026-01-01", "artifacts": [artifact]}}}


def an_index(entries: dict[str, Any]) -> bytes:
    return schemas.dumps({"format": 1, "adapters": entries})


NAMED = {
    "sst2-bert": an_entry(summary="Movie reviews", task="sentiment/sst-2", aliases=["sst-2", "sentiment/sst-2@ukp"]),
    "sst2-roberta": an_entry(1, 1, summary="Crème brûlée reviews", task="sentiment/sst-2", license="MIT"),
    "movies": an_entry(2, 2, summary="SST again", task="sentiment", license="Apache-2.0", language=["en", "pt-BR"]),
    "nli": an_entry(0, 1, summary="", task="nli/mnli", aliases=["@ukp/bert-base-uncased_nli_multinli_pfeiffer"]),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which every index, however small, gets a database."""
    monkeypatch.setattr(derived, "LARGE", 0)
    return tmp_path / "cache"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "index.json"
    path.write_bytes(an_index(NAMED))
    return path


def settle(monkeypatch: pytest.MonkeyPatch, seconds: float = 60) -> None:
    """Let the clock go on, so that what was written before has settled."""
    later = time.time_ns() + int(seconds * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: later)


def databases(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "lookup").glob("*.sqlite"))


def in_memory(data: bytes) -> IndexDatabase:
    connection = database.in_memory()
    database_making.prepare(connection)
    database_making.fill(connection, Index.loads(data).adapters.raw)
    return IndexDatabase(connection, lambda: connection)


# Both find the same.

WORDS = (
    "sst",
    "SST-2",
    "sst-2@ukp",
    "bert",
    "movie",
    "reviews",
    "creme",
    "brûlée",
    "double_seq_bn",
    "é",
    "日本",
    "",
    "-",
)
LETTERS = st.text('abst2-é日 ¦"*', max_size=8)
NAMES = st.from_regex(r"[ab2s](?:[ab2s.-]{0,6}[ab2s])?", fullmatch=True)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the entries of an index in which names, aliases and words collide."""
    found = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=12, unique=True)):
        fields = {
            "summary": " ".join(draw(st.lists(st.sampled_from(WORDS) | LETTERS, max_size=3))),
            "task": draw(st.sampled_from(("", "sentiment", "sentiment/sst-2", "Sentiment/x/", "nli/mnli"))),
            "license": draw(st.sampled_from(("", "MIT", "Apache-2.0"))),
            "aliases": draw(
                st.lists(
                    st.one_of(NAMES.map(str.upper), NAMES.map("@{}".format), NAMES.map("{}@a".format)),
                    max_size=2,
                    unique=True,
                )
            ),
        }
        found[name] = an_entry(draw(st.integers(0, 2)), draw(st.integers(0, 2)), **fields)
    return found


QUERIES = st.lists(st.sampled_from(WORDS) | LETTERS | NAMES, max_size=3)


@settings(STEADY, max_examples=100)
@given(
    entries(),
    QUERIES,
    st.sampled_from((None, "sentiment", "SENTIMENT/sst-2", "sentiment/", "s")),
    st.sampled_from((None, "bert", "Google-BERT/bert-base-uncased", "roberta-base", "gpt2")),
    st.sampled_from((None, "seq_bn", "layer_norm", "lora", "LORA[r=4]", "bn")),
    st.sampled_from((None, "mit", "")),
)
def test_a_search_finds_the_same_in_memory_and_in_a_database(
    found: dict[str, Any],
    words: list[str],
    task: str | None,
    base: str | None,
    method: str | None,
    license: str | None,  # noqa: A002
) -> None:
    data = an_index(found)
    sources: list[Lookup] = [Index.loads(data), in_memory(data)]
    one, other = (list(x.search(words, task=task, base=base, method=method, license=license)) for x in sources)
    assert one == other


@settings(STEADY, max_examples=100)
@given(entries(), NAMES | LETTERS.filter(bool) | NAMES.map(str.upper))
def test_a_name_leads_to_the_same_in_memory_and_in_a_database(found: dict[str, Any], name: str) -> None:
    data = an_index(found)
    index, kept = Index.loads(data), in_memory(data)
    assert kept.owners(name) == index.owners(name)
    assert kept.of_organisations(name) == index.of_organisations(name)
    assert kept.near(name) == index.near(name)
    assert list(kept.names(name)) == list(index.names(name))
    assert list(kept.names()) == list(index.names()) == sorted(found)
    assert len(kept) == len(index)
    assert {each: kept.entry(each) for each in found} == {each: index.entry(each) for each in found}


def both() -> list[Lookup]:
    return [Index.loads(an_index(NAMED)), in_memory(an_index(NAMED))]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["SST-2"], ["sst2-bert", "sst2-roberta"]),  # called so; then in the task
        (["sst"], ["sst2-bert", "sst2-roberta", "movies"]),  # in the name, then in the summary
        (["bert"], ["nli", "sst2-bert", "movies"]),  # in an alias, in the name; then in the base model
        (["reviews"], ["sst2-bert", "sst2-roberta"]),
        (["review", "movie"], ["sst2-bert"]),
        (["creme", "BRULEE"], ["sst2-roberta"]),
        (["double_seq"], ["nli", "sst2-roberta"]),
        (["roberta", "sentiment"], ["sst2-roberta"]),
        (["views"], []),  # only the beginning of a word counts
        (["mnli"], ["nli"]),
        (["again sst"], []),  # a word with a blank is a phrase
        (["sst again"], ["movies"]),
        (["br"], ["sst2-roberta", "movies"]),  # also in pt-BR
        (["-", "movies"], ["movies"]),  # what has neither letter nor digit is not looked for
        (["-"], []),
        (["movies", 'OR "'], []),
        ([], ["movies", "nli", "sst2-bert", "sst2-roberta"]),
    ],
)
def test_words_are_found_from_their_beginning_and_names_come_first(words: list[str], found: list[str]) -> None:
    for lookup in both():
        assert list(lookup.search(words)) == found


def test_filters_for_base_and_method_have_to_fit_one_artifact() -> None:
    two = an_entry(0, 0)
    two["versions"]["1.0.0"]["artifacts"].append({**an_entry(1, 1)["versions"]["1.0.0"]["artifacts"][0], "format": "x"})
    data = an_index({"two": two})
    for lookup in (Index.loads(data), in_memory(data)):
        assert list(lookup.search(base="bert", method="seq_bn")) == ["two"]
        assert list(lookup.search(base="roberta", method="layer_norm")) == ["two"]
        assert list(lookup.search(base="roberta", method="seq_bn")) == []


@pytest.mark.parametrize(
    "text",
    [
        '"',
        '""',
        "*",
        "(",
        "a AND",
        "NOT",
        "NEAR(a b)",
        "names:sst2",
        "{names} : a",
        "^a",
        "a + b",
        "-a",
        "a\x00b",
        "\ud800",
    ],
)
def test_nothing_that_is_typed_has_a_meaning_for_the_database(text: str) -> None:
    index, kept = both()
    assert list(kept.search([text])) == list(index.search([text]))
    assert list(kept.search(["sst", text])) == list(index.search(["sst", text]))
    assert kept.owners(text) == []
    assert kept.near(text) == index.near(text)


def test_a_thousand_words_are_no_more_than_one() -> None:
    for lookup in both():
        assert list(lookup.search(["sst", *(f"w{i}" for i in range(1000))])) == []
        assert list(lookup.search(["sst2"] * 1000)) == ["sst2-bert", "sst2-roberta"]


@given(st.text())
@settings(STEADY)
def test_a_plain_text_is_plain(text: str) -> None:
    assert matching.plain(matching.plain(text)) == matching.plain(text)


def test_names_are_resolved_and_refused_alike() -> None:
    for lookup in both():
        assert lookup.find("SENTIMENT/sst-2@UKP") == "sst2-bert"
        assert lookup.find("ukp/bert-base-uncased_nli_multinli_pfeiffer") == "nli"
        assert lookup.resolve("sst-2@^1").artifact.digest == DIGEST
        with pytest.raises(NotFoundError) as caught:
            lookup.find("sst2-brt")
        assert caught.value.hint == "did you mean sst2-bert or sst2-roberta?"
        with pytest.raises(KeyError):
            lookup.entry("sst-2")
    claimed = an_index({"a": an_entry(aliases=["x"]), "b": an_entry(aliases=["X"])})
    for lookup in (Index.loads(claimed), in_memory(claimed)):
        with pytest.raises(UsageError, match="'x' is another name of a and b; name one of them"):
            lookup.find("x")


def test_among_many_names_only_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    names = {"".join(rng.choices("abcdefghij", k=8)) for _ in range(5_000)} | {"sentiment-bert"}
    kept = in_memory(an_index({name: an_entry() for name in names}))
    compared: list[int] = []
    close = difflib.get_close_matches

    def counted(word: str, possibilities: list[str], n: int, cutoff: float) -> list[str]:
        compared.append(len(possibilities))
        return close(word, possibilities, n=n, cutoff=cutoff)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    for typed in ("sentimnet-bert", "sentimentbert", "entiment-bert", "sentiment_bert"):
        assert kept.near(typed) == ["sentiment-bert"]
    assert max(compared) <= nearest.CANDIDATES
    assert kept.near("zzz") == kept.near("z" * 1000) == []


# A database answers for its own index only.


def renamed(data: bytes, number: int) -> bytes:
    """Return an index of the same size in which sst2-bert is called otherwise."""
    return data.replace(b'"sst2-bert"', f'"{number:04d}-bert"'.encode())


@pytest.mark.parametrize("way", ["written over", "replaced"])
def test_changes_in_quick_succession_are_all_seen(place: Path, cache: Path, way: str) -> None:
    data = place.read_bytes()
    for number in range(1000, 1040):
        if way == "written over":
            place.write_bytes(renamed(data, number))
        else:
            (place.parent / "new").write_bytes(renamed(data, number))
            (place.parent / "new").replace(place)
        os.utime(place, ns=(10**18, 10**18))
        found = derived.open_index(place, cache)
        assert isinstance(found, IndexDatabase)
        assert found.owners(f"{number:04d}-bert") == [f"{number:04d}-bert"]
    assert not list((cache / "lookup").glob("*.stamp"))


def test_a_settled_index_is_not_read_again(place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = stamps.read

    def noted(path: Path) -> tuple[bytes, stamps.Look | None]:
        read.append(path)
        return original(path)

    monkeypatch.setattr(stamps, "read", noted)
    for expected in (1, 2):  # still too new
        assert derived.open_index(place, cache).owners("sst-2") == ["sst2-bert"]
        assert len(read) == expected
    settle(monkeypatch)
    for _ in range(3):
        assert derived.open_index(place, cache).owners("sst-2") == ["sst2-bert"]
        assert len(read) == 3


@pytest.mark.parametrize("time_kept", [True, False])
def test_a_change_after_settling_is_seen_whatever_its_size_and_time(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, time_kept: bool
) -> None:
    settle(monkeypatch)
    derived.open_index(place, cache)
    before = place.stat()
    assert len(databases(cache)) == 1
    time.sleep(0.02)  # longer than a tick of the file system's clock
    place.write_bytes(renamed(place.read_bytes(), 7))
    if time_kept:
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.stat().st_size == before.st_size
    assert next(derived.open_index(place, cache).names()) == "0007-bert"
    assert len(databases(cache)) == 1  # the old one is gone


def test_an_index_that_changes_back_finds_its_database_again(place: Path, cache: Path) -> None:
    data = place.read_bytes()
    derived.open_index(place, cache)
    place.write_bytes(renamed(data, 1))
    derived.open_index(place, cache)
    made = {path: path.stat().st_ino for path in (cache / "lookup").glob("*.sqlite")}
    assert len(made) == 2
    place.write_bytes(data)
    assert derived.open_index(place, cache).owners("sst-2") == ["sst2-bert"]
    assert {path: path.stat().st_ino for path in (cache / "lookup").glob("*.sqlite")} == made


def test_two_places_with_the_same_index_share_a_database(place: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.json").write_bytes(place.read_bytes())
    for path in (place, tmp_path / "b" / "index.json"):
        assert derived.open_index(path, cache).find("sst-2") == "sst2-bert"
    assert len(databases(cache)) == 1


def test_databases_that_no_index_needs_are_removed(
    place: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(renamed(place.read_bytes(), 1))
    settle(monkeypatch)
    derived.open_index(other, cache)
    derived.open_index(place, cache)
    assert len(databases(cache)) == 2
    left = cache / "lookup" / "left.tmp"
    left.touch()
    os.utime(left, (1, 1))
    other.unlink()
    for path in (cache / "lookup").glob("*.sqlite"):
        os.utime(path, (1, 1))
    time.sleep(0.02)
    place.write_bytes(renamed(place.read_bytes(), 2))
    derived.open_index(place, cache)
    assert len(databases(cache)) == 1
    assert not left.exists()


def test_an_invalid_index_gets_no_database(place: Path, cache: Path) -> None:
    place.write_bytes(place.read_bytes().replace(b"sha256:", b"md5:"))
    for _ in range(2):
        with pytest.raises(SchemaError, match="is not a digest"):
            derived.open_index(place, cache)
    assert databases(cache) == []
    assert [path.name for path in (cache / "lookup").iterdir()] == ["lock"]


def test_another_schema_or_layout_makes_another_database(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    derived.open_index(place, cache)
    first = databases(cache)
    monkeypatch.setattr(schemas, "mark", lambda name: "another")
    derived.open_index(place, cache)
    second = databases(cache)
    monkeypatch.setattr(database, "LAYOUT", 2)
    monkeypatch.setattr(database_making, "LAYOUT", 2)
    derived.open_index(place, cache)
    assert len({*first, *second, *databases(cache)}) == 3


def test_a_small_index_gets_no_database(place: Path, tmp_path: Path) -> None:
    assert isinstance(derived.open_index(place, tmp_path / "cache"), Index)
    assert not (tmp_path / "cache").exists()


def test_the_limit_is_the_size_of_the_file(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "LARGE", place.stat().st_size)
    assert isinstance(derived.open_index(place, tmp_path / "cache"), IndexDatabase)
    monkeypatch.setattr(derived, "LARGE", place.stat().st_size + 1)
    assert isinstance(derived.open_index(place, tmp_path / "cache"), Index)


def test_an_odd_path_is_no_matter(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "LARGE", 0)
    cache = tmp_path / "a?b#c%20d é"
    for _ in range(2):
        assert isinstance(derived.open_index(place, cache), IndexDatabase)
    assert len(databases(cache)) == 1


# Damage.


def answers(lookup: Lookup) -> list[object]:
    """Return what every kind of question is answered."""
    names = list(lookup.names())
    return [
        names,
        len(lookup),
        {name: lookup.entry(name).to_json() for name in names},
        [lookup.owners(name) for name in ("sst-2", "SST2-bert", "nix")],
        [lookup.near(name) for name in ("sst2-brt", "mov", "nix")],
        [list(lookup.search(words)) for words in ([], ["sst"], ["bert", "movie"], ["adapter"])],
        list(lookup.search(task="sentiment", base="bert", method="seq_bn", license="mit")),
    ]


@pytest.fixture
def several(place: Path, cache: Path) -> tuple[Path, list[object]]:
    """An index of some pages with its database, and the right answers."""
    more = {f"adapter-{i}": an_entry(i % 3, i % 3, summary=f"number {i}", task="sentiment/x") for i in range(60)}
    place.write_bytes(an_index({**NAMED, **more}))
    assert isinstance(derived.open_index(place, cache), IndexDatabase)
    (path,) = (cache / "lookup").glob("*.sqlite")
    path.chmod(0o644)
    return path, answers(Index.load(place))


def put_right(place: Path, cache: Path, several: tuple[Path, list[object]]) -> None:
    """Check that a damaged database answers rightly and is a good one afterwards."""
    path, right = several
    assert answers(derived.open_index(place, cache)) == right
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    path.chmod(0o644)


def test_a_database_that_was_cut_is_made_anew(place: Path, cache: Path, several: tuple[Path, list[object]]) -> None:
    whole = several[0].stat().st_size
    for size in (0, 1, 100, 4096, 5000, whole // 2, whole - 4096, whole - 1):
        os.truncate(several[0], size)
        put_right(place, cache, several)


def test_a_database_with_any_page_gone_is_made_anew(
    place: Path, cache: Path, several: tuple[Path, list[object]]
) -> None:
    for start in range(0, several[0].stat().st_size, 4096):
        with several[0].open("r+b") as file:
            file.seek(start)
            file.write(b"\xff" * 4096)
        assert answers(derived.open_index(place, cache)) == several[1]
        derived.open_index(place, cache)
        several[0].chmod(0o644)


def test_something_else_in_the_place_of_a_database_is_replaced(
    place: Path, cache: Path, several: tuple[Path, list[object]]
) -> None:
    several[0].write_bytes(os.urandom(100_000))
    put_right(place, cache, several)
    several[0].unlink()
    with closing(sqlite3.connect(several[0])) as connection:
        connection.execute("CREATE TABLE entries (id)")
    put_right(place, cache, several)
    several[0].write_bytes(b"")
    put_right(place, cache, several)


def test_a_changed_entry_is_noticed_by_its_check_sum(
    place: Path, cache: Path, several: tuple[Path, list[object]]
) -> None:
    data = several[0].read_bytes()
    assert data.count(b'"size":1') > 60
    several[0].write_bytes(data.replace(b'"size":1', b'"size":7'))
    put_right(place, cache, several)


def test_damage_that_cannot_be_repaired_on_the_disk_is_repaired_in_memory(
    place: Path, cache: Path, several: tuple[Path, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = derived.open_index(place, cache)
    several[0].write_bytes(several[0].read_bytes().replace(b'"size":1', b'"size":7'))

    def refused(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(derived.Derived, "_made", refused)
    assert answers(found) == several[1]


def test_damage_to_an_index_that_has_changed_meanwhile_is_an_error(
    place: Path, cache: Path, several: tuple[Path, list[object]]
) -> None:
    found = derived.open_index(place, cache)
    several[0].write_bytes(several[0].read_bytes().replace(b'"size":1', b'"size":7'))
    place.write_bytes(renamed(place.read_bytes(), 1))
    with pytest.raises(StateError, match="was changed while it was read; try again"):
        found.entry("nli")


def test_a_stamp_that_cannot_be_read_is_no_stamp(place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    derived.open_index(place, cache)
    (stamp,) = (cache / "lookup").glob("*.stamp")
    for text in ("", "{", "[]", "null", '{"path": 1}', '{"path": "x", "look": 5, "belongs": "y"}'):
        stamp.write_text(text)
        assert derived.open_index(place, cache).owners("sst-2") == ["sst2-bert"]
    (cache / "lookup" / databases(cache)[0]).unlink()
    assert derived.open_index(place, cache).owners("sst-2") == ["sst2-bert"]
    assert len(databases(cache)) == 1


# Where no database can be kept.


def test_without_a_cache_the_index_is_read_as_a_whole(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(derived, "LARGE", 0)
    (tmp_path / "file").touch()
    found = derived.open_index(place, tmp_path / "file" / "cache")
    assert isinstance(found, Index)
    assert found.find("sst-2") == "sst2-bert"
    (record,) = caplog.records
    assert "every command reads it as a whole" in record.getMessage()


def test_a_read_only_cache_gives_the_database_that_it_has_and_makes_no_other(
    as_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "LARGE", 0)
    place, cache = as_nobody / "index.json", as_nobody / "cache"
    place.write_bytes(an_index(NAMED))
    assert isinstance(derived.open_index(place, cache), IndexDatabase)
    (cache / "lookup").chmod(0o555)
    (cache / "lookup" / "lock").chmod(0o444)
    assert isinstance(derived.open_index(place, cache), IndexDatabase)
    assert not list((cache / "lookup").glob("*.stamp"))
    place.write_bytes(renamed(an_index(NAMED), 1))
    found = derived.open_index(place, cache)
    assert isinstance(found, Index)
    assert found.find("sst-2") == "0001-bert"


def test_an_sqlite_that_lacks_a_part_is_not_used(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "SQLITE", (99, 0))
    assert isinstance(derived.open_index(place, cache), Index)
    assert "this SQLite cannot search texts" in caplog.text


def test_a_python_without_sqlite_reads_the_index_as_a_whole(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    assert isinstance(derived.open_index(place, cache), Index)


FULL = """
import resource, sys
from pathlib import Path
from adapterhub.registry import derived
derived.LARGE = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
found = derived.open_index(Path(sys.argv[1]), Path(sys.argv[2]))
print(type(found).__name__, found.find("sst-2"))
"""


def test_a_full_disk_is_no_reason_to_fail(place: Path, cache: Path) -> None:
    out, error = start(FULL, place, cache).communicate()
    assert out == "Index sst2-bert\n"
    assert "no look-up of" in error
    assert [path.name for path in (cache / "lookup").iterdir()] == ["lock"]


# Other processes.

OPEN = """
import sys, time
from pathlib import Path
from adapterhub.registry import derived
derived.LARGE = 0
def slow(done, total):
    print("making", flush=True)
    time.sleep(float(sys.argv[3]))
found = derived.open_index(Path(sys.argv[1]), Path(sys.argv[2]), slow)
print(type(found).__name__, found.find("sst-2"))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_several_processes_one_makes_the_database_and_all_have_it(place: Path, cache: Path) -> None:
    processes = [start(OPEN, place, cache, 0.5) for _ in range(6)]
    said = [process.communicate() for process in processes]
    assert [error for _, error in said] == [""] * 6
    assert [out.splitlines()[-1] for out, _ in said] == ["IndexDatabase sst2-bert"] * 6
    assert sum("making" in out for out, _ in said) == 1
    assert len(databases(cache)) == 1


def test_a_process_killed_in_the_middle_leaves_nothing_that_is_taken_for_a_database(place: Path, cache: Path) -> None:
    process = start(OPEN, place, cache, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert databases(cache) == []
    (left,) = (cache / "lookup").glob("*.tmp")
    assert left.stat().st_size > 0
    begin = time.monotonic()
    assert isinstance(derived.open_index(place, cache), IndexDatabase)
    assert time.monotonic() - begin < 30
    assert len(databases(cache)) == 1


# What a look-up costs, in imports.


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    more = {f"adapter-{i:04d}": an_entry(i % 3, summary=f"number {i}") for i in range(1000)}
    (folder / "index.json").write_bytes(an_index({**NAMED, **more}))
    assert (folder / "index.json").stat().st_size > derived.LARGE
    return folder


COMMAND = """
import json, sys
from adapterhub.cli.application import run
status = run(sys.argv[1:])
sys.stdout = sys.stderr
print(json.dumps([status, sorted(sys.modules)]))
"""


def modules(folder: Path, *arguments: str) -> set[str]:
    environ = {**os.environ, "ADAPTERHUB_CACHE": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments, "--registry", str(folder)],
        env=environ, cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    status, loaded = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    return set(loaded)


@pytest.mark.parametrize("command", [("search", "number", "7"), ("list", "--limit", "3")])
def test_a_look_up_in_a_large_index_loads_what_it_needs(large: Path, command: tuple[str, ...]) -> None:
    modules(large, *command)
    loaded = modules(large, *command)
    assert "sqlite3" in loaded
    heavy = {"torch", "transformers", "huggingface_hub", "jsonschema", "filelock", "difflib", "hashlib", "tempfile"}
    ours = {"adapterhub.adapter", "adapterhub.methods", "adapterhub.converters", "adapterhub.registry.index"}
    ours |= {f"adapterhub.registry.{name}" for name in ("bucket", "s3_client", "azure_client", "gcs_client")}
    ours |= {"adapterhub.registry.oci_client", "adapterhub.registry.oci_versions"}
    if "hashlib" in loaded:  # the index was still too new to be trusted unread
        heavy -= {"hashlib", "filelock"}
    assert loaded & (heavy | ours) == set()


def test_an_opened_registry_is_a_look_up(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(large / "cache"))
    monkeypatch.setattr(derived, "NOTICED", 0)
    told: list[tuple[int, int]] = []
    registry = open_registry(large, progress=lambda done, total: told.append((done, total)))
    assert isinstance(registry.index, IndexDatabase)
    assert told == [(0, 0), (0, 1004)]
    assert list(registry.index.search(["number", "7"]))[:2] == ["adapter-0007", "adapter-0070"]
    assert open_registry(large, progress=lambda *_: pytest.fail("made again")).index.find("nli") == "nli"
