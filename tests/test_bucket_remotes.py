"""The remote of buckets, on each kind of store, one that works and one that fails: the right bytes or a named error."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_places import BUSY, Shop
from cli_session import type_command
from local_server import Answer, Fault, Proxy, Request, once, running
from publications import is_right, publish
from remote_cases import BIG, FOLDER, a_file, a_registry

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    DigestError,
    NotFoundError,
    OfflineError,
    StateError,
    UsageError,
)
from adapterhub.registry import (
    Index,
    Settings,
    Yank,
    buckets,
    conditions,
    open_registry,
    publisher_at,
    pull,
    schemes,
    sharding,
    shards,
    streaming,
)

pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """A registry of a few files."""
    shop.fill()
    return shop


@pytest.fixture
def proxy(filled: Shop) -> Iterator[Proxy]:
    """The same store, behind a proxy that may be told to fail."""
    with running(Proxy(filled.address)) as found:
        filled.at(found.url)
        yield found
        filled.at(filled.address)


def test_every_kind_of_store_has_a_client() -> None:
    assert tuple(buckets.stores()) == schemes.BUCKETS


# A store that works.


def test_a_bucket_is_a_registry(filled: Shop) -> None:
    assert pull("big", registry=filled.url).path.read_bytes() == BIG
    path = pull("lora", registry=f"{filled.url}/index.json").path
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FOLDER


def test_an_index_that_has_not_changed_is_not_sent_again(proxy: Proxy, filled: Shop) -> None:
    sent: list[Answer] = []

    def watch(request: Request) -> Answer | None:
        if not request.path.endswith("index.json"):
            return None
        sent.append(proxy.proper(request))
        return sent[-1]

    proxy.faults.append(watch)
    open_registry(filled.url)
    open_registry(filled.url)
    assert [answer.status for answer in sent] == [200, 304]
    filled.put("index.json", Index().dumps())
    assert len(open_registry(filled.url).index) == 0


def test_without_the_network_what_is_here_is_used_and_nothing_is_sent(proxy: Proxy, filled: Shop) -> None:
    pull("big", registry=filled.url)
    count = len(proxy.requests)
    assert pull("big", registry=filled.url, offline=True).path.read_bytes() == BIG
    with pytest.raises(OfflineError) as caught:
        pull("lora", registry=filled.url, offline=True)
    assert caught.value.exit_code == 7
    with pytest.raises(OfflineError):
        publisher_at(filled.url, settings=Settings.load(offline=True))
    assert len(proxy.requests) == count


def test_a_registry_is_made_only_if_asked_for(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=rf"there is no registry at {shop.url}; --create makes one"):
        publish(shop.url, tmp_path)
    assert publish(shop.url, tmp_path, create=True)
    assert pull("me/a", registry=shop.url).path.read_bytes() == b"native bytes"


def test_a_sharded_index_is_published_to_name_by_name(proxy: Proxy, filled: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "index.json").write_bytes(a_registry()["index.json"])
    sharding.shard(folder)
    for path in folder.rglob("*.json"):
        filled.put(path.relative_to(folder).as_posix(), path)
    with ThreadPoolExecutor(8) as pool:
        names = [f"me/{'a' if number % 2 else 'b'}" for number in range(8)]
        versions = [f"1.0.{number}" for number in range(8)]
        assert all(pool.map(lambda name, version: publish(filled.url, tmp_path, name, version), names, versions))
    index = open_registry(filled.url).index
    assert [len(index.entry(name).versions) for name in ("me/a", "me/b", "big")] == [4, 4, 1]
    assert is_right(filled.url, "me/b", "1.0.2")
    assert Index.loads(filled.data("index.json")).layout
    proxy.requests.clear()
    assert not publish(filled.url, tmp_path, "me/a", "1.0.1")
    with pytest.raises(StateError, match="never change"):
        publish(filled.url, tmp_path, "me/a", "1.0.1", b"other")
    assert publish(filled.url, tmp_path, "me/c")
    written = {filled.written(request) for request in proxy.requests}
    assert {name for name in written if "/index/" in name} == {(filled.home / shards.path_of("me/c")).key}


def test_a_version_in_a_bucket_can_be_yanked(filled: Shop) -> None:
    change = Yank(name="big", version="1.0.0", reason="broken")
    assert publisher_at(filled.url, settings=Settings.load()).publish(change).new
    assert not publisher_at(filled.url, settings=Settings.load()).publish(change).new
    release = open_registry(filled.url).index.entry("big").versions["1.0.0"]
    assert (release.yanked, release.reason) == (True, "broken")


# One that fails.


def test_one_changed_byte_in_the_store_is_found(filled: Shop) -> None:
    filled.put("files/big-öne.safetensors", bytes([BIG[0] ^ 1]) + BIG[1:])
    with pytest.raises(DigestError) as caught:
        pull("big", registry=filled.url)
    assert caught.value.exit_code == 5


def test_a_broken_download_goes_on_where_it_was(proxy: Proxy, filled: Shop) -> None:
    for cut in (1000, 70_000):
        proxy.faults.append(cutting("safetensors", cut))
    assert pull("big", registry=filled.url).path.read_bytes() == BIG
    ranges = [request.headers.get("range") for request in proxy.requests if request.path.endswith("safetensors")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert len(ranges) == 3


def test_a_download_goes_on_in_the_next_command(proxy: Proxy, filled: Shop) -> None:
    proxy.faults += [cutting("safetensors", 100_000), lambda r: BUSY if r.path.endswith("safetensors") else None]
    with pytest.raises(AdapterHubError, match="answers 503, 5 times"):
        pull("big", registry=filled.url)
    proxy.faults.clear()
    proxy.requests.clear()
    assert pull("big", registry=filled.url).path.read_bytes() == BIG
    assert proxy.requests[-1].headers["range"] == "bytes=100000-"


def cutting(end: str, cut: int) -> Fault:
    """Return a fault that closes the connection once, after so many bytes of what the store sends."""
    done: list[bool] = []

    def fault(request: Request) -> Answer | None:
        if done or not request.path.endswith(end):
            return None
        done.append(True)
        return Answer(BIG, 200, cut=cut)

    return fault


def test_a_store_that_is_busy_for_a_while_is_asked_again(proxy: Proxy, filled: Shop, tmp_path: Path) -> None:
    proxy.faults += [once(BUSY, "index.json", times=2), once(Answer(status=429), "safetensors", times=2)]
    assert pull("big", registry=filled.url).path.read_bytes() == BIG
    busy = once(BUSY, times=3)
    proxy.faults.append(lambda request: busy(request) if filled.written(request) else None)
    assert publish(filled.url, tmp_path)
    assert pull("me/a", registry=filled.url).path.read_bytes() == b"native bytes"


def test_a_store_that_stays_busy_is_given_up_and_nothing_has_changed(
    proxy: Proxy, filled: Shop, tmp_path: Path
) -> None:
    before = filled.data("index.json")
    proxy.faults.append(lambda request: BUSY if filled.written(request).endswith("index.json") else None)
    with pytest.raises(AdapterHubError, match=r"answers 503, 5 times; try again later"):
        publish(filled.url, tmp_path)
    assert sum(filled.written(request).endswith("index.json") for request in proxy.requests) == 5
    proxy.faults.clear()
    assert filled.data("index.json") == before
    assert publish(filled.url, tmp_path)


def test_a_push_reads_the_index_once(proxy: Proxy, filled: Shop, tmp_path: Path) -> None:
    publish(filled.url, tmp_path)
    assert sum(r.method == "GET" and r.path.endswith("index.json") for r in proxy.requests) == 1
    assert sum(filled.written(r).endswith("index.json") for r in proxy.requests) == 1


def test_a_change_whose_answer_was_lost_is_not_made_twice(proxy: Proxy, filled: Shop, tmp_path: Path) -> None:
    lost: list[Answer] = []

    def fault(request: Request) -> Answer | None:
        if not filled.written(request).endswith("index.json") or lost:
            return None
        lost.append(proxy.proper(request))
        return BUSY

    proxy.faults.append(fault)
    publish(filled.url, tmp_path)
    assert lost
    assert lost[0].status in {200, 201}
    assert list(open_registry(filled.url).index.entry("me/a").versions) == ["1.0.0"]


def test_what_is_not_there_is_told_by_its_place(filled: Shop) -> None:
    filled.store.remove([filled.home / "files/big-öne.safetensors"] * 2)
    with pytest.raises(NotFoundError, match=rf"there is no {filled.url}/files/big-öne\.safetensors") as caught:
        pull("big", registry=filled.url)
    assert caught.value.exit_code == 3
    scheme = filled.home.scheme
    for place in (f"{filled.url}/nothing", f"{scheme}://no-such-bucket/x"):
        with pytest.raises(NotFoundError, match=f"there is no registry at {place}"):
            open_registry(place)
    with pytest.raises(NotFoundError):
        publish(f"{scheme}://no-such-bucket/x", Path("sources"), create=True)
    for place in (f"{scheme}:///x", f"{scheme}://{filled.home.bucket}/../x"):
        with pytest.raises(UsageError, match="is no place in a bucket"):
            open_registry(place)


@pytest.mark.parametrize("shop", ["s3", "az"], indirect=True)
def test_who_may_not_read_or_write_is_told_without_the_secret(filled: Shop, tmp_path: Path) -> None:
    before = filled.data("index.json")
    for come in filled.without_rights:
        secret = come()
        with pytest.raises(AuthenticationError) as caught:
            publish(filled.url, tmp_path)
        assert caught.value.exit_code == 4
        assert secret not in str(caught.value)
        assert filled.home.bucket in str(caught.value)
    filled.at(filled.address)
    assert filled.data("index.json") == before


def test_a_store_that_cannot_be_reached_is_given_up(filled: Shop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        filled.at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OfflineError, match="cannot be reached") as caught:
            open_registry(filled.url)
        assert caught.value.exit_code == 7
        with pytest.raises(OfflineError, match="cannot be reached"):
            filled.put("x", b"x")


def test_a_store_that_is_silent_is_given_up(filled: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(streaming, "READ_SECONDS", 0.1)
        monkeypatch.setattr(streaming, "CONNECT_SECONDS", 0.1)
        monkeypatch.setattr(streaming, "TRIES", 2)
        streaming.client.cache_clear()
        filled.at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OfflineError, match="cannot be reached"):
            filled.put("x", b"x")
        with pytest.raises(OfflineError, match="cannot be reached"):
            filled.data("x")
    streaming.client().close()
    streaming.client.cache_clear()


PULL = """
import sys
from adapterhub.registry import open_registry, pull
opened = open_registry(sys.argv[1])
print("ready", flush=True)
pull("large", registry=opened)
pull("lora", registry=opened)
"""


@pytest.mark.parametrize(
    ("shop", "times"),
    [pytest.param("s3", 50, marks=pytest.mark.slow), ("s3", 6), ("az", 2), ("gs", 2)],
    indirect=["shop"],
)
def test_a_pull_that_is_killed_leaves_a_store_that_works(filled: Shop, times: int) -> None:
    data, chance = os.urandom(8_000_000), random.Random(times)
    filled.put("large", data)
    index = Index.loads(a_registry()["index.json"])
    filled.put("index.json", index.add("large", "1.0.0", a_file("large", data), published="2026-01-01").dumps())
    cache = Settings.load().cache
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", PULL, filled.url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert pull("large", registry=filled.url).path.read_bytes() == data
        assert (pull("lora", registry=filled.url).path / "adapter_config.json").read_bytes() == FOLDER[
            "adapter_config.json"
        ]
        # The next one begins anew; what other processes left in tmp/ is kept for a day.
        for name in ("objects", "artifacts"):
            shutil.rmtree(cache / name)


# What lies around.


def test_trials_of_publishers_that_died_are_removed_and_those_of_others_are_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = shop.home / f"{conditions.TRIAL}left"
    shop.store.put(left, b"1")
    assert publish(shop.url, tmp_path, create=True)
    assert left in shop.store.listed(shop.home / conditions.TRIAL)
    monkeypatch.setattr(conditions, "LEFTOVER_SECONDS", -1.0)
    assert publish(shop.url, tmp_path, version="1.0.1")
    assert shop.store.listed(shop.home / conditions.TRIAL) == []


def test_what_a_dead_publisher_left_of_other_bytes_goes_with_the_next_push(shop: Shop, tmp_path: Path) -> None:
    publish(shop.url, tmp_path, create=True)
    native, peft = open_registry(shop.url).index.entry("me/a").versions["1.0.0"].artifacts
    others = "adapters/me/a/1.1.0/x/peft/1/y"
    for path in (f"{peft.url.rpartition('/')[0]}/0123/adapter_config.json", others):
        shop.put(path, b"other")
    assert not publish(shop.url, tmp_path)
    assert shop.paths("adapters") == {native.url, *(f"{peft.url}/{file.path}" for file in peft.files), others}


# All that is done with registries.


def test_what_is_locked_is_the_same_on_another_machine(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shop.url, tmp_path, create=True)
    (tmp_path / "adapterhub.toml").write_text(f'registry = "{shop.url}"\n[adapters]\nours = "me/a@^1"\n')
    typed = type_command("lock")
    assert typed.status == 0, typed.err
    publish(shop.url, tmp_path, version="1.1.0", data=b"later")
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "another machine"))
    typed = type_command("sync", "--frozen")
    assert typed.status == 0, typed.err
    typed = type_command("pull", "ours", "--frozen", "--offline", "-q")
    assert Path(typed.out.strip()).read_bytes() == b"native bytes"
    path = open_registry(shop.url).index.entry("me/a").versions["1.0.0"].artifacts[0].url
    shop.put(path, b"native bytez")
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "third machine"))
    assert type_command("sync", "--frozen").status == 5


def test_a_mirror_of_a_bucket_is_a_registry(shop: Shop, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(shop.url, tmp_path, version=version, data=version.encode(), create=True)
    for artifacts in ([4], []):
        typed = type_command("index", "mirror", shop.url, str(tmp_path / "mirror"), "--json")
        assert (typed.status, [one["artifacts"] for one in typed.json["copied"]]) == (0, artifacts), typed.err
    assert is_right(str(tmp_path / "mirror"), "me/a", "1.1.0", b"1.1.0")
