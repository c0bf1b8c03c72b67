"""The Hugging Face Hub as a remote, by way of a double that speaks its protocol to the real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_double import TOKEN, Hub
from local_server import Answer, once, running
from remote_cases import BIG, FOLDER, a_registry

from adapterhub.errors import (
    AdapterHubError,
    AuthenticationError,
    DigestError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    UsageError,
)
from adapterhub.registry import hf_client, open_registry, pull, streaming

PEFT = {"adapter_config.json": b"{}", "adapter_model.safetensors": BIG}
OTHERS = {"README.md": b"# card", "tokenizer.json": b"{}", "optimizer.pt": b"x"}


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The double."""
    with running(Hub()) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def names(path: Path) -> set[str]:
    """Return the files of a folder."""
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


# References.


def test_the_files_of_peft_are_pulled_and_nothing_else(hub: Hub) -> None:
    hub.storage.put("me/lora", {**PEFT, **OTHERS, "adapter_model.bin": b"old", "checkpoint-1/adapter_config.json": b""})
    pulled = pull("hf://me/lora")
    assert (pulled.name, pulled.version, pulled.artifact, pulled.cached) == ("lora", None, None, False)
    assert {name: (pulled.path / name).read_bytes() for name in names(pulled.path)} == PEFT
    assert pulled.digest is not None
    assert pull("hf://me/lora").cached


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (None, "adapterhub.safetensors"),
        ("native", "adapterhub.safetensors"),
        ("peft", {"adapter_config.json", "adapter_model.safetensors"}),
        ("adapters", {"adapter_config.json", "pytorch_adapter.bin", "head_config.json", "pytorch_model_head.bin"}),
    ],
)
def test_of_several_formats_one_is_chosen(hub: Hub, format: str | None, expected: str | set[str]) -> None:  # noqa: A002
    adapters = ("adapter_config.json", "pytorch_adapter.bin", "head_config.json", "pytorch_model_head.bin")
    folder = {f"adapters/{name}": name.encode() for name in adapters}
    hub.storage.put("me/all", {**PEFT, **folder, **OTHERS, "adapterhub.safetensors": b"native"})
    path = pull("hf://me/all", format=format).path
    assert path.read_bytes() == b"native" if isinstance(expected, str) else names(path) == expected


def test_a_folder_or_file_of_a_repository_may_be_named(hub: Hub) -> None:
    hub.storage.put("me/many", {"a/x.safetensors": b"one", **{f"b/{name}": data for name, data in PEFT.items()}})
    assert pull("hf://me/many@main/a").path.read_bytes() == b"one"
    assert pull("hf://me/many@main/a/x.safetensors").path.read_bytes() == b"one"
    assert names(pull("hf://me/many/b").path) == set(PEFT)


def test_a_revision_is_a_commit_a_tag_or_a_version(hub: Hub) -> None:
    first = hub.storage.put("me/a", {"adapterhub.safetensors": b"1"})
    hub.storage.tag("me/a", "v1.0.0", "main")
    hub.storage.put("me/a", {"adapterhub.safetensors": b"2"})
    assert pull("hf://me/a").path.read_bytes() == b"2"
    for revision in (first, "v1.0.0", "1.0.0"):
        assert pull(f"hf://me/a@{revision}").path.read_bytes() == b"1"


def test_what_was_pulled_is_there_offline_and_no_network_is_asked(hub: Hub) -> None:
    commit = hub.storage.put("me/lora", PEFT)
    path = pull("hf://me/lora").path
    hub.requests.clear()
    assert pull("hf://me/lora", offline=True).path == path
    assert pull(f"hf://me/lora@{commit}").path == path
    assert hub.requests == []
    with pytest.raises(OfflineError) as caught:
        pull("hf://me/lora@v2", offline=True)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "ADAPTERHUB_OFFLINE"])
def test_the_variables_that_switch_the_network_off_are_heeded(
    hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.storage.put("me/lora", PEFT)
    monkeypatch.setenv(name, "1")
    for act in (lambda: pull("hf://me/lora"), lambda: open_registry("hf://me/lora")):
        with pytest.raises(OfflineError):
            act()
    assert hub.requests == []


def test_a_download_goes_on_where_it_broke(hub: Hub) -> None:
    hub.storage.put("me/lora", PEFT)
    hub.faults.append(once(Answer(BIG, cut=100_000), "adapter_model.safetensors"))
    assert (pull("hf://me/lora").path / "adapter_model.safetensors").read_bytes() == BIG
    assert [r.headers.get("range") for r in hub.requests if r.path.endswith("model.safetensors")] == [
        None,
        "bytes=100000-",
    ]


@pytest.mark.parametrize("name", list(PEFT))
def test_one_wrong_byte_is_an_error_of_large_and_small_files(hub: Hub, name: str) -> None:
    hub.storage.put("me/lora", PEFT)
    hub.faults.append(once(Answer(b"!" + PEFT[name][1:]), name))
    with pytest.raises(DigestError) as caught:
        pull("hf://me/lora")
    assert caught.value.exit_code == 5
    assert (pull("hf://me/lora").path / name).read_bytes() == PEFT[name]


def test_a_repository_without_an_adapter_says_so(hub: Hub) -> None:
    hub.storage.put("me/model", {"model-1.safetensors": b"", "model-2.safetensors": b"", **OTHERS})
    with pytest.raises(NotFoundError, match="hf://me/model holds no adapter at commit"):
        pull("hf://me/model")
    hub.storage.put("me/lora", PEFT)
    with pytest.raises(NotFoundError, match="holds no adapter in format 'adapters'"):
        pull("hf://me/lora", format="adapters")


# Errors.


def test_what_is_not_there_is_not_found(hub: Hub) -> None:
    hub.storage.put("me/lora", PEFT)
    for reference in ("hf://me/nothing", "hf://me/lora@v9", "hf://me/lora@9.0.0", "hf://me/lora@main/nowhere"):
        with pytest.raises(NotFoundError) as caught:
            pull(reference)
        assert caught.value.exit_code == 3
        assert "hf://me/" in caught.value.message


def test_a_private_repository_is_there_for_those_with_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.storage.put("me/secret", PEFT)
    hub.storage.get("me/secret").private = True
    with pytest.raises(NotFoundError, match="a private repository looks as if it did not exist"):
        pull("hf://me/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert names(pull("hf://me/secret").path) == set(PEFT)


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (Answer(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}), None, 4),
        (Answer(status=403, headers={"X-Error-Code": "GatedRepo"}), AuthenticationError, 4),
        (Answer(status=403), AuthenticationError, 4),
        (Answer(status=500), AdapterHubError, 1),
        (Answer(status=429, headers={"Retry-After": "0"}), AdapterHubError, 1),
    ],
    ids=["token", "gated", "403", "500", "429"],
)
def test_a_refusal_of_the_hub_has_its_exit_code(
    hub: Hub, answer: Answer, error: type[AdapterHubError] | None, code: int
) -> None:
    hub.storage.put("me/lora", PEFT)
    hub.faults.append(once(answer, times=99))
    with pytest.raises(error or AuthenticationError) as caught:
        pull("hf://me/lora")
    assert caught.value.exit_code == code


def test_a_hub_that_fails_for_a_while_is_asked_again(hub: Hub) -> None:
    hub.storage.put("me/lora", PEFT)
    hub.faults.append(once(Answer(status=503), times=3))
    assert names(pull("hf://me/lora").path) == set(PEFT)


def test_a_hub_that_is_not_there_is_an_error_of_the_network(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OfflineError, match="hf://me/lora cannot be reached") as caught:
        pull("hf://me/lora")
    assert caught.value.exit_code == 7


def test_an_upload_that_finds_no_connection_is_an_error_of_the_network() -> None:
    with pytest.raises(streaming.Passing) as caught, hf_client.our_errors("hf://me/lora"):
        raise ConnectionError("reset")
    assert str(caught.value.error).startswith("hf://me/lora cannot be reached: reset")


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.storage.put("me/lora", PEFT)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running(Hub()) as store:
        store.faults.append(once(Answer(BIG)))
        away = Answer(status=302, headers={"Location": f"{store.url}/signed"})
        hub.faults.append(once(away, "adapter_model.safetensors"))
        pull("hf://me/lora")
        assert [request.headers.get("authorization") for request in store.requests] == [None]
    assert {request.headers.get("authorization") for request in hub.requests} == {f"Bearer {TOKEN}"}


# Registries.


def test_a_repository_with_an_index_is_a_registry(hub: Hub) -> None:
    commit = hub.storage.put("me/hub", a_registry())
    for place in ("hf://me/hub", f"hf://me/hub@{commit}"):
        path = pull("lora", registry=place).path
        assert {name: (path / name).read_bytes() for name in names(path)} == FOLDER
        assert pull("big", registry=place).path.read_bytes() == BIG
    hub.requests.clear()
    assert pull("big", registry="hf://me/hub", offline=True).path.read_bytes() == BIG
    assert hub.requests == []


def test_a_registry_is_read_at_one_commit(hub: Hub) -> None:
    """A reader who has the index sees the files that belong to it, whatever is published meanwhile."""
    hub.storage.put("me/hub", a_registry())
    opened = open_registry("hf://me/hub")
    hub.storage.put("me/hub", dict.fromkeys(a_registry(), b"other"))
    assert pull("big", registry=opened).path.read_bytes() == BIG


def test_a_repository_without_an_index_is_no_registry(hub: Hub) -> None:
    hub.storage.put("me/lora", PEFT)
    with pytest.raises(NotFoundError, match=r"there is no registry at hf://me/lora: the repository has no index\.json"):
        open_registry("hf://me/lora")
    with pytest.raises(UsageError, match="is not a registry"):
        open_registry("hf://me/hub@main/folder")


def test_a_broken_index_in_a_repository_is_refused(hub: Hub) -> None:
    hub.storage.put("me/hub", {"index.json": b"{"})
    with pytest.raises(IntegrityError):
        open_registry("hf://me/hub")


def test_the_client_under_test_is_the_real_one(hub: Hub) -> None:
    """The double answers huggingface_hub, which nothing here replaces."""
    hub.storage.put("me/lora", PEFT)
    path = huggingface_hub.hf_hub_download("me/lora", "adapter_config.json", endpoint=hub.url)
    assert Path(path).read_bytes() == b"{}"
    assert streaming.TRIES > 1
