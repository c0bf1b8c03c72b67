"""A sharded index that must be signed: every name, list and search is as it was signed, or it is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from bucket_places import Shop
from cli_session import type_command
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from local_server import StaticHost, running
from publications import publish
from signed_places import sign, trusting
from test_lookup import an_entry, an_index

from adapterhub.errors import (
    DigestError,
    FormatError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    UnsupportedError,
)
from adapterhub.registry import (
    Lookup,
    Settings,
    digest,
    digest_tree,
    open_registry,
    pull,
    sharding,
    shards,
    signed_shards,
    snapshots,
)
from adapterhub.registry.layered import Layered
from adapterhub.registry.snapshots import SIGNED, Signed

pytestmark = [
    pytest.mark.usefixtures("online"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]
COUNT = 300


def entries(count: int) -> dict[str, Any]:
    """Return entries, one of which has an alias."""
    found = {f"n{number:03d}": an_entry(number % 3, number % 3, summary=f"word{number:03d}") for number in range(count)}
    found["n001"]["aliases"] = ["First"]
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sharded registry in a folder."""
    return sharded(tmp_path / "hub", COUNT)


def sharded(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "index.json").write_bytes(an_index(entries(count)))
    sharding.shard(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Return what a registry consists of, without what is hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def opened(place: str | Path, settings: Settings) -> Lookup:
    return open_registry(place, settings=settings).index


# The tree.

FILES = st.dictionaries(
    st.text("abc/", min_size=1, max_size=4), st.integers(0, 3).map(lambda n: f"sha256:{n:064x}"), max_size=40
)


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_tree, "MOST", 2)


@pytest.mark.usefixtures("small_leaves")
class TestTree:
    """Trees with two files in a leaf at most."""

    @examples(deadline=None)
    @given(FILES, FILES)
    def test_a_changed_tree_is_the_one_of_all_files(self, before: dict[str, str], added: dict[str, str]) -> None:
        old = digest_tree.build(before)
        new = digest_tree.changed(old.root, added, old.nodes.__getitem__)
        whole = digest_tree.build({**before, **added})
        assert new.root == whole.root
        assert whole.nodes.keys() <= {**old.nodes, **new.nodes}.keys()

    @examples(deadline=None)
    @given(FILES)
    def test_every_file_is_found_and_no_other(self, known: dict[str, str]) -> None:
        tree = digest_tree.build(dict(reversed(known.items())))
        assert tree == digest_tree.build(known)
        assert dict(digest_tree.files_of(tree.root, tree.nodes.__getitem__)) == known
        for path in [*known, "other", ""]:
            assert digest_tree.find(tree.root, path, tree.nodes.__getitem__) == known.get(path)

    @examples(deadline=None)
    @given(FILES, FILES)
    def test_the_differences_of_two_trees_are_those_of_their_files(
        self, one: dict[str, str], other: dict[str, str]
    ) -> None:
        first, second = digest_tree.build(one), digest_tree.build(other)
        found = digest_tree.differences(first.root, second.root, first.nodes.__getitem__, second.nodes.__getitem__)
        expected = {
            (path, one.get(path), other.get(path)) for path in {*one, *other} if one.get(path) != other.get(path)
        }
        assert set(found) == expected

    def test_one_changed_file_is_found_by_few_nodes(self) -> None:
        known = {f"{number}": f"sha256:{number:064x}" for number in range(1_000)}
        one = digest_tree.build(known)
        other = digest_tree.changed(one.root, {"77": f"sha256:{0:064x}"}, one.nodes.__getitem__)
        read: list[str] = []

        def node(known_digest: str) -> bytes:
            read.append(known_digest)
            return {**one.nodes, **other.nodes}[known_digest]

        assert len(list(digest_tree.differences(one.root, other.root, node, node))) == 1
        assert len(read) <= 4 * len(other.nodes) < 40

    @pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b'{"files": []}'])
    def test_what_is_no_node_is_refused(self, data: bytes) -> None:
        with pytest.raises(FormatError):
            digest_tree.find(digest.of_bytes(data), "a", lambda _: data)
        with pytest.raises(DigestError):
            digest_tree.find(digest.of_bytes(b""), "a", lambda _: data)


# What is right.


def test_a_signed_sharded_index_is_used_by_name_list_and_search(place: Path, keys: Path) -> None:
    assert sign(place, keys)[0].number == 1
    assert not sign(place, keys)[1]
    index = opened(place, trusting(place, keys))
    assert index.find("FIRST") == "n001"
    assert index.entry("n007").summary == "word007"
    assert len(index) == COUNT
    assert list(index.search(["word007"])) == ["n007"]
    assert index.resolve("n299").version == "1.0.0"
    with pytest.raises(NotFoundError, match="did you mean n007"):
        index.find("n0007")


def test_names_that_have_settled_are_found_by_the_database_of_their_tree(
    place: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(place, keys)
    settings = trusting(place, keys)
    assert len(opened(place, settings)) == COUNT
    publish(str(place), tmp_path)
    sign(place, keys)
    read: list[str] = []
    original = signed_shards.SignedShards.held

    def held(self: signed_shards.SignedShards, path: str, expected: str | None) -> bytes | None:
        read.append(path)
        return original(self, path, expected)

    monkeypatch.setattr(signed_shards.SignedShards, "held", held)
    whole = opened(place, settings).whole()
    assert isinstance(whole, Layered)
    assert len(whole) == COUNT + 1
    assert list(whole.search(["me"])) == ["me/a"]
    assert read == [shards.path_of("me/a")]


def test_an_unsigned_publish_shows_by_the_name_and_in_lists_until_it_is_signed(
    place: Path, keys: Path, tmp_path: Path
) -> None:
    sign(place, keys)
    settings = trusting(place, keys)
    publish(str(place), tmp_path)
    assert opened(place, settings).find("n001") == "n001"
    for ask in (lambda index: index.find("me/a"), len):
        with pytest.raises(DigestError, match="it was changed after it was signed"):
            ask(opened(place, settings))
    assert sign(place, keys)[0].number == 2
    assert pull("me/a", registry=open_registry(place, settings=settings)).path.read_bytes() == b"native bytes"


# What is wrong.


def tamper(data: bytes) -> bytes:
    """Return data of the same length with another byte."""
    return data.replace(b"word007", b"wordXXX")


@pytest.mark.parametrize("again", [False, True])
def test_a_shard_that_is_not_the_signed_one_is_refused(place: Path, keys: Path, again: bool) -> None:
    sign(place, keys)
    settings = trusting(place, keys)
    if again:
        len(opened(place, settings))
        opened(place, settings).find("n007")
    path = place / shards.path_of("n007")
    path.write_bytes(tamper(path.read_bytes()))
    with pytest.raises(DigestError) as caught:
        opened(place, settings).find("n007")
    assert caught.value.exit_code == 5
    assert opened(place, settings).find("n008") == "n008"
    assert type_command("index", "verify", str(place)).status == 5
    path.unlink()
    with pytest.raises(DigestError, match="none, as it is not there"):
        opened(place, settings).find("n007")


def test_lists_are_refused_where_a_shard_is_not_the_signed_one(place: Path, keys: Path) -> None:
    sign(place, keys)
    settings = trusting(place, keys)
    path = place / shards.path_of("n007")
    path.write_bytes(tamper(path.read_bytes()))
    with pytest.raises(DigestError):
        len(opened(place, settings))


def test_an_old_shard_among_new_ones_is_noticed(place: Path, keys: Path, tmp_path: Path) -> None:
    publish(str(place), tmp_path)
    sign(place, keys)
    old = (place / shards.path_of("me/a")).read_bytes()
    publish(str(place), tmp_path, version="1.1.0")
    sign(place, keys)
    settings = trusting(place, keys)
    assert opened(place, settings).resolve("me/a").version == "1.1.0"
    (place / shards.path_of("me/a")).write_bytes(old)
    with pytest.raises(DigestError):
        opened(place, settings).resolve("me/a")


def test_an_old_state_of_all_shards_that_was_put_back_is_noticed(place: Path, keys: Path, tmp_path: Path) -> None:
    sign(place, keys)
    old = files(place)
    settings = trusting(place, keys)
    publish(str(place), tmp_path)
    sign(place, keys)
    opened(place, settings)
    shutil.rmtree(place)
    for path, data in old.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    with pytest.raises(IntegrityError, match="older than it has been"):
        opened(place, settings)


def test_a_snapshot_with_the_tree_of_another_is_not_believed(place: Path, keys: Path) -> None:
    sign(place, keys)
    signed = Signed.loads((place / SIGNED).read_bytes())
    other = dataclasses.replace(signed.snapshot, shards=digest_tree.build({}).root)
    (place / SIGNED).write_bytes(dataclasses.replace(signed, snapshot=other).dumps())
    with pytest.raises(IntegrityError, match="is not signed by the key"):
        opened(place, trusting(place, keys))


def test_a_node_that_is_changed_or_missing_is_noticed(place: Path, keys: Path) -> None:
    sign(place, keys)
    settings = trusting(place, keys)
    root = place / snapshots.place_of(Signed.loads((place / SIGNED).read_bytes()).snapshot.shards)
    root.write_bytes(root.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="missing or damaged"):
        opened(place, settings).find("n001")
    root.unlink()
    with pytest.raises(IntegrityError, match="missing or damaged"):
        opened(place, settings).find("n001")


def test_an_index_in_one_file_signed_as_if_it_were_sharded_is_refused(tmp_path: Path, keys: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    (one / "index.json").write_bytes(an_index(entries(3)))
    sign(one, keys)
    sharding.shard(one)
    with pytest.raises(DigestError):
        opened(one, trusting(one, keys))
    sign(one, keys)
    assert len(opened(one, trusting(one, keys))) == 3


def test_a_broken_shard_is_not_signed(place: Path, keys: Path) -> None:
    (place / shards.path_of("n007")).write_bytes(b"{")
    with pytest.raises(FormatError, match=r"n007\.json"):
        sign(place, keys)


# Other places.


@pytest.fixture
def host(place: Path, keys: Path, tmp_path: Path) -> Iterator[StaticHost]:
    """A static host of a signed sharded registry."""
    publish(str(place), tmp_path)
    sign(place, keys)
    with running(StaticHost(files(place))) as found:
        yield found


def test_a_name_at_a_host_costs_the_nodes_above_it_once(host: StaticHost, keys: Path) -> None:
    settings = trusting(host.url, keys)
    assert pull("me/a", registry=open_registry(host.url, settings=settings)).path.read_bytes() == b"native bytes"
    asked = [unquote(request.path)[1:] for request in host.requests]
    assert asked[:2] == ["index.json", SIGNED]
    assert asked[-2] == shards.path_of("me/a")
    assert len(asked) == 6  # root, leaf; shard, and the file itself
    host.requests.clear()
    assert opened(host.url, settings).find("me/a") == "me/a"
    assert [unquote(request.path)[1:] for request in host.requests] == ["index.json", SIGNED]


def test_what_was_read_once_is_there_offline_as_it_was_signed(host: StaticHost, keys: Path) -> None:
    opened(host.url, trusting(host.url, keys)).find("n001")
    host.requests.clear()
    offline = trusting(host.url, keys, offline=True)
    assert opened(host.url, offline).find("n001") == "n001"
    with pytest.raises(OfflineError, match="was never fetched"):
        opened(host.url, offline).find("n002")
    assert host.requests == []


def test_a_host_is_listed_as_it_is_signed_however_old_its_packed_index_is(
    host: StaticHost, keys: Path, place: Path, tmp_path: Path
) -> None:
    settings = trusting(host.url, keys)
    with pytest.raises(UnsupportedError, match="index pack"):
        len(opened(host.url, settings))
    sharding.pack(place)
    host.files[shards.PACKED] = (place / shards.PACKED).read_bytes()
    assert len(opened(host.url, settings)) == COUNT + 1
    publish(str(place), tmp_path, "me/b")
    publish(str(place), tmp_path, "me/a", "1.1.0")
    sign(place, keys)
    host.files |= files(place)
    for fresh in (settings, dataclasses.replace(settings, cache=tmp_path / "fresh")):
        index = opened(host.url, fresh)
        assert len(index) == COUNT + 2
        assert list(index.names("me/")) == ["me/a", "me/b"]
        assert index.whole().resolve("me/a").version == "1.1.0"


def test_a_packed_index_says_nothing_that_is_not_signed(
    host: StaticHost, keys: Path, place: Path, tmp_path: Path
) -> None:
    signed = files(place)
    (place / shards.path_of("n007")).write_bytes(tamper(signed[shards.path_of("n007")]))
    publish(str(place), tmp_path, "me/b")
    sharding.pack(place)
    host.files[shards.PACKED] = (place / shards.PACKED).read_bytes()
    index = opened(host.url, trusting(host.url, keys))
    assert list(index.search(["wordXXX"])) == []
    assert list(index.search(["word007"])) == ["n007"]
    assert list(index.names("me/")) == ["me/a"]


def test_a_shard_of_a_host_that_is_not_the_signed_one_is_refused(host: StaticHost, keys: Path) -> None:
    host.files[shards.path_of("n007")] = tamper(host.files[shards.path_of("n007")])
    settings = trusting(host.url, keys)
    with pytest.raises(DigestError) as caught:
        opened(host.url, settings).find("n007")
    assert caught.value.exit_code == 5
    host.files["index/00/me~evil.json"] = host.files.pop(shards.path_of("n008"))
    with pytest.raises(DigestError, match="none, as it is not there"):
        opened(host.url, settings).find("n008")


def on_the_hub(request: pytest.FixtureRequest, folder: Path) -> str:
    request.getfixturevalue("hub").storage.put("me/registry", files(folder))
    return "hf://me/registry"


def in_a_bucket(request: pytest.FixtureRequest, folder: Path) -> str:
    shop: Shop = request.getfixturevalue("s3")
    for path, data in files(folder).items():
        shop.put(path, data)
    return shop.url


@pytest.mark.parametrize("made", [on_the_hub, in_a_bucket])
def test_sharded_indexes_elsewhere_are_signed_where_they_are(
    request: pytest.FixtureRequest,
    made: Callable[[pytest.FixtureRequest, Path], str],
    keys: Path,
    tmp_path: Path,
) -> None:
    where = made(request, sharded(tmp_path / "few", 5))
    assert sign(where, keys)[0].number == 1
    settings = trusting(where, keys)
    assert opened(where, settings).find("n001") == "n001"
    publish(where, tmp_path)
    with pytest.raises(DigestError):
        opened(where, settings).find("me/a")
    assert sign(where, keys)[0].number == 2
    assert not sign(where, keys)[1]
    registry = open_registry(where, settings=settings)
    assert pull("me/a", registry=registry).path.read_bytes() == b"native bytes"
