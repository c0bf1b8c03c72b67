"""What only Google Cloud Storage has: tokens, generations, pages of names; on a double that says what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gcs_double
import pytest
from bucket_places import BUCKET, Shop
from gcs_double import READER, WRITER, GcsDouble
from local_server import Answer, Request, StaticHost, once, running
from publications import publish
from remote_cases import a_registry

from adapterhub.errors import AdapterHubError, AuthenticationError, OfflineError, UnsupportedError
from adapterhub.registry import gcs_client, open_registry, pull

pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture
def double(gs: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsDouble]:
    """A double that asks for tokens, and a service account that gets one that may write."""
    with running(GcsDouble()) as found:
        found.closed = True
        gcs_double.use_token(found, tmp_path, monkeypatch)
        yield found


def test_a_service_account_publishes_and_reads_with_its_token(double: GcsDouble, gs: Shop, tmp_path: Path) -> None:
    assert publish(gs.url, tmp_path, create=True)
    assert pull("me/a", registry=gs.url).path.read_bytes() == b"native bytes"
    assert {r.headers.get("authorization") for r in double.requests if r.path != "/token"} == {f"Bearer {WRITER}"}
    assert sum(request.path == "/token" for request in double.requests) == 1


@pytest.mark.parametrize("token", [READER, "nobody's"])
def test_who_may_not_read_or_write_is_told_without_the_token(
    double: GcsDouble, gs: Shop, tmp_path: Path, token: str
) -> None:
    answer = json.dumps({"access_token": token, "expires_in": 3600}).encode()
    double.faults.append(lambda request: Answer(answer) if request.path == "/token" else None)
    with pytest.raises(AuthenticationError, match=f"{gs.url}.* asks for credentials") as caught:
        publish(gs.url, tmp_path, create=True)
    assert caught.value.exit_code == 4
    assert token not in str(caught.value)
    assert double.blobs == {BUCKET: {}}


def test_a_token_is_sent_to_nobody_else(double: GcsDouble, gs: Shop) -> None:
    gs.fill()
    with running(StaticHost({"big": a_registry()["files/big-öne.safetensors"]})) as other:
        double.faults.append(once(Answer(status=302, headers={"Location": f"{other.url}/big"}), "safetensors"))
        pull("big", registry=gs.url)
        assert other.requests
        assert not any("authorization" in request.headers for request in other.requests)


def test_an_emulator_gets_no_token(gs: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(GcsDouble()) as double:
        gcs_double.use_token(double, tmp_path, monkeypatch)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", double.url.removeprefix("http://"))
        gs.fill()
        assert not any("authorization" in request.headers for request in double.requests)


def test_credentials_that_cannot_be_used_are_told(
    double: GcsDouble, gs: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.faults.append(once(Answer(b'{"error": "invalid_grant"}', 400), "/token"))
    with pytest.raises(AuthenticationError, match=f"the credentials for {gs.url}.*invalid_grant"):
        open_registry(gs.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    gcs_client.credentials.cache_clear()
    with pytest.raises(AuthenticationError, match=r"credentials for gs:// cannot be used: .*nothing\.json"):
        open_registry(gs.url)


def test_who_renews_credentials_and_cannot_be_reached_is_given_up(double: GcsDouble, gs: Shop, tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.write_text(account.read_text().replace(f"{double.url}/token", "http://127.0.0.1:9/token"))
    with pytest.raises(OfflineError, match="cannot be renewed"):
        open_registry(gs.url)


def test_names_are_told_in_pages(double: GcsDouble, gs: Shop) -> None:
    double.page = 2
    gs.fill()
    assert gs.paths() == set(a_registry())


def test_bytes_that_changed_on_the_way_are_not_kept(double: GcsDouble, gs: Shop) -> None:
    def changing(request: Request) -> Answer | None:
        body = request.body.replace(b"right", b"wrong")
        return double.proper(Request(request.method, request.path, request.query, request.headers, body, request.home))

    double.faults.append(changing)
    with pytest.raises(AdapterHubError, match="status 400"):
        gs.put("x", b"right")
    assert double.blobs == {BUCKET: {}}


def test_where_conditions_are_not_heeded_nothing_is_published(double: GcsDouble, gs: Shop, tmp_path: Path) -> None:
    double.heeds = False
    with pytest.raises(UnsupportedError, match="does not heed the conditions") as caught:
        publish(gs.url, tmp_path, create=True)
    assert caught.value.exit_code == 6
    assert double.blobs == {BUCKET: {}}


def test_without_the_library_it_is_said_how_to_install_it(
    double: GcsDouble, gs: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "google.auth.exceptions", None)
        with pytest.raises(UnsupportedError, match=r"gs:// needs google-auth; pip install 'adapterhub\[gcs\]'"):
            open_registry(gs.url)
