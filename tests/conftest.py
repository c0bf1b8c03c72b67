"""What several test files start from: a tiny base model, an adapter trained on it, and a registry that offers it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import azurite_server
import gcs_double
import pytest
import s3_server
from bucket_places import Shop
from cli_session import BASE_ID, make_base, sentences, type_command, write_csv
from composed_adapters import write_adapter
from hub_double import TOKEN, Hub
from hypothesis import settings
from local_server import running
from oci_server import OciServer, docker_registry
from signed_places import make_keys

from adapterhub.registry import schemes


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model."""
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the same shape with other weights."""
    return make_base(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained on the tiny model by the command line; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_csv(folder / "reviews.csv", sentences(240))
    out = folder / "tiny-reviews.safetensors"
    texts = ["--summary", "Is a tiny review positive?", "--dataset", "tiny reviews", "--dataset-license", "CC0-1.0"]
    typed = type_command(
        *("train", str(data), "--base", str(base), "--base-id", BASE_ID, "--out", str(out), "--version", "1.0.0"),
        *("--task", "sentiment/reviews", "--license", "Apache-2.0", "--language", "en", *texts),
        *("--epochs", "10", "--lr", "0.01", "--method", "double_seq_bn[reduction_factor=2]+layer_norm"),
    )
    assert typed.status == 0, typed.err
    return out


@pytest.fixture
def registry(clean: None, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with the trained adapter, which is the default one."""
    folder = tmp_path / "hub"
    folder.mkdir()
    file = folder / "tiny-reviews-1.0.0.safetensors"
    file.write_bytes(trained.read_bytes())
    typed = type_command(
        "index", "add", str(file), "--index", str(folder / "index.json"), "--alias", "tiny/reviews@acme"
    )
    assert typed.status == 0, typed.err
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(folder))
    return folder


@pytest.fixture(scope="session")
def offered(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a few small adapters; do not change it."""
    folder = tmp_path_factory.mktemp("hub")
    files = [write_adapter(folder, base, name) for name in ("movies", "books")]
    files += [write_adapter(folder, base, "movies", "1.2.0"), write_adapter(folder, base, "low", method="lora[r=2]")]
    files += [write_adapter(folder, base, "foreign", base_id="acme/other-bert")]
    typed = type_command("index", "add", *map(str, files), "--index", str(folder / "index.json"))
    assert typed.status == 0, typed.err
    return folder


@pytest.fixture
def shelf(clean: None, offered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that registry, the default one."""
    folder = Path(shutil.copytree(offered, tmp_path / "hub"))
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(folder))
    return folder


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of the person who tests be read or changed: settings, caches, network, colours."""
    for name in ("ADAPTERHUB_REGISTRY", "ADAPTERHUB_DEBUG", "ADAPTERHUB_OFFLINE", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def online(clean: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Allow the network, without proxies, tokens and long waits, and without the storage that only the Hub has."""
    from huggingface_hub import constants

    from adapterhub.registry import streaming

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(streaming, "WAIT_SECONDS", 0.01)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Let PEFT warn of what it is asked for."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The double of the Hub, with a user who may write."""
    with running(Hub()) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture(scope="session")
def seaweed() -> Iterator[str]:
    """The address of a real store that speaks S3."""
    with s3_server.seaweedfs() as address:
        yield address


@pytest.fixture
def s3(seaweed: str, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty place in a bucket of a real store that speaks S3."""
    with s3_server.empty_prefix(seaweed, monkeypatch) as shop:
        yield shop


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """The address of the emulator of Azure Blob Storage."""
    with azurite_server.azurite() as address:
        yield address


@pytest.fixture
def az(azurite: str, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty place in a container of Azure Blob Storage."""
    with azurite_server.empty_container(azurite, monkeypatch) as shop:
        yield shop


@pytest.fixture(scope="session")
def google_storage() -> Iterator[str]:
    """The address of a double of Google Cloud Storage, or of the emulator that the environment names."""
    with gcs_double.google_storage() as address:
        yield address


@pytest.fixture
def gs(google_storage: str, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty place in a bucket of Google Cloud Storage."""
    with gcs_double.empty_place(google_storage, monkeypatch) as shop:
        yield shop


@pytest.fixture(params=schemes.BUCKETS)
def shop(request: pytest.FixtureRequest) -> Shop:
    """An empty place in a bucket of each kind of store."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Shop)
    return found


@pytest.fixture
def bucket(s3: Shop) -> str:
    """The URL of an empty place in a bucket."""
    return s3.url


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys: mine.pem, mine.pub, other.pem, other.pub."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def oci_server() -> Iterator[OciServer]:
    """A real registry of OCI that lets everybody in."""
    with docker_registry() as found:
        yield found


@pytest.fixture
def oci_repository(oci_server: OciServer, online: None) -> str:
    """The URL of a repository that is not there yet."""
    return f"oci://{oci_server.host}/me/a{os.urandom(8).hex()}"


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Yield a folder in which this process, root or not, has no more rights than the modes say."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    is_root = os.geteuid() == 0
    if is_root:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root is the only user of this namespace, and nothing is read-only for root")
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o777)
        shutil.rmtree(folder)


# A check of a submission says the same whenever it runs; at a desk every run looks at new examples.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
