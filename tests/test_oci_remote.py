"""The remote of OCI: a real registry; a version is never another one than before, and bytes are right or refused."""

from __future__ import annotations

import base64
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import oras.client
import pytest
from local_server import Answer, Fault, Proxy, Request, StaticHost, free_port, once, running
from oci_server import PASSWORD, USER, OciServer, docker_registry
from publications import a_publication, is_right, publish

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    DigestError,
    FormatError,
    NotFoundError,
    OfflineError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import (
    Registry,
    Settings,
    Store,
    Yank,
    oci_client,
    oci_transport,
    oci_versions,
    open_registry,
    publisher_at,
    pull,
)
from adapterhub.registry.oci import OciRegistry

pytestmark = pytest.mark.usefixtures("online")

BUSY = Answer(b"", 503)


@pytest.fixture
def place(oci_repository: str) -> str:
    """A repository that is not there yet."""
    return oci_repository


@pytest.fixture
def proxy(oci_server: OciServer) -> Iterator[Proxy]:
    """The same registry, behind a proxy that may be told to fail."""
    with running(Proxy(f"http://{oci_server.host}")) as found:
        yield found


@pytest.fixture(autouse=True)
def nobody(online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the credentials, of which there are none."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setattr(oci_transport, "tickets", {})
    return folder


def behind(proxy: Proxy, place: str) -> str:
    """Return the same repository, asked through the proxy."""
    return str(oci_transport.Repository(host=proxy.url.removeprefix("http://"), name=oci_client.parse(place)[0].name))


def log_in(folder: Path, host: str, password: str = PASSWORD) -> None:
    """Keep credentials as `docker login` does."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


# One after the other.


def test_what_was_published_can_be_pulled(place: str, tmp_path: Path) -> None:
    assert publish(place, tmp_path)
    assert is_right(place, "me/a", "1.0.0")
    assert publish(place, tmp_path, version="1.1.0+cpu", data=b"more")
    assert is_right(place, "me/a", "1.0.0")
    assert is_right(place, "me/a", "1.1.0+cpu", b"more")
    assert open_registry(place).index.entry("me/a").license == "MIT"
    assert pull(place).path.read_bytes() == b"native more"
    assert pull(f"{place}:1.0.0").path.read_bytes() == b"native bytes"
    assert pull("me/a@~1.0", registry=place).path.name == "a-1.0.0.safetensors"


def test_the_client_that_others_use_finds_the_same_files(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    client = oras.client.OrasClient(insecure=True)
    target = place.removeprefix("oci://") + ":1.0.0"
    pulled = client.pull(target=target, outdir=str(tmp_path / "oras"))
    read = {Path(path).relative_to(tmp_path / "oras").as_posix(): Path(path).read_bytes() for path in pulled}
    assert read == {
        "a-1.0.0.safetensors": b"native bytes",
        "peft/adapter_config.json": b"{}",
        "peft/adapter_model.safetensors": b"peft bytes",
    }
    manifest = client.get_manifest(target)
    assert manifest["artifactType"] == oci_versions.ADAPTER
    assert manifest["config"]["mediaType"] == oci_versions.CONFIG
    assert manifest["annotations"] == {
        "org.opencontainers.image.title": "me/a",
        "org.opencontainers.image.version": "1.0.0",
        "org.opencontainers.image.licenses": "MIT",
    }
    assert [layer["mediaType"].rpartition("/")[2] for layer in manifest["layers"]] == [
        "vnd.adapterhub.weights.v1",
        "json",
        "vnd.adapterhub.weights.v1",
    ]


def test_the_same_again_is_no_change_and_other_bytes_are_refused(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    before = oci_client.manifest(oci_client.parse(place)[0], "1.0.0")
    assert not publish(place, tmp_path)
    with pytest.raises(StateError, match=r"has me/a@1\.0\.0 already, with other bytes .*never change"):
        publish(place, tmp_path, data=b"other")
    with pytest.raises(StateError, match="is the repository of me/a"):
        publish(place, tmp_path, name="me/b")
    assert oci_client.manifest(oci_client.parse(place)[0], "1.0.0") == before
    assert oci_client.tags(oci_client.parse(place)[0]) == ["1.0.0"]


def test_a_yank_stands_beside_the_version_which_stays_as_it_is(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path, version="1.0.0+cpu")
    publisher, repository = publisher_at(place, settings=Settings.load()), oci_client.parse(place)[0]
    before = oci_client.manifest(repository, "1.0.0_cpu")
    first = OciRegistry(place).fetch("")
    assert first is not None
    assert OciRegistry(place).fetch(first.tag) is None
    publisher.publish(Yank(name="me/a", version="1.0.0+cpu", reason="labels are swapped"))
    assert oci_client.manifest(repository, "1.0.0_cpu") == before
    assert sorted(oci_client.tags(repository)) == ["1.0.0_cpu", "yank.1.0.0_cpu"]
    second = OciRegistry(place).fetch(first.tag)
    assert second is not None
    assert OciRegistry(place).fetch(second.tag) is None
    publisher.publish(Yank(name="me/a", version="1.0.0+cpu", yanked=False))
    third = OciRegistry(place).fetch(second.tag)
    assert third is not None
    assert third.data == first.data


def test_a_version_that_comes_after_a_yank_does_not_undo_it(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    publisher_at(place, settings=Settings.load()).publish(Yank(name="me/a", version="1.0.0"))
    assert publish(place, tmp_path, version="1.1.0")
    assert open_registry(place).index.entry("me/a").versions["1.0.0"].yanked
    assert not publish(place, tmp_path)


def test_a_yank_in_other_words_is_refused_and_not_passed_over(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    repository = oci_client.parse(place)[0]
    own = oci_client.manifest(repository, "1.0.0")[1]
    oci_client.put_manifest(repository, "yank.1.0.0", json.dumps(own).encode())
    with pytest.raises(FormatError, match=r"yank\.1\.0\.0 does not say whether 1\.0\.0 is yanked"):
        pull("me/a", registry=place)


def test_a_dry_run_sends_nothing(place: str, tmp_path: Path) -> None:
    outcome = publisher_at(place, settings=Settings.load()).publish(a_publication(tmp_path / "s"), dry_run=True)
    assert outcome.new
    assert sorted(outcome.files) == [
        "a-1.0.0.safetensors",
        "peft/adapter_config.json",
        "peft/adapter_model.safetensors",
    ]
    with pytest.raises(NotFoundError):
        open_registry(place)


def test_an_index_that_has_not_changed_is_asked_for_by_one_request(proxy: Proxy, place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    url = behind(proxy, place)
    open_registry(url)
    proxy.requests.clear()
    open_registry(url)
    assert [request.path.rpartition("/")[2] for request in proxy.requests] == ["list"]
    publish(place, tmp_path, version="1.0.1")
    assert set(open_registry(url).index.entry("me/a").versions) == {"1.0.0", "1.0.1"}


def test_the_tags_of_a_long_list_are_all_found(proxy: Proxy, place: str, tmp_path: Path) -> None:
    for number in range(3):
        publish(place, tmp_path, version=f"1.0.{number}")
    whole = f"/v2/{oci_client.parse(place)[0].name}/tags/list"

    def pages(request: Request) -> Answer | None:
        if not request.path.endswith("/tags/list"):
            return None
        start = int(request.query.get("last", ["0"])[0])
        link = {"Link": f'<{whole}?last={start + 1}>; rel="next"'} if start < 2 else {}
        return Answer(json.dumps({"tags": [f"1.0.{start}"]}).encode(), 200, link)

    proxy.faults.append(pages)
    assert len(open_registry(behind(proxy, place)).index.entry("me/a").versions) == 3


# At the same time.


def test_of_sixteen_publishers_of_versions_none_is_lost(place: str, tmp_path: Path) -> None:
    versions = [f"1.0.{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        tasks = [pool.submit(publish, place, tmp_path, "me/a", v, v.encode()) for v in versions]
        while not all(task.done() for task in tasks):
            if oci_versions.versions_of(oci_client.tags(oci_client.parse(place)[0])) if tasks[0].done() else ():
                open_registry(place, settings=Settings.load(cache=tmp_path / "reader"))
            time.sleep(0.01)
        assert all(task.result() for task in tasks)
    assert set(open_registry(place).index.entry("me/a").versions) == set(versions)
    assert all(is_right(place, "me/a", version, version.encode()) for version in versions)


@pytest.mark.parametrize("removes", [True, False])
def test_of_eight_publishers_of_one_version_at_most_one_has_published_it(tmp_path: Path, removes: bool) -> None:
    def one(number: int) -> bool:
        try:
            return publish(place, tmp_path / str(number), version=version, data=b"%d" % number)
        except StateError:
            return False

    with docker_registry(removes=removes) as server, ThreadPoolExecutor(8) as pool:
        place = f"oci://{server.host}/me/a"
        publish(place, tmp_path, version="0.1.0")
        for version in ("1.0.0", "1.0.1", "1.0.2"):
            told = [number for number, new in enumerate(pool.map(one, range(8))) if new]
            versions = oci_versions.versions_of(oci_client.tags(oci_client.parse(place)[0]))
            assert len(told) == (version in versions)
            assert all(is_right(place, "me/a", version, b"%d" % number) for number in told)


def test_who_comes_while_another_is_about_to_publish_goes_away(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = oci_client.put_manifest
    seen: list[str] = []

    def put(repository: oci_transport.Repository, tag: str, data: bytes) -> None:
        if tag == "1.0.0" and not seen:
            seen.append(tag)
            with pytest.raises(StateError, match=r"somebody else has begun to publish me/a@1\.0\.0"):
                publish(place, tmp_path / "other", data=b"other")
        really(repository, tag, data)

    monkeypatch.setattr(oci_client, "put_manifest", put)
    assert publish(place, tmp_path)
    assert seen
    assert is_right(place, "me/a", "1.0.0")


def test_who_looked_before_another_published_sees_it_in_the_end(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = oci_client.put_manifest
    seen: list[str] = []

    def put(repository: oci_transport.Repository, tag: str, data: bytes) -> None:
        if tag.startswith("claim.") and not seen:
            seen.append(tag)
            assert publish(place, tmp_path / "other", data=b"other")
        really(repository, tag, data)

    monkeypatch.setattr(oci_client, "put_manifest", put)
    with pytest.raises(StateError, match="with other bytes"):
        publish(place, tmp_path)
    assert is_right(place, "me/a", "1.0.0", b"other")


# Killed.

PUBLISH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from publications import a_publication
from adapterhub.registry import Settings, publisher_at
publisher = publisher_at(sys.argv[1], settings=Settings.load())
publication = a_publication(Path(sys.argv[2]), version=sys.argv[4], data=b"x" * 200_000)
print("ready", flush=True)
publisher.publish(publication)
"""


@pytest.mark.parametrize("times", [pytest.param(50, marks=pytest.mark.slow), 5])
def test_a_publisher_that_is_killed_leaves_a_repository_that_works(tmp_path: Path, times: int) -> None:
    chance = random.Random(times)
    with docker_registry(removes=False) as server:
        place = f"oci://{server.host}/me/a"
        for number in range(times):
            version = f"1.0.{number}"
            command = [sys.executable, "-c", PUBLISH, place, str(tmp_path / "s"), str(Path(__file__).parent), version]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            publish(place, tmp_path, version=version, data=b"x" * 200_000)
            assert is_right(place, "me/a", version, b"x" * 200_000)
        assert len(open_registry(place).index.entry("me/a").versions) == times


# What fails.


def test_one_changed_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    with docker_registry() as server:
        place = f"oci://{server.host}/me/a"
        publish(place, tmp_path)
        _, manifest = oci_client.manifest(oci_client.parse(place)[0], "1.0.0")
        opened = open_registry(place)
        damage(server.blob(manifest["layers"][0]["digest"]))
        with pytest.raises(DigestError) as caught:
            pull("me/a", registry=opened)
        assert caught.value.exit_code == 5
        damage(server.blob(manifest["config"]["digest"]))
        with pytest.raises(DigestError):
            open_registry(place, settings=Settings.load(cache=tmp_path / "fresh"))


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(proxy: Proxy, place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    opened = open_registry(behind(proxy, place))
    _, manifest = oci_client.manifest(oci_client.parse(place)[0], "1.0.0")
    manifest["layers"][0]["digest"] = manifest["layers"][1]["digest"]
    proxy.faults.append(once(Answer(json.dumps(manifest).encode()), opened_digest(opened)))
    with pytest.raises(DigestError, match="the manifest of oci://"):
        pull("me/a", registry=opened)


def opened_digest(opened: Registry) -> str:
    """Return the digest of the manifest that an index names."""
    url = opened.index.entry("me/a").versions["1.0.0"].artifacts[0].url
    return oci_client.parse(url)[1]


def damage(path: Path) -> None:
    """Change one byte of a file; it keeps its length."""
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def test_a_broken_download_goes_on_where_it_was(proxy: Proxy, place: str, tmp_path: Path) -> None:
    publish(place, tmp_path, data=b"x" * 100_000)
    wanted = b"native " + b"x" * 100_000
    opened = open_registry(behind(proxy, place))
    proxy.requests.clear()
    proxy.faults.append(once(Answer(wanted, 200, cut=60_000), times=1, path=digest_of(place)))
    assert pull("me/a", registry=opened).path.read_bytes() == wanted
    assert [request.headers.get("range") for request in proxy.requests if digest_of(place) in request.path] == [
        None,
        "bytes=60000-",
    ]


def digest_of(place: str) -> str:
    """Return the digest of the native file."""
    _, manifest = oci_client.manifest(oci_client.parse(place)[0], "1.0.0")
    return str(manifest["layers"][0]["digest"])


def test_a_registry_that_is_busy_for_a_while_is_asked_again(proxy: Proxy, place: str, tmp_path: Path) -> None:
    proxy.faults += [only(method, once(BUSY, times=2)) for method in ("GET", "HEAD", "POST", "PUT")]
    assert publish(behind(proxy, place), tmp_path)
    assert is_right(behind(proxy, place), "me/a", "1.0.0")
    proxy.faults.append(lambda request: BUSY)
    with pytest.raises(AdapterHubError, match="answers 503, 5 times"):
        open_registry(behind(proxy, place))


def only(method: str, fault: Fault) -> Fault:
    """Return a fault that is asked for requests of one method."""
    return lambda request: fault(request) if request.method == method else None


def test_a_push_that_fails_in_the_middle_can_be_repeated(proxy: Proxy, place: str, tmp_path: Path) -> None:
    url = behind(proxy, place)
    proxy.faults.append(lambda r: Answer(status=400) if r.method == "PUT" and r.path.endswith("/1.0.0") else None)
    with pytest.raises(AdapterHubError, match="answers with status 400"):
        publish(url, tmp_path)
    assert oci_versions.versions_of(oci_client.tags(oci_client.parse(place)[0])) == {}
    proxy.faults.clear()
    assert publish(url, tmp_path)
    assert is_right(url, "me/a", "1.0.0")


def test_what_cannot_be_reached_or_is_not_there_is_named(place: str) -> None:
    with pytest.raises(OfflineError, match="cannot be reached") as offline:
        open_registry(f"oci://127.0.0.1:{free_port()}/me/a")
    assert offline.value.exit_code == 7
    with pytest.raises(NotFoundError, match=f"there is no .*{place}") as missing:
        open_registry(place)
    assert missing.value.exit_code == 3
    for url in ("oci://host", "oci://host/Upper", "oci://host/a:b:c", "oci:///a", "oci://me:secret@host/a"):
        with pytest.raises(UsageError) as caught:
            open_registry(url)
        assert "write oci://host/name" in str(caught.value)
    with pytest.raises(UsageError, match="names one version"):
        publisher_at("oci://host/a:1.0.0", settings=Settings.load())


def test_without_the_network_what_is_here_is_used_and_nothing_is_sent(proxy: Proxy, place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    url = behind(proxy, place)
    pull("me/a", registry=url)
    count = len(proxy.requests)
    assert pull("me/a", registry=url, offline=True).path.read_bytes() == b"native bytes"
    assert pull(f"{url}:1.0.0", offline=True).path.read_bytes() == b"native bytes"
    with pytest.raises(OfflineError):
        pull("me/a", registry=url, format="peft", offline=True)
    with pytest.raises(OfflineError):
        publisher_at(url, settings=Settings.load(offline=True))
    assert len(proxy.requests) == count


def test_a_repository_of_something_else_is_no_registry(place: str) -> None:
    repository = oci_client.parse(place)[0]
    nothing = b"{}"
    known = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    oci_client.upload(repository, nothing, known)
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": known, "size": 2}
    image = {"schemaVersion": 2, "mediaType": oci_client.MANIFEST, "config": config, "layers": [config]}
    oci_client.put_manifest(repository, "latest", json.dumps(image).encode())
    with pytest.raises(NotFoundError, match="there is no adapter at"):
        open_registry(place)
    oci_client.put_manifest(repository, "1.0.0", json.dumps(image).encode())
    with pytest.raises(FormatError, match="is no adapter"):
        open_registry(place)


# Credentials.


def test_a_registry_with_a_password_asks_for_it(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with docker_registry(password=True) as server:
        place = f"oci://{server.host}/me/a"
        for password in (None, "wrong-password"):
            if password:
                log_in(nobody, server.host, password)
            with pytest.raises(AuthenticationError, match=f"docker login {server.host}") as caught:
                publish(place, tmp_path)
            assert caught.value.exit_code == 4
            assert "wrong-password" not in str(caught.value)
            monkeypatch.setattr(oci_transport, "tickets", {})
        log_in(nobody, server.host)
        assert publish(place, tmp_path)
        assert is_right(place, "me/a", "1.0.0")
        (nobody / "config.json").unlink()
        monkeypatch.setattr(oci_transport, "tickets", {})
        with pytest.raises(AuthenticationError):
            open_registry(place)


def test_a_program_may_keep_the_password(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-safe"
    helper.parent.mkdir()
    helper.write_text(f'#!/bin/sh\nread host\nprintf \'{{"Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
    with docker_registry(password=True) as server:
        (nobody / "config.json").write_text(json.dumps({"credHelpers": {server.host: "safe"}}))
        assert publish(f"oci://{server.host}/me/a", tmp_path)
        monkeypatch.setattr(oci_transport, "tickets", {})
        (nobody / "config.json").write_text(json.dumps({"credsStore": "missing"}))
        with pytest.raises(UsageError, match="docker-credential-missing gives no credentials"):
            publish(f"oci://{server.host}/me/a", tmp_path)


def test_tokens_are_bought_with_the_password_and_sent_nowhere_else(
    nobody: Path, proxy: Proxy, place: str, tmp_path: Path
) -> None:
    host = proxy.url.removeprefix("http://")
    log_in(nobody, host)
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def guard(request: Request) -> Answer | None:
        if request.path == "/token":
            right = request.headers.get("authorization") == basic
            scope = request.query["scope"][0]
            return Answer(json.dumps({"token": f"t-{scope}"}).encode()) if right else Answer(status=401)
        if not request.headers.get("authorization", "").startswith("Bearer t-repository:me/"):
            challenge = f'Bearer realm="{proxy.url}/token",service="tests"'
            return Answer(status=401, headers={"WWW-Authenticate": challenge})
        return None

    with running(StaticHost()) as elsewhere:
        proxy.faults.append(guard)
        url = behind(proxy, place)
        assert publish(url, tmp_path)
        elsewhere.files["blob"] = b"native bytes"
        native = digest_of(place)
        moved = Answer(status=307, headers={"Location": f"{elsewhere.url}/blob"})
        proxy.faults.append(lambda r: moved if r.method == "GET" and native in r.path else None)
        assert pull("me/a", registry=url).path.read_bytes() == b"native bytes"
        assert elsewhere.requests
        assert not any("authorization" in request.headers for request in elsewhere.requests)
    assert not any(basic == r.headers.get("authorization") for r in proxy.requests if r.path != "/token")


def test_tokens_are_not_bought_where_it_is_less_safe(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    from adapterhub.registry import oci_credentials

    challenge = 'Bearer realm="http://host/token",service="tests"'
    with pytest.raises(UnsupportedError, match=r"sends for tokens to http://host/token, which is not safe"):
        oci_credentials.ticket(challenge, "https://host/v2", "host", "repository:a:pull")
    with pytest.raises(UnsupportedError, match="asks for credentials of the kind 'Negotiate'"):
        oci_credentials.ticket("Negotiate", "https://host/v2", "host", "repository:a:pull")


@pytest.mark.parametrize("text", ["{", '{"auths": []}', '{"auths": {"host": {"auth": "???"}}}', "[]"])
def test_kept_credentials_that_cannot_be_read_are_told(nobody: Path, text: str) -> None:
    from adapterhub.registry import oci_credentials

    (nobody / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        oci_credentials.basic("host")


def test_a_fresh_store_gets_the_same_bytes(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path)
    opened = open_registry(place, settings=Settings.load(cache=tmp_path / "fresh"))
    first = pull("me/a", registry=opened, store=Store(tmp_path / "fresh"))
    assert (first.cached, first.path.read_bytes()) == (False, b"native bytes")
