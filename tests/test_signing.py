"""Signed indexes: what the settings trust is used as it was signed, never older than it was seen, or it is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_places import Shop
from cli_session import type_command
from hub_double import Hub
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from local_server import StaticHost, running
from publications import publish
from remote_cases import BIG, a_file, a_registry
from signed_places import sign, trusting

from adapterhub.errors import (
    AdapterHubError,
    DigestError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    SchemaError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import (
    Index,
    Settings,
    derived,
    desks,
    open_registry,
    pull,
    schemes,
    signatures,
    signing,
    snapshots,
    trust,
    trusted_keys,
)
from adapterhub.registry.snapshots import SIGNED, Ancestor, Signed, Snapshot

pytestmark = [
    pytest.mark.usefixtures("online"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry of a few files."""
    home = tmp_path / "registry"
    for path, data in a_registry().items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    return home


def change(folder: Path, version: str) -> None:
    """Add a version to an index."""
    index = Index.load(folder / "index.json")
    index.add("big", version, a_file("files/big-öne.safetensors", BIG), published="2026-01-02").write(
        folder / "index.json"
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return what a registry consists of."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put_back(folder: Path, state: dict[str, bytes]) -> None:
    """Let a folder be what it was."""
    shutil.rmtree(folder)
    for path, data in state.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


# What is right.


def test_a_signed_index_is_used_and_what_it_names(folder: Path, keys: Path) -> None:
    snapshot, new = sign(folder, keys)
    assert (snapshot.number, new) == (1, True)
    settings = trusting(folder, keys)
    opened = open_registry(folder, settings=settings)
    assert pull("big", registry=opened).path.read_bytes() == BIG


def test_signing_again_is_no_change_and_a_changed_index_gets_the_next_number(folder: Path, keys: Path) -> None:
    first, _ = sign(folder, keys)
    before = files(folder)
    assert sign(folder, keys) == (first, False)
    assert files(folder) == before
    change(folder, "1.1.0")
    second, new = sign(folder, keys)
    assert (second.number, new) == (2, True)
    assert second.ancestors == (Ancestor(number=1, digest=first.digest),)
    open_registry(folder, settings=trusting(folder, keys))


def test_who_was_away_for_long_follows_a_short_chain(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(folder, keys)
    with running(StaticHost(files(folder))) as host:
        settings = trusting(host.url, keys)
        open_registry(host.url, settings=settings)
        for number in range(40):
            change(folder, f"1.1.{number}")
            sign(folder, keys)
        host.files = files(folder)
        host.requests.clear()
        open_registry(host.url, settings=settings)
        read = [request.path for request in host.requests if "/snapshots/" in request.path]
        assert 1 <= len(read) <= 6


def test_what_was_verified_is_not_verified_or_fetched_again_and_serves_offline(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(folder, keys)
    with running(StaticHost(files(folder))) as host:
        settings = trusting(host.url, keys)
        open_registry(host.url, settings=settings)
        monkeypatch.setattr(signatures, "verify", None)
        host.requests.clear()
        open_registry(host.url, settings=settings)
        assert [request.path for request in host.requests] == ["/index.json"]
        open_registry(host.url, settings=trusting(host.url, keys, offline=True))
    fresh = Settings.load(offline=True, cache=folder.parent / "fresh")
    with pytest.raises(OfflineError):
        open_registry(host.url, settings=fresh)


def test_the_tool_that_others_have_finds_the_signature_right(folder: Path, keys: Path, tmp_path: Path) -> None:
    sign(folder, keys)
    signed = Signed.loads((folder / SIGNED).read_bytes())
    model = tmp_path / "model"
    model.mkdir()
    (model / signatures.FILE).write_bytes(signed.snapshot.data)
    (tmp_path / "signature").write_text(json.dumps(dict(signed.signature)))
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model)]
    command += ["--signature", str(tmp_path / "signature"), "--public_key", str(keys / "mine.pub")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (model / signatures.FILE).write_bytes(signed.snapshot.data + b" ")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


# What is wrong.


def refused(place: str | Path, settings: Settings, match: str, kind: type[AdapterHubError] = IntegrityError) -> None:
    """Assert that a registry is not opened, because something is not what it should be."""
    with pytest.raises(kind, match=match) as caught:
        open_registry(place, settings=settings)
    assert caught.value.exit_code == 5


def test_an_index_that_is_not_signed_is_not_used(folder: Path, keys: Path) -> None:
    refused(folder, trusting(folder, keys), "is not signed, and must be by .*mine.pub")


def test_an_index_that_was_changed_after_it_was_signed_is_not_used(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    settings = trusting(folder, keys)
    data = (folder / "index.json").read_bytes()
    (folder / "index.json").write_bytes(data.replace(b"2026-01-01", b"2026-01-02", 1))
    refused(folder, settings, "as of snapshot 1, has digest", DigestError)
    (folder / "index.json").write_bytes(data)
    open_registry(folder, settings=settings)
    (folder / "index.json").write_bytes(data.replace(b"2026-01-01", b"2026-01-02", 1))
    refused(folder, settings, "as of snapshot 1, has digest", DigestError)


@pytest.mark.parametrize("large", [False, True])
def test_an_index_that_is_changed_once_it_was_verified_is_not_used(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(derived, "LARGE", 0 if large else derived.LARGE)
    sign(folder, keys)
    settings = trusting(folder, keys)
    open_registry(folder, settings=settings)
    original, check = (folder / "index.json").read_bytes(), trust.check

    def changing(beside: trust.Beside, known: Settings) -> trust.Trusted | None:
        (folder / "index.json").write_bytes(original)
        trusted = check(beside, known)
        change(folder, "1.1.0")
        return trusted

    monkeypatch.setattr(trust, "check", changing)
    if large:
        assert "1.1.0" not in open_registry(folder, settings=settings).index.entry("big").versions
    else:
        refused(folder, settings, "has digest", DigestError)


@pytest.mark.parametrize("field", ["number", "index", "size", "time", "ancestors", "signature"])
def test_a_snapshot_that_was_changed_is_not_believed(folder: Path, keys: Path, field: str) -> None:
    sign(folder, keys)
    change(folder, "1.1.0")
    sign(folder, keys)
    signed = json.loads((folder / SIGNED).read_bytes())
    values = {"number": 3, "index": f"sha256:{'0' * 64}", "size": 1, "time": "2030-01-01", "ancestors": []}
    if field == "signature":
        signed["signature"]["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    else:
        signed["snapshot"][field] = values[field]
    (folder / SIGNED).write_text(json.dumps(signed))
    refused(folder, trusting(folder, keys), "is not signed by the key")


@pytest.mark.parametrize("signature", [{}, {"dsseEnvelope": None}, {"mediaType": "x"}, {"verificationMaterial": 1}])
def test_a_signature_that_is_none_is_refused(folder: Path, keys: Path, signature: dict[str, object]) -> None:
    sign(folder, keys)
    signed = json.loads((folder / SIGNED).read_bytes())
    (folder / SIGNED).write_text(json.dumps({**signed, "signature": signature}))
    refused(folder, trusting(folder, keys), "is not signed by the key")
    material = {**signed["signature"]["verificationMaterial"], "publicKey": {"hint": ""}}
    (folder / SIGNED).write_text(
        json.dumps({**signed, "signature": {**signed["signature"], "verificationMaterial": material}})
    )
    refused(folder, trusting(folder, keys), "is not signed by the key")
    (folder / SIGNED).write_text("{}")
    with pytest.raises(SchemaError):
        open_registry(folder, settings=trusting(folder, keys))


def test_an_index_signed_by_somebody_else_is_not_used(folder: Path, keys: Path) -> None:
    sign(folder, keys, "other")
    refused(folder, trusting(folder, keys), "is not signed by the key .*mine.pub")


def test_an_old_state_that_was_put_back_is_noticed(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    old = files(folder)
    change(folder, "1.1.0")
    sign(folder, keys)
    settings = trusting(folder, keys)
    open_registry(folder, settings=settings)
    put_back(folder, old)
    refused(folder, settings, "the index is older than it has been: snapshot 1, after 2 was seen")


def test_the_index_of_one_state_with_the_signature_of_another_is_noticed(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    old = files(folder)
    change(folder, "1.1.0")
    sign(folder, keys)
    new = files(folder)
    put_back(folder, {**new, "index.json": old["index.json"]})
    refused(folder, trusting(folder, keys), "as of snapshot 2, has digest", DigestError)
    put_back(folder, {**new, SIGNED: old[SIGNED]})
    refused(folder, trusting(folder, keys), "as of snapshot 1, has digest", DigestError)


@pytest.mark.parametrize("further", [0, 1, 4])
def test_another_history_by_the_same_key_is_noticed(folder: Path, keys: Path, further: int) -> None:
    sign(folder, keys)
    beginning = files(folder)
    change(folder, "1.1.0")
    sign(folder, keys)
    settings = trusting(folder, keys)
    open_registry(folder, settings=settings)
    put_back(folder, beginning)
    for number in range(1 + further):
        change(folder, f"1.2.{number}")
        sign(folder, keys)
    refused(folder, settings, f"snapshot {2 + further} has another past than snapshot 2")


def test_a_link_of_the_chain_that_is_changed_or_missing_is_noticed(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    settings = trusting(folder, keys)
    open_registry(folder, settings=settings)
    for number in range(3):
        change(folder, f"1.1.{number}")
        sign(folder, keys)
    link = folder / "snapshots" / "2.json"
    data = link.read_bytes()
    link.write_bytes(data.replace(b"number", b"nummer"))
    refused(folder, settings, "snapshots/2.json has digest", DigestError)
    link.unlink()
    with pytest.raises(NotFoundError, match=r"snapshots/2\.json"):
        open_registry(folder, settings=settings)
    link.write_bytes(data)
    open_registry(folder, settings=settings)


def test_what_is_remembered_and_damaged_is_not_taken_for_nothing(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    settings = trusting(folder, keys)
    open_registry(folder, settings=settings)
    (seen,) = (settings.cache / "trust").glob("*.json")
    seen.write_text("{")
    refused(folder, settings, "cannot be read; remove it")


def test_an_index_whose_entries_lie_elsewhere_is_neither_signed_nor_used(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match="does not hold its entries itself"):
        signing.is_sharded(b'{"format": 1, "layout": "other", "adapters": {}}', "index.json")
    sign(folder, keys)
    monkeypatch.setattr(signing, "PARTS", frozenset({"format"}))
    with pytest.raises(UnsupportedError, match="does not hold its entries itself"):
        open_registry(folder, settings=trusting(folder, keys))


# Keys.


def test_keys_that_are_none_are_named(folder: Path, keys: Path, tmp_path: Path) -> None:
    rsa = tmp_path / "no.pem"
    rsa.write_text("no key")
    for key, error in ((rsa, UsageError), (keys / "mine.pub", UsageError), (tmp_path / "none", NotFoundError)):
        with pytest.raises(error):
            signing.sign(desks.desk_at(str(folder), Settings.load()), key)
    assert not (folder / SIGNED).exists()
    sign(folder, keys)
    for key, error in ((rsa, UsageError), (keys / "mine.pem", UsageError), (tmp_path / "none", NotFoundError)):
        with pytest.raises(error):
            trust.verify_place(str(folder), Settings.load(), key)


def test_another_key_begins_another_history_only_if_the_first_is_removed(folder: Path, keys: Path) -> None:
    sign(folder, keys)
    open_registry(folder, settings=trusting(folder, keys))
    with pytest.raises(StateError, match=f"was signed by another key, .*remove {SIGNED}"):
        sign(folder, keys, "other")
    (folder / SIGNED).unlink()
    change(folder, "1.1.0")
    assert sign(folder, keys, "other")[0].number == 1
    refused(folder, trusting(folder, keys), "is not signed by the key")
    open_registry(folder, settings=trusting(folder, keys, "other"))


def test_without_the_library_nothing_is_trusted(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(folder, keys)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'adapterhub\[sign\]'"):
        open_registry(folder, settings=trusting(folder, keys))


# Settings.


def test_a_registry_may_be_written_in_several_ways(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for place in (folder, f"{folder}/", folder / "index.json", "./registry", f"{folder.parent}/./registry"):
        refused(place, trusting(folder, keys), "is not signed")
        refused(folder, trusting(place, keys), "is not signed")
    Path("adapterhub.toml").write_text(f'[registries]\nours = "registry"\n[trust]\nours = "{keys}/mine.pub"\n')
    refused("registry", Settings.load(), "is not signed")
    Path("adapterhub.toml").write_text(f'[trust]\nours = "{keys}/mine.pub"\n')
    with pytest.raises(NotFoundError, match="there is no registry 'ours'"):
        open_registry("registry", settings=Settings.load())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://HOST/hub/", "https://host/hub/index.json", True),
        ("https://host/hub", "https://host/Hub", False),
        ("hf://me/hub@main", "hf://me/hub", True),
        ("s3://bucket/a", "s3://bucket/a/", True),
        ("s3://bucket/a", "s3://bucket/b", False),
        ("az://box@me.blob.core.windows.net/a", "az://box@me.blob.core.windows.net/a/index.json", True),
        ("gs://bucket/a/index.json", "gs://bucket/a", True),
    ],
)
def test_places_are_the_same_however_they_are_written(one: str, other: str, same: bool, keys: Path) -> None:
    key = trusted_keys.key_of(other, trusting(one, keys))
    assert key == (keys / "mine.pub" if same else None)


def test_what_the_user_trusts_no_project_can_change(
    folder: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "config" / "adapterhub" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(f'[trust]\n"{folder}" = "{keys}/mine.pub"\n')
    sign(folder, keys, "other")
    refused(folder, trusting(folder, keys, "other"), "is not signed by the key .*mine.pub")


def test_keys_of_settings_are_beside_them_and_other_values_are_refused(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "adapterhub.toml").write_text('[trust]\n"https://host/hub" = "keys/a.pub"\n')
    assert Settings.load().trust == {"https://host/hub": str(tmp_path / "keys" / "a.pub")}
    (tmp_path / "adapterhub.toml").write_text('[trust]\n"https://host/hub" = 1\n')
    with pytest.raises(UsageError, match="trust holds something that is not text"):
        Settings.load()


def test_what_a_signed_index_has_no_digest_of_is_not_used(
    folder: Path, keys: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.storage.put("me/moved", {"adapterhub.safetensors": b"other bytes"})
    artifact = dataclasses.replace(a_file(f"{hub.url}/gone", BIG[:-1]), sources=("hf://me/moved@main",))
    Index().add("gone", "1.0.0", artifact, published="2026-01-02").write(folder / "index.json")
    assert pull("gone", registry=folder).path.read_bytes() == b"other bytes"
    sign(folder, keys)
    trusting(folder, keys)
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(folder.parent / "fresh"))
    with pytest.raises(NotFoundError, match=r"there is no http.*/gone"):
        pull("gone", registry=folder)


# Places.


def on_the_hub(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("hub").storage.put("me/registry", {"index.json": Index().dumps()})
    return "hf://me/registry"


def in_a_bucket(scheme: str) -> Callable[[pytest.FixtureRequest], str]:
    def made(request: pytest.FixtureRequest) -> str:
        shop: Shop = request.getfixturevalue(scheme)
        shop.put("index.json", Index().dumps())
        return shop.url

    return made


IN_BUCKETS = [pytest.param(in_a_bucket(scheme), id=scheme) for scheme in schemes.BUCKETS]


@pytest.mark.parametrize("made", [on_the_hub, *IN_BUCKETS])
def test_indexes_elsewhere_are_signed_where_they_are(
    request: pytest.FixtureRequest, made: Callable[[pytest.FixtureRequest], str], keys: Path, tmp_path: Path
) -> None:
    place = made(request)
    assert sign(place, keys)[0].number == 1
    settings = trusting(place, keys)
    assert len(open_registry(place, settings=settings).index) == 0
    publish(place, tmp_path)
    refused(place, settings, "was changed after it was signed", DigestError)
    assert sign(place, keys)[0].number == 2
    assert not sign(place, keys)[1]
    opened = open_registry(place, settings=settings)
    assert pull("me/a", registry=opened).path.read_bytes() == b"native bytes"


def test_an_old_revision_that_is_asked_for_is_used_as_it_was_signed(hub: Hub, keys: Path, tmp_path: Path) -> None:
    hub.storage.put("me/registry", {"index.json": Index().dumps()})
    sign("hf://me/registry", keys)
    old = hub.storage.get("me/registry").head
    publish("hf://me/registry", tmp_path)
    unsigned = hub.storage.get("me/registry").head
    sign("hf://me/registry", keys)
    settings = trusting("hf://me/registry", keys)
    assert len(open_registry("hf://me/registry", settings=settings).index) == 1
    assert len(open_registry(f"hf://me/registry@{old}", settings=settings).index) == 0
    refused(f"hf://me/registry@{unsigned}", settings, "was changed after it was signed", DigestError)
    assert len(open_registry("hf://me/registry", settings=settings).index) == 1


@pytest.mark.parametrize("made", [on_the_hub, *IN_BUCKETS, lambda request: str(request.getfixturevalue("folder"))])
def test_of_several_signers_at_once_each_state_gets_one_number(
    request: pytest.FixtureRequest, made: Callable[[pytest.FixtureRequest], str], keys: Path
) -> None:
    place = made(request)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sign(place, keys), range(4)))
    assert sum(new for _, new in found) == 1
    assert {snapshot.number for snapshot, _ in found} == {1}
    open_registry(place, settings=trusting(place, keys))


def test_places_that_cannot_be_signed_say_so(keys: Path, oci_repository: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="is not signed there"):
        desks.desk_at("https://host/hub", Settings.load())
    with pytest.raises(OfflineError):
        desks.desk_at("s3://bucket", Settings.load(offline=True))
    with pytest.raises(NotFoundError):
        desks.desk_at(str(tmp_path / "nothing"), Settings.load())
    publish(oci_repository, tmp_path)
    with pytest.raises(UnsupportedError, match="cannot be signed"):
        open_registry(oci_repository, settings=trusting(oci_repository, keys))


def test_a_repository_that_must_be_signed_is_not_pulled_past_its_index(hub: Hub, keys: Path) -> None:
    trusting("hf://me/registry", keys)
    with pytest.raises(UnsupportedError, match="NAME --registry hf://me/registry"):
        pull("hf://me/registry@main")
    assert hub.requests == []


# The chain.


def chain(length: int, mark: str = "") -> list[Snapshot]:
    """Return a history, the first snapshot first."""
    made: list[Snapshot] = []
    for number in range(1, length + 1):
        ancestors = snapshots.ancestors_of(number, lambda path: made[int(Path(path).stem) - 1].data)
        index = f"sha256:{number:064x}"
        made.append(Snapshot(number=number, time=f"2026-01-01{mark}", index=index, size=1, ancestors=ancestors))
    return made


HISTORY = chain(300)


@examples(deadline=None)
@given(first=st.integers(0, 299), second=st.integers(0, 299))
def test_of_a_history_every_state_follows_every_earlier_one_and_no_later_one(first: int, second: int) -> None:
    read: list[str] = []

    def fetch(path: str) -> bytes:
        read.append(path)
        return HISTORY[int(Path(path).stem) - 1].data

    known = Ancestor(number=first + 1, digest=HISTORY[first].digest)
    if second >= first:
        snapshots.follows(HISTORY[second], known, fetch)
        assert len(read) <= (second - first).bit_length()
    else:
        with pytest.raises(IntegrityError, match="older"):
            snapshots.follows(HISTORY[second], known, fetch)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    for snapshot in chain(9):
        assert snapshots.parsed(snapshot.data, "x") == snapshot
        signed = Signed(snapshot=snapshot, signature={"any": [1]})
        assert Signed.loads(signed.dumps()) == signed
    assert chain(3)[2].ancestors[1].number == 1


# The command line.


def test_the_commands_sign_and_verify(folder: Path, keys: Path) -> None:
    typed = type_command("index", "sign", str(folder), "--key", str(keys / "mine.pem"), "--json")
    assert (typed.status, json.loads(typed.out)["snapshot"]["number"], json.loads(typed.out)["new"]) == (0, 1, True)
    typed = type_command("index", "verify", str(folder), "--key", str(keys / "mine.pub"))
    assert typed.status == 0, typed.err
    assert "is signed as snapshot 1, of 20" in typed.out
    typed = type_command("index", "verify", str(folder), "--key", str(keys / "other.pub"))
    assert (typed.status, typed.out) == (5, "")
    assert type_command("index", "verify", str(folder)).status == 2
    trusting(folder, keys)
    assert type_command("index", "verify", str(folder), "-q").out == "1\n"
    change(folder, "1.1.0")
    typed = type_command("list", "--registry", str(folder))
    assert typed.status == 5
    assert "adapterhub index sign" in typed.err
