"""Static hosts as registries: what comes over HTTP is right, or a named error in bounded time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from local_server import Answer, Request, StaticHost, free_port, once, running, wait_for
from remote_cases import BIG, FOLDER, a_file, a_registry, sha

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    DigestError,
    FormatError,
    NotFoundError,
    OfflineError,
    SchemaError,
)
from adapterhub.registry import Index, Store, open_registry, pull, streaming

pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def host() -> Iterator[StaticHost]:
    """A host with the registry at its root."""
    files = {quote(path): data for path, data in a_registry().items()}
    with running(StaticHost(files)) as found:
        yield found


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[str]:
    """The address of nginx over the same files."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    root = tmp_path / "www"
    for path, data in a_registry().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    port = free_port()
    work = tmp_path / "nginx"
    work.mkdir()
    places = " ".join(f"{kind}_temp_path {work};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # As root it would hand its folders to another user, which a namespace without one refuses.
    user = "user root; " if os.geteuid() == 0 else ""
    (work / "conf").write_text(
        f"{user}daemon off; master_process off; pid {work}/pid; error_log {work}/error.log; events {{}}\n"
        f"http {{ access_log {work}/access.log; {places} gzip on; gzip_types application/json; gzip_min_length 1;\n"
        f"  types {{ application/json json; }} server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    )
    process = subprocess.Popen([program, "-p", str(work), "-c", str(work / "conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def asked(host: StaticHost, end: str) -> list[Request]:
    """Return the requests whose path ends so."""
    return [request for request in host.requests if request.path.endswith(end)]


# A host that works.


def test_a_real_web_server_is_a_registry(nginx: str, tmp_path: Path) -> None:
    assert pull("big", registry=nginx).path.read_bytes() == BIG
    path = pull("lora", registry=f"{nginx}/index.json").path
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FOLDER
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert log.count('GET /index.json HTTP/1.1" 200') == 1
    assert log.count('GET /index.json HTTP/1.1" 304') == 1
    with pytest.raises(NotFoundError, match="there is no registry at"):
        open_registry(f"{nginx}/nothing")


def test_a_real_web_server_goes_on_where_a_download_broke_off(nginx: str, tmp_path: Path) -> None:
    part = tmp_path / "cache" / "tmp" / f"{sha(BIG)[7:]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG[:123_456])
    assert pull("big", registry=nginx).path.read_bytes() == BIG
    assert '" 206 ' in (tmp_path / "nginx" / "access.log").read_text()
    assert not part.exists()


def test_an_index_is_fetched_again_only_if_it_changed(host: StaticHost) -> None:
    assert list(open_registry(host.url).index.names()) == ["big", "lora"]
    assert list(open_registry(host.url).index.names()) == ["big", "lora"]
    first, second = asked(host, "index.json")
    assert "if-none-match" not in first.headers
    assert "if-none-match" in second.headers
    host.files["index.json"] = Index().add("new", "1.0.0", a_file("x", b"x"), published="2026-01-01").dumps()
    assert list(open_registry(host.url).index.names()) == ["new"]


def test_what_was_read_once_works_offline(host: StaticHost) -> None:
    path = pull("lora", registry=host.url).path
    host.requests.clear()
    assert pull("lora", registry=host.url, offline=True).path == path
    with pytest.raises(OfflineError) as caught:
        pull("big", registry=host.url, offline=True)
    assert caught.value.exit_code == 7
    assert host.requests == []


def test_a_broken_index_does_not_take_the_place_of_a_good_one(host: StaticHost, tmp_path: Path) -> None:
    open_registry(host.url)
    good, host.files["index.json"] = host.files["index.json"], b'{"format": 1}'
    with pytest.raises(SchemaError):
        open_registry(host.url)
    host.files["index.json"] = good[: len(good) // 2]
    with pytest.raises(FormatError):
        open_registry(host.url)
    (copy,) = (tmp_path / "cache" / "registries").glob("*/*/index.json")
    assert copy.read_bytes() == good


def test_the_files_of_a_folder_are_fetched_side_by_side_and_counted(host: StaticHost) -> None:
    told: list[tuple[int, int]] = []
    pull("lora", registry=host.url, progress=lambda done, total: told.append((done, total)))
    total = sum(map(len, FOLDER.values()))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_urls_that_leave_the_registry_are_refused(host: StaticHost) -> None:
    host.files["index.json"] = a_registry()["index.json"].replace(b'"files/big', b'"../big')
    with pytest.raises(FormatError, match=r"has a part '\.\.'"):
        pull("big", registry=f"{host.url}")


# A host that fails, and then does not.


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=503),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(BIG, headers={"ETag": '"x"'}, cut=100_000),
        Answer(BIG, cut=0),
    ],
    ids=["503", "429", "cut", "nothing"],
)
def test_what_passes_by_itself_is_tried_again(host: StaticHost, answer: Answer) -> None:
    host.faults.append(once(answer, "ne.safetensors", times=3))
    assert pull("big", registry=host.url).path.read_bytes() == BIG
    assert len(asked(host, "ne.safetensors")) == 4


def test_a_download_goes_on_where_the_connection_broke(host: StaticHost) -> None:
    host.faults.append(once(Answer(BIG, headers={"ETag": '"e"'}, cut=100_000), "ne.safetensors"))
    pull("big", registry=host.url)
    second = asked(host, "ne.safetensors")[1]
    assert second.headers["range"] == "bytes=100000-"
    assert second.headers["if-range"] == '"e"'


def test_a_host_without_ranges_begins_anew_and_nothing_is_doubled(host: StaticHost) -> None:
    host.faults += [
        once(Answer(BIG, cut=100_000), "ne.safetensors"),
        once(Answer(BIG), "ne.safetensors"),
    ]
    assert pull("big", registry=host.url).path.read_bytes() == BIG


def test_the_time_that_a_server_asks_for_is_given(host: StaticHost) -> None:
    host.faults.append(once(Answer(status=429, headers={"Retry-After": "1"}), "index.json"))
    begin = time.monotonic()
    open_registry(host.url)
    assert time.monotonic() - begin >= 1


# A host that fails.


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (404, NotFoundError, 3),
        (410, NotFoundError, 3),
        (401, AuthenticationError, 4),
        (403, AuthenticationError, 4),
        (500, AdapterHubError, 1),
        (503, AdapterHubError, 1),
        (429, AdapterHubError, 1),
        (418, AdapterHubError, 1),
    ],
)
def test_a_refusal_is_a_named_error_and_changes_nothing(
    host: StaticHost, tmp_path: Path, status: int, error: type[AdapterHubError], code: int
) -> None:
    host.faults.append(once(Answer(status=status), "ne.safetensors", times=99))
    with pytest.raises(error) as caught:
        pull("big", registry=host.url)
    assert caught.value.exit_code == code
    assert str(status) in str(caught.value) or code == 3
    assert not list((tmp_path / "cache" / "tmp").iterdir())
    host.faults.clear()
    assert pull("big", registry=host.url).path.read_bytes() == BIG


def test_one_wrong_byte_is_an_error_and_the_next_try_succeeds(host: StaticHost, tmp_path: Path) -> None:
    host.faults.append(once(Answer(bytes([BIG[0] ^ 1]) + BIG[1:]), "ne.safetensors"))
    with pytest.raises(DigestError) as caught:
        pull("big", registry=host.url)
    assert caught.value.exit_code == 5
    assert not list((tmp_path / "cache" / "tmp").iterdir())
    assert pull("big", registry=host.url).path.read_bytes() == BIG


@pytest.mark.parametrize("data", [BIG[:-1], BIG + b"x", b""], ids=["short", "long", "empty"])
def test_another_length_is_an_error(host: StaticHost, data: bytes) -> None:
    host.files[quote("files/big-öne.safetensors")] = data
    with pytest.raises(DigestError):
        pull("big", registry=host.url)


def test_a_partial_file_that_was_damaged_is_fetched_anew(host: StaticHost, tmp_path: Path) -> None:
    part = tmp_path / "cache" / "tmp" / f"{sha(BIG)[7:]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"no" + BIG[2:5000])
    assert pull("big", registry=host.url).path.read_bytes() == BIG


def test_a_dead_host_is_a_named_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OfflineError, match="cannot be reached") as caught:
            open_registry(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert caught.value.exit_code == 7


def test_a_silent_host_is_given_up(host: StaticHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "READ_SECONDS", 0.1)
    monkeypatch.setattr(streaming, "TRIES", 2)
    streaming.client.cache_clear()
    host.faults.append(lambda request: time.sleep(0.5))
    try:
        with pytest.raises(OfflineError, match="cannot be reached"):
            open_registry(host.url)
    finally:
        streaming.client().close()
        streaming.client.cache_clear()


def test_a_host_that_dribbles_is_given_up(host: StaticHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PACE", (100_000, 0.3))
    host.faults.append(once(Answer(BIG, pause=0.05), "ne.safetensors"))
    with pytest.raises(OfflineError, match="too slowly"):
        pull("big", registry=host.url)


def test_an_index_of_any_size_is_not_read(host: StaticHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapterhub.registry.http.MOST", 100)
    with pytest.raises(AdapterHubError, match="larger than 100 bytes"):
        open_registry(host.url)


# Redirects.


def test_a_redirect_is_followed_a_few_times(host: StaticHost) -> None:
    path = "/files/big-%C3%B6ne.safetensors"
    host.faults.append(once(Answer(status=302, headers={"Location": path}), path, times=5))
    assert pull("big", registry=host.url).path.read_bytes() == BIG
    host.faults.append(once(Answer(status=302, headers={"Location": path}), path, times=99))
    with pytest.raises(AdapterHubError, match="redirects more than 5 times"):
        list(streaming.stream(host.url + path))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "data:text/plain,x"])
def test_a_redirect_out_of_the_web_is_refused(host: StaticHost, target: str) -> None:
    host.faults.append(once(Answer(status=302, headers={"Location": target})))
    with pytest.raises(AdapterHubError, match="which is not safe"):
        list(streaming.stream(f"{host.url}/x"))


def test_credentials_stay_with_their_host(host: StaticHost) -> None:
    with running(StaticHost({"there": b"x"})) as other:
        host.faults += [
            once(Answer(status=307, headers={"Location": "/near"}), "/far"),
            once(Answer(status=302, headers={"Location": f"{other.url}/there?signed=secret"}), "/near"),
        ]
        secret = {"Authorization": "Bearer secret"}
        assert b"".join(streaming.stream(f"{host.url}/far", headers=secret)) == b"x"
        assert [request.headers.get("authorization") for request in host.requests] == ["Bearer secret"] * 2
        assert [request.headers.get("authorization") for request in other.requests] == [None]


def test_errors_do_not_show_what_may_be_secret() -> None:
    with pytest.raises(AdapterHubError) as caught:
        list(streaming.stream("http://me:secret@127.0.0.1:9/a?signature=secret"))
    assert "secret" not in str(caught.value)


# Processes that die.

PULL = """
import sys
from adapterhub.registry import pull
def tell(done, total):
    if done > 100_000:
        print("half", flush=True)
        __import__("time").sleep(60)
pull("big", registry=sys.argv[1], progress=tell if sys.argv[2] == "die" else None)
"""


def test_a_killed_pull_is_gone_on_with(host: StaticHost) -> None:
    host.faults.append(once(Answer(BIG, headers={"ETag": '"e"'}, pause=0.001), "ne.safetensors"))
    process = subprocess.Popen([sys.executable, "-c", PULL, host.url, "die"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert pull("big", registry=host.url).path.read_bytes() == BIG
    last = asked(host, "ne.safetensors")[-1]
    assert last.headers["range"].startswith("bytes=")
    assert last.headers["range"] != "bytes=0-"


def test_a_store_may_be_named(host: StaticHost, tmp_path: Path) -> None:
    store = Store(tmp_path / "other")
    assert pull("big", registry=host.url, store=store).path.is_relative_to(tmp_path / "other")
