"""What only Azure Blob Storage has: accounts, keys, signatures and tokens, objects in pieces, folders."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from urllib.parse import unquote

import pytest
from azurite_server import ACCOUNT, KEY
from bucket_places import BUCKET, Shop
from cli_session import type_command
from local_server import Answer, Application, Proxy, Request, free_port, running
from publications import publish
from remote_cases import FOLDER, a_registry

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    NotFoundError,
    OfflineError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import azure_accounts, azure_client, open_registry, pull
from adapterhub.registry.azure_accounts import Account, account_at

pytestmark = pytest.mark.usefixtures("online")

HOST = "me.blob.core.windows.net"
CONNECTION = azure_accounts.CONNECTION


# Accounts.


@pytest.mark.parametrize(
    ("environ", "host", "account"),
    [
        ({"AZURE_STORAGE_ACCOUNT_NAME": "me"}, "", Account(name="me", url=f"https://{HOST}")),
        (
            {"AZURE_STORAGE_ACCOUNT": "me", "AZURE_STORAGE_KEY": KEY},
            "",
            Account(name="me", url=f"https://{HOST}", key=KEY),
        ),
        (
            {CONNECTION: f"AccountName=me;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"},
            "",
            Account(name="me", url="https://me.blob.core.chinacloudapi.cn", key=KEY),
        ),
        (
            {CONNECTION: f"BlobEndpoint=https://{HOST}/;SharedAccessSignature=?sv=1&sig=x%3D"},
            HOST,
            Account(name="me", url=f"https://{HOST}", token="sv=1&sig=x%3D"),
        ),
        ({}, HOST, Account(name="me", url=f"https://{HOST}")),
    ],
)
def test_accounts_are_found_as_other_programs_find_them(environ: dict[str, str], host: str, account: Account) -> None:
    assert account_at(host, environ) == account


def test_what_lets_in_to_one_account_is_not_used_for_another() -> None:
    for environ in (
        {"AZURE_STORAGE_ACCOUNT_NAME": "mine", "AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": "sig=x"},
        {CONNECTION: f"AccountName=mine;AccountKey={KEY}"},
    ):
        assert account_at("theirs.blob.core.windows.net", environ) == Account(
            name="theirs", url="https://theirs.blob.core.windows.net"
        )


def test_an_environment_that_names_no_account_or_no_key_is_told() -> None:
    with pytest.raises(UsageError, match="does not say which account"):
        account_at("", {})
    with pytest.raises(UsageError, match="names no account"):
        account_at("", {CONNECTION: "UseDevelopmentStorage=true"})
    with pytest.raises(AuthenticationError, match="is not base64") as caught:
        account_at("", {"AZURE_STORAGE_ACCOUNT": "me", "AZURE_STORAGE_KEY": "my secret!"})
    assert "my secret" not in str(caught.value)
    assert KEY not in repr(Account(name="me", url="", key=KEY, token=KEY))


@pytest.mark.parametrize("place", ["az://box@host.example.org/x", "az://box@me.dfs.core.windows.net/x", "az://Box/x"])
def test_places_out_of_azure_are_none(place: str) -> None:
    with pytest.raises(UsageError, match="is no place in a bucket"):
        open_registry(place)


def test_the_account_may_stand_in_the_address(az: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = az.url.replace(BUCKET, f"{BUCKET}@{ACCOUNT}.blob.core.windows.net")
    assert publish(place, tmp_path, create=True)
    assert open_registry(az.url).index.find("me/a") == "me/a"
    (tmp_path / "adapterhub.toml").write_text(f'[registries]\nours = "{place}"\n[adapters]\na = "ours::me/a"\n')
    assert type_command("lock").status == 0
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "another machine"))
    assert type_command("sync", "--frozen").status == 0
    typed = type_command("pull", "a", "--frozen", "-q")
    assert Path(typed.out.strip()).read_bytes() == b"native bytes"


# Who comes.


def test_a_signature_for_the_whole_container_lets_in(az: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    az.fill()
    found = generate_container_sas(
        account_name=ACCOUNT,
        container_name=BUCKET,
        account_key=KEY,
        permission=ContainerSasPermissions(read=True, write=True, list=True, delete=True),
        expiry="2099-01-01T00:00:00Z",
    )
    text = f"BlobEndpoint={az.address}/{ACCOUNT};AccountName={ACCOUNT};SharedAccessSignature={found}"
    monkeypatch.setenv(CONNECTION, text)
    azure_client.account.cache_clear()
    assert publish(az.url, tmp_path)
    assert pull("me/a", registry=az.url).path.read_bytes() == b"native bytes"


def test_a_signature_is_neither_shown_nor_logged(
    az: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = az.without_rights[0]()
    with pytest.raises(NotFoundError):
        open_registry(az.url)
    with pytest.raises(AuthenticationError) as refused:
        az.put("x", b"x")
    text = os.environ[CONNECTION].replace(az.address, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(CONNECTION, text)
    azure_client.account.cache_clear()
    errors: list[AdapterHubError] = [refused.value]
    for ask in (lambda: open_registry(az.url), lambda: az.put("x", b"x")):
        with pytest.raises(OfflineError) as caught:
            ask()
        errors.append(caught.value)
    said = [line for error in errors for line in traceback.format_exception(error)]
    assert not [line for line in [*said, caplog.text] if secret in line or unquote(secret) in line]
    assert "index.json" in caplog.text


class Token:
    """Somebody whom azure-identity knows."""

    def get_token(self, *scopes: str, **options: object) -> object:
        from azure.core.credentials import AccessToken

        assert scopes == ("https://storage.azure.com/.default",)
        return AccessToken("the-token", 1 << 40)


def test_a_token_is_sent_over_tls_only(az: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(azure_client, "identity", Token)
    with running(Application()) as server:
        text = f"BlobEndpoint={server.url}/{ACCOUNT};AccountName={ACCOUNT}"
        monkeypatch.setenv(CONNECTION, text)
        azure_client.account.cache_clear()
        for ask in (lambda: open_registry(az.url), lambda: az.put("x", b"x")):
            with pytest.raises(UnsupportedError, match="is not asked over TLS, and gets no token"):
                ask()
        assert server.requests == []


def test_a_token_is_sent_with_what_is_read(az: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_client, "identity", Token)
    azure_client.client.cache_clear()
    address, headers = azure_client._address(azure_client.parse(f"az://box@{HOST}/some/ö"))
    assert address == f"https://{HOST}/box/some/%C3%B6"
    assert headers["Authorization"] == "Bearer the-token"


def test_a_public_container_is_read_without_credentials(az: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    azure_client.client(azure_client.account("")).create_container("open", public_access="container")
    for path, data in a_registry().items():
        az.store.put(azure_client.parse("az://open") / path, data)
    with running(Proxy(az.address)) as proxy:
        monkeypatch.setenv(CONNECTION, f"BlobEndpoint={proxy.url}/{ACCOUNT};AccountName={ACCOUNT}")
        azure_client.account.cache_clear()
        folder = pull("lora", registry="az://open").path
        assert (folder / "adapter_config.json").read_bytes() == FOLDER["adapter_config.json"]
        assert not any("authorization" in request.headers or request.query for request in proxy.requests)


def test_an_account_that_is_not_open_to_all_asks_for_credentials(az: Shop) -> None:
    with running(Application()) as server:
        server.faults.append(lambda request: Answer(b"", 409, {"x-ms-error-code": "PublicAccessNotPermitted"}))
        az.at(server.url)
        with pytest.raises(AuthenticationError, match=f"{az.url}/index.json asks for credentials"):
            open_registry(az.url)


# Objects.


def test_where_conditions_are_not_heeded_nothing_is_published(az: Shop, tmp_path: Path) -> None:
    def careless(request: Request) -> Answer | None:
        if request.method == "PUT":
            return Answer(status=201, headers={"ETag": '"1"'})
        return Answer(status=202) if request.method == "DELETE" else None

    with running(Application()) as server:
        server.faults += [
            careless,
            lambda request: (
                Answer(EMPTY, headers={"Content-Type": "application/xml"}) if "comp" in request.query else None
            ),
        ]
        az.at(server.url)
        with pytest.raises(UnsupportedError, match="does not heed the conditions") as caught:
            publish(az.url, tmp_path, create=True)
        assert caught.value.exit_code == 6


EMPTY = b"<?xml version='1.0'?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"


def test_a_large_object_is_brought_in_pieces_and_replaced_on_the_same_conditions(
    az: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from adapterhub.registry.contention import Stale

    monkeypatch.setattr(azure_client, "PIECE", 1000)
    azure_client.client.cache_clear()
    (tmp_path / "large").write_bytes(bytes(range(250)) * 20)
    tag = az.store.put(az.home / "large", tmp_path / "large", match="")
    assert az.data("large") == (tmp_path / "large").read_bytes()
    for match in ("", azure_client.OTHER):
        with pytest.raises(Stale):
            az.store.put(az.home / "large", tmp_path / "large", match=match)
    assert az.store.put(az.home / "large", tmp_path / "large", match=tag) != tag


def test_folders_of_an_account_that_has_some_are_no_objects(az: Shop) -> None:
    service = azure_client.client(azure_client.account(""))
    service.get_blob_client(BUCKET, f"{az.home.key}/folder").upload_blob(b"", metadata={"hdi_isfolder": "true"})
    az.put("folder/file", b"x")
    assert az.paths() == {"folder/file"}


def test_without_the_library_it_is_said_how_to_install_it(az: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    azure_client.client.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "azure.storage.blob", None)
        with pytest.raises(
            UnsupportedError, match=r"az:// needs azure-storage-blob; pip install 'adapterhub\[azure\]'"
        ):
            open_registry(az.url)
