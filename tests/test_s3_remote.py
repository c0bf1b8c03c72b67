"""The remote of S3: a real store, one that fails, one that heeds no conditions: the right bytes or a named error."""

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
from urllib.parse import unquote

import pytest
from local_server import Answer, Application, Fault, Proxy, Request, once, running
from publications import is_right, publish
from remote_cases import BIG, FOLDER, a_file, a_registry
from s3_server import SECRET

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    DigestError,
    NotFoundError,
    OfflineError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import (
    Index,
    Settings,
    Yank,
    open_registry,
    publisher_at,
    pull,
    s3_client,
    s3_publisher,
    sharding,
    shards,
    streaming,
)

pytestmark = pytest.mark.usefixtures("online")

BUSY = Answer(b"<Error><Code>SlowDown</Code></Error>", 503)


@pytest.fixture
def filled(bucket: str) -> str:
    """A registry of a few files in a real store."""
    for path, data in a_registry().items():
        s3_client.put(s3_client.parse(bucket) / path, data)
    return bucket


@pytest.fixture
def proxy(seaweed: str, filled: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The same store, behind a proxy that may be told to fail."""
    with running(Proxy(seaweed)) as found:
        at(found.url, monkeypatch)
        yield found
        s3_client.client().close()


def at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store lie at another address."""
    s3_client.client().close()
    s3_client.client.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)


# A store that works.


def test_a_bucket_is_a_registry(filled: str) -> None:
    assert pull("big", registry=filled).path.read_bytes() == BIG
    path = pull("lora", registry=f"{filled}/index.json").path
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FOLDER


def test_an_index_that_has_not_changed_is_not_sent_again(proxy: Proxy, filled: str) -> None:
    open_registry(filled)
    open_registry(filled)
    first, second = (request for request in proxy.requests if request.path.endswith("index.json"))
    assert "if-none-match" not in first.headers
    assert second.headers["if-none-match"]
    s3_client.put(s3_client.parse(filled) / "index.json", Index().dumps())
    assert len(open_registry(filled).index) == 0


def test_without_the_network_what_is_here_is_used_and_nothing_is_sent(proxy: Proxy, filled: str) -> None:
    pull("big", registry=filled)
    count = len(proxy.requests)
    assert pull("big", registry=filled, offline=True).path.read_bytes() == BIG
    with pytest.raises(OfflineError) as caught:
        pull("lora", registry=filled, offline=True)
    assert caught.value.exit_code == 7
    with pytest.raises(OfflineError):
        publisher_at(filled, settings=Settings.load(offline=True))
    assert len(proxy.requests) == count


def test_a_registry_is_made_only_if_asked_for(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no registry at s3://adapters/.*; --create makes one"):
        publish(bucket, tmp_path)
    assert publish(bucket, tmp_path, create=True)
    assert pull("me/a", registry=bucket).path.read_bytes() == b"native bytes"


def test_a_sharded_index_is_published_to_name_by_name(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    home, folder = s3_client.parse(filled), tmp_path / "sharded"
    folder.mkdir()
    (folder / "index.json").write_bytes(a_registry()["index.json"])
    sharding.shard(folder)
    for path in folder.rglob("*.json"):
        s3_client.put(home / path.relative_to(folder).as_posix(), path)
    with ThreadPoolExecutor(8) as pool:
        names = [f"me/{'a' if number % 2 else 'b'}" for number in range(8)]
        versions = [f"1.0.{number}" for number in range(8)]
        assert all(pool.map(lambda name, version: publish(filled, tmp_path, name, version), names, versions))
    index = open_registry(filled).index
    assert [len(index.entry(name).versions) for name in ("me/a", "me/b", "big")] == [4, 4, 1]
    assert is_right(filled, "me/b", "1.0.2")
    assert Index.loads(s3_client.document(home / "index.json", most=1 << 20).data).layout
    proxy.requests.clear()
    assert not publish(filled, tmp_path, "me/a", "1.0.1")
    with pytest.raises(StateError, match="never change"):
        publish(filled, tmp_path, "me/a", "1.0.1", b"other")
    assert publish(filled, tmp_path, "me/c")
    written = {r.path.partition("index/")[2] for r in proxy.requests if r.method == "PUT" and "/index/" in r.path}
    assert written == {shards.path_of("me/c").removeprefix("index/")}


def test_a_version_in_a_bucket_can_be_yanked(filled: str) -> None:
    change = Yank(name="big", version="1.0.0", reason="broken")
    assert publisher_at(filled, settings=Settings.load()).publish(change).new
    assert not publisher_at(filled, settings=Settings.load()).publish(change).new
    release = open_registry(filled).index.entry("big").versions["1.0.0"]
    assert (release.yanked, release.reason) == (True, "broken")


# One that fails.


def test_one_changed_byte_in_the_store_is_found(filled: str) -> None:
    damaged = bytes([BIG[0] ^ 1]) + BIG[1:]
    s3_client.put(s3_client.parse(filled) / "files/big-öne.safetensors", damaged)
    with pytest.raises(DigestError) as caught:
        pull("big", registry=filled)
    assert caught.value.exit_code == 5


def test_a_broken_download_goes_on_where_it_was(proxy: Proxy, filled: str) -> None:
    for cut in (1000, 70_000):
        proxy.faults.append(cutting("safetensors", cut))
    assert pull("big", registry=filled).path.read_bytes() == BIG
    ranges = [request.headers.get("range") for request in proxy.requests if request.path.endswith("safetensors")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert len(ranges) == 3


def test_a_download_goes_on_in_the_next_command(proxy: Proxy, filled: str) -> None:
    proxy.faults += [cutting("safetensors", 100_000), lambda r: BUSY if r.path.endswith("safetensors") else None]
    with pytest.raises(AdapterHubError, match="answers 503, 5 times"):
        pull("big", registry=filled)
    proxy.faults.clear()
    proxy.requests.clear()
    assert pull("big", registry=filled).path.read_bytes() == BIG
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


def test_a_store_that_is_busy_for_a_while_is_asked_again(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    proxy.faults += [once(BUSY, "index.json", times=2), once(Answer(status=500), "safetensors", times=2)]
    assert pull("big", registry=filled).path.read_bytes() == BIG
    busy = once(BUSY, times=3)
    proxy.faults.append(lambda request: busy(request) if request.method == "PUT" else None)
    assert publish(filled, tmp_path)
    assert pull("me/a", registry=filled).path.read_bytes() == b"native bytes"


def test_a_store_that_stays_busy_is_given_up_and_nothing_has_changed(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    before = s3_client.document(s3_client.parse(filled) / "index.json", most=1 << 20)
    proxy.faults.append(lambda request: BUSY if request.method == "PUT" and "index.json" in request.path else None)
    with pytest.raises(AdapterHubError, match=r"index\.json answers 503, 5 times; try again later"):
        publish(filled, tmp_path)
    assert len([request for request in proxy.requests if request.method == "PUT" and "index" in request.path]) == 5
    proxy.faults.clear()
    assert s3_client.document(s3_client.parse(filled) / "index.json", most=1 << 20) == before
    assert publish(filled, tmp_path)


def test_a_push_reads_the_index_once(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    publish(filled, tmp_path)
    asked = [r.method for r in proxy.requests if r.path.endswith("index.json")]
    assert asked == ["GET", "PUT"]


def test_a_change_whose_answer_was_lost_is_not_made_twice(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    lost: list[Answer] = []

    def fault(request: Request) -> Answer | None:
        if request.method != "PUT" or not request.path.endswith("index.json") or lost:
            return None
        lost.append(proxy.proper(request))
        return BUSY

    proxy.faults.append(fault)
    publish(filled, tmp_path)
    assert lost
    assert lost[0].status == 200
    assert list(open_registry(filled).index.entry("me/a").versions) == ["1.0.0"]


def test_what_is_not_there_is_told_by_its_place(filled: str) -> None:
    home = s3_client.parse(filled)
    s3_client.remove([home / "files/big-öne.safetensors"])
    with pytest.raises(NotFoundError, match=r"there is no s3://adapters/.*/files/big-öne\.safetensors") as caught:
        pull("big", registry=filled)
    assert caught.value.exit_code == 3
    for place in (f"{filled}/nothing", "s3://no-such-bucket/x"):
        with pytest.raises(NotFoundError, match=f"there is no registry at {place}"):
            open_registry(place)
    with pytest.raises(UsageError, match="is no place in a bucket"):
        open_registry("s3:///x")


def test_who_may_not_read_or_write_is_told_without_the_secret(
    filled: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = s3_client.parse(filled) / "index.json"
    before = s3_client.document(index, most=1 << 20)
    for key, secret in (("reader", SECRET), ("nobody", SECRET), ("reader", "wrong-secret")):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        at(s3_client.client().meta.endpoint_url, monkeypatch)
        with pytest.raises(AuthenticationError) as caught:
            publish(filled, tmp_path)
        assert caught.value.exit_code == 4
        assert secret not in str(caught.value)
        assert "s3://" in str(caught.value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    at(s3_client.client().meta.endpoint_url, monkeypatch)
    assert s3_client.document(index, most=1 << 20) == before


def test_credentials_that_have_expired_are_told(proxy: Proxy, filled: str, tmp_path: Path) -> None:
    body = b"<Error><Code>ExpiredToken</Code></Error>"
    proxy.faults.append(lambda request: Answer(body, 400) if request.method == "PUT" else None)
    with pytest.raises(AuthenticationError, match="they have expired"):
        publish(filled, tmp_path)


def test_profiles_that_are_not_there_are_told(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at(s3_client.client().meta.endpoint_url, monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(AuthenticationError, match="nowhere"):
        open_registry(filled)
    monkeypatch.delenv("AWS_PROFILE")


def test_a_store_that_cannot_be_reached_is_given_up(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        with pytest.raises(OfflineError, match="cannot be reached") as caught:
            open_registry(filled)
        assert caught.value.exit_code == 7
        with pytest.raises(OfflineError, match=r"s3://adapters/.*/x cannot be reached"):
            s3_client.put(s3_client.parse(filled) / "x", b"x")


def test_a_store_that_is_silent_is_given_up(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(streaming, "READ_SECONDS", 0.1)
        monkeypatch.setattr(streaming, "CONNECT_SECONDS", 0.1)
        monkeypatch.setattr(streaming, "TRIES", 2)
        at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(OfflineError, match="cannot be reached"):
            s3_client.put(s3_client.parse(filled) / "x", b"x")


PULL = """
import sys
from adapterhub.registry import open_registry, pull
opened = open_registry(sys.argv[1])
print("ready", flush=True)
pull("large", registry=opened)
pull("lora", registry=opened)
"""


@pytest.mark.parametrize("times", [pytest.param(50, marks=pytest.mark.slow), 6])
def test_a_pull_that_is_killed_leaves_a_store_that_works(filled: str, times: int) -> None:
    data, chance, home = os.urandom(8_000_000), random.Random(times), s3_client.parse(filled)
    s3_client.put(home / "large", data)
    index = Index.loads(a_registry()["index.json"])
    s3_client.put(
        home / "index.json", index.add("large", "1.0.0", a_file("large", data), published="2026-01-01").dumps()
    )
    cache = Settings.load().cache
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", PULL, filled], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert pull("large", registry=filled).path.read_bytes() == data
        assert (pull("lora", registry=filled).path / "adapter_config.json").read_bytes() == FOLDER[
            "adapter_config.json"
        ]
        # The next one begins anew; what other processes left in tmp/ is kept for a day.
        for name in ("objects", "artifacts"):
            shutil.rmtree(cache / name)


# One that heeds no conditions.


class Careless(Application):
    """A store in memory that writes whatever is sent, to whoever comes.

    Attributes:
        objects: what was written.
        refusal: what is answered to conditions, or None where they are not looked at.
    """

    def __init__(self, refusal: Answer | None = None) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.refusal = refusal

    def proper(self, request: Request) -> Answer:
        """Read, write, list or remove."""
        if request.method == "PUT":
            if self.refusal and {"if-match", "if-none-match"} & set(request.headers):
                return self.refusal
            self.objects[request.path] = request.body
            return Answer(headers={"ETag": '"1"'})
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return Answer(status=204)
        if "list-type" in request.query:
            return Answer(b"<ListBucketResult></ListBucketResult>")
        found = self.objects.get(unquote(request.path))
        return Answer(status=404) if found is None else Answer(found, headers={"ETag": '"1"'})


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (None, "does not heed the conditions"),
        (Answer(b"<Error><Code>NotImplemented</Code></Error>", 501), "does not know the request"),
    ],
)
def test_where_conditions_are_not_heeded_nothing_is_published(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Answer | None, message: str
) -> None:
    with running(Careless(refusal)) as careless:
        at(careless.url, monkeypatch)
        with pytest.raises(UnsupportedError, match=message) as caught:
            publish("s3://careless", tmp_path, create=True)
        assert caught.value.exit_code == 6
        assert careless.objects == {}
        s3_client.client().close()


def test_a_public_bucket_is_read_without_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Careless()) as public:
        public.objects = {f"/open/{path}": data for path, data in a_registry().items()}
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        at(public.url, monkeypatch)
        folder = pull("lora", registry="s3://open").path
        assert (folder / "adapter_config.json").read_bytes() == FOLDER["adapter_config.json"]
        assert not any("authorization" in request.headers or request.query for request in public.requests)
        s3_client.client().close()


# What lies around.


def test_trials_of_publishers_that_died_are_removed_and_those_of_others_are_not(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = s3_client.parse(bucket) / f"{s3_publisher.TRIAL}left"
    s3_client.put(left, b"1")
    assert publish(bucket, tmp_path, create=True)
    assert left in s3_client.listed(s3_client.parse(bucket) / s3_publisher.TRIAL)
    monkeypatch.setattr(s3_publisher, "LEFTOVER_SECONDS", -1.0)
    assert publish(bucket, tmp_path, version="1.0.1")
    assert s3_client.listed(s3_client.parse(bucket) / s3_publisher.TRIAL) == []


def test_what_a_dead_publisher_left_of_other_bytes_goes_with_the_next_push(bucket: str, tmp_path: Path) -> None:
    publish(bucket, tmp_path, create=True)
    native, peft = open_registry(bucket).index.entry("me/a").versions["1.0.0"].artifacts
    home = s3_client.parse(bucket)
    left = [home / f"{peft.url.rpartition('/')[0]}/0123/adapter_config.json", home / "adapters/me/a/1.1.0/x/peft/1/y"]
    for location in left:
        s3_client.put(location, b"other")
    assert not publish(bucket, tmp_path)
    there = {found.key.removeprefix(f"{home.key}/") for found in s3_client.listed(home / "adapters/")}
    assert there == {native.url, *(f"{peft.url}/{file.path}" for file in peft.files), left[1].key[len(home.key) + 1 :]}


def test_without_botocore_it_is_said_how_to_install_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_client.client().close()
    s3_client.client.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "botocore.session", None)
        with pytest.raises(UnsupportedError, match=r"s3:// needs botocore; pip install 'adapterhub\[s3\]'"):
            open_registry(bucket)
