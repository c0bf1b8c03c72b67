"""pull: from a reference to checked bytes, from the package, from folders and with the settings of a project."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adapterhub.registry
from adapterhub.errors import (
    AdapterHubError,
    DigestError,
    FormatError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    SchemaError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import (
    Artifact,
    ArtifactBase,
    ArtifactFile,
    Index,
    Lock,
    LockedAdapter,
    LockedBase,
    Pulled,
    Reference,
    Settings,
    Store,
    bundled,
    open_registry,
    pull,
    remotes,
)

BERT = ArtifactBase(id="google-bert/bert-base-uncased", architecture="bert")
MINILM = ArtifactBase(id="sentence-transformers/all-MiniLM-L6-v2", architecture="bert")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own settings and cache out of the tests."""
    for name in ("ADAPTERHUB_REGISTRY", "ADAPTERHUB_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "cache"))


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def a_file(url: str, data: bytes, base: ArtifactBase = MINILM) -> Artifact:
    return Artifact(base=base, method="seq_bn", format="native", url=url, digest=sha(data), size=len(data))


FILES = {"adapter_config.json": b"{}", "sub/weights.bin": b"abc"}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Return a folder registry with an adapter of two base models, a folder, and one on the network."""
    root = tmp_path / "registry"
    (root / "my-lora" / "sub").mkdir(parents=True)
    for path, data in FILES.items():
        (root / "my-lora" / path).write_bytes(data)
    (root / "a-1.0.0.safetensors").write_bytes(b"one")
    (root / "bert.safetensors").write_bytes(b"two")
    listed = tuple(ArtifactFile(path=path, digest=sha(data), size=len(data)) for path, data in FILES.items())
    lora = Artifact(base=BERT, method="lora", format="peft", url="my-lora", files=listed)
    index = Index().add("a", "1.0.0", a_file("a-1.0.0.safetensors", b"one"), published="2026-01-01", aliases=("sst-2",))
    index = index.add("a", "1.0.0", a_file("bert.safetensors", b"two", BERT), published="2026-01-01")
    index = index.add("lora", "0.1.0", lora, published="2026-01-01")
    index.add("far", "1.0.0", a_file("hf://user/repo@main", b"far"), published="2026-01-01").write(root / "index.json")
    return root


# From a folder.


def test_the_first_artifact_is_pulled_and_kept(registry: Path, tmp_path: Path) -> None:
    pulled = pull("a", registry=registry)
    assert pulled == Pulled(
        path=tmp_path / "cache" / "artifacts" / sha(b"one")[7:] / "a-1.0.0.safetensors",
        name="a",
        version="1.0.0",
        artifact=a_file("a-1.0.0.safetensors", b"one"),
        cached=False,
    )
    assert pulled.path.read_bytes() == b"one"
    assert pull("sst-2@^1", registry=registry).cached


def test_the_base_model_decides_which_artifact(registry: Path) -> None:
    assert pull("a", registry=registry, base="bert-base-uncased").path.read_bytes() == b"two"
    assert pull("a", registry=registry, base=MINILM.id).path.read_bytes() == b"one"


def test_a_folder_is_pulled_as_a_folder(registry: Path) -> None:
    path = pull("lora", registry=registry, format="peft").path
    assert path.name == "my-lora"
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FILES


def test_a_registry_a_store_and_a_reference_may_be_made_before(registry: Path, tmp_path: Path) -> None:
    opened, store = open_registry(registry), Store(tmp_path / "other")
    assert pull(Reference.parse("a"), registry=opened, store=store).path.is_relative_to(tmp_path / "other")


def test_what_was_pulled_works_without_its_source(registry: Path) -> None:
    pull("a", registry=registry)
    (registry / "a-1.0.0.safetensors").unlink()
    assert pull("a", registry=registry, offline=True).path.read_bytes() == b"one"


def test_a_file_that_was_tampered_with_is_refused(registry: Path, tmp_path: Path) -> None:
    (registry / "a-1.0.0.safetensors").write_bytes(b"0ne")
    with pytest.raises(DigestError) as caught:
        pull("a", registry=registry)
    assert str(caught.value) == (
        f"a@1.0.0: a-1.0.0.safetensors has digest {sha(b'0ne')}, expected {sha(b'one')}; "
        "the file was changed or damaged; fetch it again from its source"
    )
    assert caught.value.exit_code == 5
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_copy_that_was_tampered_with_is_fetched_again_or_refused(registry: Path) -> None:
    path = pull("a", registry=registry).path
    path.chmod(0o644)
    path.write_bytes(b"0ne")
    assert pull("a", registry=registry).path.read_bytes() == b"one"
    path.chmod(0o644)
    path.write_bytes(b"0ne")
    (registry / "a-1.0.0.safetensors").unlink()
    with pytest.raises(DigestError, match="the stored copy"):
        pull("a", registry=registry)


def test_a_missing_file_of_a_registry_is_not_found(registry: Path) -> None:
    (registry / "my-lora" / "sub" / "weights.bin").unlink()
    with pytest.raises(NotFoundError, match=r"there is no my-lora/sub/weights\.bin in .*; the registry is incomplete"):
        pull("lora", registry=registry)


def test_a_link_that_leads_out_of_the_registry_is_refused(registry: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"one")
    for path in (registry / "a-1.0.0.safetensors",):
        path.unlink()
        path.symlink_to(secret)
    with pytest.raises(NotFoundError, match="leads out of"):
        pull("a", registry=registry)


def test_a_link_within_the_registry_is_followed(registry: Path) -> None:
    (registry / "a-1.0.0.safetensors").rename(registry / "real")
    (registry / "a-1.0.0.safetensors").symlink_to("real")
    assert pull("a", registry=registry).path.read_bytes() == b"one"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_file_does_not_hang(registry: Path) -> None:
    (registry / "a-1.0.0.safetensors").unlink()
    os.mkfifo(registry / "a-1.0.0.safetensors")
    with pytest.raises(NotFoundError, match="is not a file"):
        pull("a", registry=registry)


def test_an_unsafe_path_in_an_index_is_refused_when_it_is_used(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"one")
    text = (registry / "index.json").read_bytes()
    (registry / "index.json").write_bytes(text.replace(b'"a-1.0.0.safetensors"', b'"../outside"'))
    with pytest.raises(FormatError, match=r"url '\.\./outside' has a part '\.\.'"):
        pull("a", registry=registry)


def test_a_registry_that_breaks_its_schema_is_not_used(registry: Path) -> None:
    (registry / "index.json").write_bytes((registry / "index.json").read_bytes().replace(b'"size"', b'"sise"'))
    with pytest.raises(
        SchemaError, match=r"adapters\['a'\]\.versions\['1\.0\.0'\]\.artifacts\[0\]: unknown field 'sise'"
    ):
        pull("a", registry=registry)


# From the package.


def test_a_bundled_file_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    (tmp_path / "b-1.0.0.safetensors").write_bytes(b"bytes")
    Index().add("b", "1.0.0", a_file("bundled:b-1.0.0.safetensors", b"bytes"), published="2026-01-01").write(
        tmp_path / "work" / "index.json"
    )
    pulled = pull("b", registry=".", offline=True)
    assert (pulled.path.name, pulled.path.read_bytes()) == ("b-1.0.0.safetensors", b"bytes")


def test_everything_that_the_package_bundles_can_be_pulled_offline() -> None:
    registry = open_registry("bundled")
    for name in registry.index.names():
        entry = registry.index.entry(name)
        for version, release in entry.versions.items():
            for artifact in release.artifacts:
                if artifact.url.startswith("bundled:"):
                    assert pull(f"{name}@{version}", base=artifact.base.id, offline=True).path.exists()


# From elsewhere.


@pytest.mark.parametrize(
    "reference", ["hf://user/repo@main", "s3://bucket/key", "oci://host/a:tag", "https://host/a.zip", "far"]
)
def test_the_network_is_not_used(registry: Path, reference: str) -> None:
    with pytest.raises(OfflineError, match="network") as offline:
        pull(reference, registry=registry, offline=True)
    assert offline.value.exit_code == 7
    assert ("hf://user/repo@main" if reference == "far" else reference.removesuffix(":tag")) in str(offline.value)


@pytest.mark.parametrize("reference", ["s3://bucket/key", "https://host/a.zip"])
def test_an_address_that_no_registry_vouches_for_is_not_read(reference: str) -> None:
    with pytest.raises(UnsupportedError, match="has no digest that its bytes could be held to") as unsupported:
        pull(reference, offline=False)
    assert unsupported.value.exit_code == 6


def test_a_registry_on_the_network_is_not_read_offline() -> None:
    with pytest.raises(OfflineError, match=r"the registry https://host/hub needs the network"):
        pull("a", registry="https://host/hub/index.json", offline=True)
    with pytest.raises(OfflineError, match=r"the registry s3://bucket needs the network"):
        pull("a", registry="s3://bucket", offline=True)
    with pytest.raises(UnsupportedError, match=r"the registry ftp://host cannot be read: .*folders"):
        pull("a", registry="ftp://host")


def test_each_remote_takes_its_own_urls_only() -> None:
    urls = [
        "bundled:a",
        "a/b",
        "hf://u/r",
        "https://host/a",
        "s3://b/k",
        "oci://h/a",
        "az://b/k",
        "gs://b/k",
        "ftp://h/a",
    ]
    takers = {url: [type(r).__name__ for r in remotes.REMOTES if r.takes(url)] for url in urls}
    assert takers == {
        "bundled:a": ["Bundled"],
        "a/b": ["Folder"],
        "hf://u/r": ["Hub"],
        "https://host/a": ["Http"],
        "s3://b/k": ["Buckets"],
        "oci://h/a": ["Oci"],
        "az://b/k": ["Buckets"],
        "gs://b/k": ["Buckets"],
        "ftp://h/a": [],
    }
    assert [type(r).__name__ for r in remotes.REMOTES if r.network] == ["Http", "Hub", "Buckets", "Oci"]


def test_a_path_is_returned_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "work" / "mine.safetensors").touch()
    (tmp_path / "work" / "my.folder").mkdir()
    file = pull("./mine.safetensors")
    assert file == Pulled(path=Path("mine.safetensors"), name="mine", version=None, artifact=None, cached=True)
    assert pull("./my.folder").name == "my.folder"
    assert pull(".").name == "work"
    assert not (tmp_path / "cache").exists()


def test_a_path_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError, match=r"there is no file or folder \./mine"):
        pull("./mine")


def test_what_was_written_here_under_a_name_is_pointed_to(registry: Path, tmp_path: Path) -> None:
    for name in ("moods-0.9.0.json", "moods-1.0.0.json", "moods-x.json", "moods-1.0.0.txt"):
        (tmp_path / "work" / name).touch()
    with pytest.raises(NotFoundError, match=r"for the file or folder write \./moods-1\.0\.0\.json"):
        pull("moods")


def test_a_path_without_its_dot_is_explained(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "mine.safetensors").touch()
    with pytest.raises(NotFoundError, match=r"for the file or folder write \./mine\.safetensors"):
        pull("mine.safetensors", registry=registry)


def test_every_error_of_a_pull_is_one_of_ours(registry: Path) -> None:
    for reference in ("nothing", "a@9", "a@x.y", "::", "hf://x", "ftp://x", "unknown::a"):
        with pytest.raises(AdapterHubError) as caught:
            pull(reference, registry=None if "::" in reference else registry)
        assert caught.value.hint or isinstance(caught.value, IntegrityError)


# Settings.


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_goes_before_the_environment_the_project_and_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    user = write(tmp_path / "config" / "adapterhub" / "config.toml", 'registry = "user"\n')
    assert (Settings.load().registry, Settings.load().origins["registry"]) == (str(user.parent / "user"), str(user))
    project = write(work / "adapterhub.toml", 'registry = "project"\n')
    assert (Settings.load().registry, Settings.load().origins["registry"]) == (str(work / "project"), str(project))
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", "environment")
    assert (Settings.load().registry, Settings.load().origins["registry"]) == ("environment", "ADAPTERHUB_REGISTRY")
    flagged = Settings.load(registry="flag")
    assert (flagged.registry, flagged.origins["registry"]) == ("flag", "the command line")


def test_without_any_settings_there_are_defaults() -> None:
    found = Settings.load(environ={"HOME": "/home/me"})
    assert (found.registry, found.cache, found.offline) == ("bundled", Path("/home/me/.cache/adapterhub"), False)
    assert found.origins == {"registry": "the default", "cache": "the default", "offline": "the default"}


def test_the_project_file_is_looked_for_upwards(tmp_path: Path) -> None:
    write(tmp_path / "work" / "adapterhub.toml", "offline = true\n")
    deep = tmp_path / "work" / "a" / "b"
    deep.mkdir(parents=True)
    assert Settings.load(folder=deep).offline
    assert not Settings.load(folder=tmp_path).offline


def test_a_named_registry_is_that_of_the_settings(registry: Path, tmp_path: Path) -> None:
    write(tmp_path / "work" / "adapterhub.toml", '[registries]\nacme = "../registry"\n')
    assert pull("acme::a").path.read_bytes() == b"one"
    assert Settings.load().location("bundled") == "bundled"
    with pytest.raises(NotFoundError, match=r"there is no registry 'other'; known are acme, bundled; add it under"):
        pull("other::a")


def test_the_nearer_file_wins_for_a_registry_that_both_name(tmp_path: Path) -> None:
    write(tmp_path / "config" / "adapterhub" / "config.toml", '[registries]\na = "/user"\nb = "https://host/x"\n')
    write(tmp_path / "work" / "adapterhub.toml", '[registries]\na = "/project"\n')
    assert Settings.load().registries == {"a": "/project", "b": "https://host/x"}


@pytest.mark.parametrize(
    ("environ", "offline"),
    [
        ({}, False),
        ({"ADAPTERHUB_OFFLINE": "1"}, True),
        ({"ADAPTERHUB_OFFLINE": "TRUE"}, True),
        ({"ADAPTERHUB_OFFLINE": ""}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"TRANSFORMERS_OFFLINE": "yes"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"HF_HUB_OFFLINE": "1", "ADAPTERHUB_OFFLINE": "0"}, False),
    ],
)
def test_the_network_is_switched_off_by_our_variable_or_those_of_hugging_face(
    environ: dict[str, str], offline: bool
) -> None:
    assert Settings.load(environ={"HOME": "/home/me", **environ}).offline is offline


def test_a_flag_switches_the_network_on_again() -> None:
    assert not Settings.load(offline=False, environ={"HOME": "/", "ADAPTERHUB_OFFLINE": "1"}).offline


def test_a_variable_that_cannot_be_read_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="ADAPTERHUB_OFFLINE is 'maybe'; set it to 1 or 0"):
        Settings.load(environ={"ADAPTERHUB_OFFLINE": "maybe"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("registry = [", "cannot be read"),
        (
            "registy = 'a'\noffline = 1\n",
            "unknown key 'registy', offline is not true or false; its keys are registry, cache",
        ),
        ("registries = 'a'", "registries is not a table"),
        ("[registries]\na = 1", "registries holds something that is not text"),
    ],
)
def test_a_settings_file_that_cannot_be_used_lists_its_faults(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "work" / "adapterhub.toml", text)
    with pytest.raises(UsageError) as caught:
        Settings.load()
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_a_relative_xdg_folder_is_ignored_as_its_specification_says() -> None:
    assert Settings.load(environ={"HOME": "/home/me", "XDG_CACHE_HOME": "x"}).cache == Path(
        "/home/me/.cache/adapterhub"
    )
    assert Settings.load(environ={"HOME": "/home/me", "XDG_CACHE_HOME": "/x"}).cache == Path("/x/adapterhub")


# The lock.


def test_a_lock_is_read_as_it_was_written(registry: Path, tmp_path: Path) -> None:
    artifact = open_registry(registry).index.resolve("lora").artifact
    pinned = LockedAdapter(
        reference="lora@^0.1", name="lora", version="0.1.0", artifact=artifact, registry=str(registry)
    )
    base = LockedBase(architecture="bert", revision="main", files=artifact.files)
    lock = Lock(adapters={"lora": pinned}, bases={BERT.id: base, MINILM.id: LockedBase(architecture="bert")})
    lock.write(tmp_path / "adapterhub.lock")
    assert Lock.load(tmp_path / "adapterhub.lock") == lock
    assert (tmp_path / "adapterhub.lock").read_bytes() == lock.dumps()
    assert Lock.loads(Lock().dumps()) == Lock()


def test_a_lock_that_breaks_its_schema_is_neither_read_nor_written(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="key '/home/me' is not a Hub id"):
        Lock(bases={"/home/me": LockedBase(architecture="bert")}).write(tmp_path / "adapterhub.lock")
    assert list(tmp_path.glob("*.lock")) == []
    (tmp_path / "adapterhub.lock").write_text('{"format": 2}')
    with pytest.raises(SchemaError, match="format: 2 is not 1"):
        Lock.load(tmp_path / "adapterhub.lock")
    with pytest.raises(NotFoundError, match="`adapterhub lock` writes one"):
        Lock.load(tmp_path / "other.lock")


# The package.


def test_the_public_names_are_those_that_it_says() -> None:
    assert sorted(adapterhub.registry.__all__) == adapterhub.registry.__all__ == dir(adapterhub.registry)
    assert [name for name in adapterhub.registry.__all__ if getattr(adapterhub.registry, name).__name__ != name] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = adapterhub.registry.nothing


def test_importing_the_registry_imports_next_to_nothing() -> None:
    program = "import sys; before = set(sys.modules); import adapterhub.registry; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 30


def test_pulling_opens_no_socket(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert pull("a", registry=registry).path.read_bytes() == b"one"
