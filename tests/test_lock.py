"""A project is locked once and is the same everywhere: on other caches, after the registry changed, and offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_session import type_command
from hub_double import TOKEN, Hub
from local_server import StaticHost, running
from publications import a_publication
from remote_cases import FOLDER, a_file, a_folder, sha

from adapterhub.errors import SchemaError
from adapterhub.hub.running import revision_of
from adapterhub.registry import Index, Lock, Settings, publisher_at
from adapterhub.registry.frozen import frozen
from adapterhub.schemas import dumps

# huggingface_hub 2.4.0 itself, where it uploads a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PROJECT = """
[adapters]
reviews = "sst2-bert@^1"
moods = "moods-bert"
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_hub(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub be a host that knows nothing, unless a test says otherwise."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("ADAPTERHUB_OFFLINE", "1")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "adapterhub.toml").write_text(PROJECT)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ours(project: Path) -> Path:
    """A registry in the folder of the project, with two versions of one adapter and a folder of PEFT."""
    home = project / "hub"
    for path, data in {"a-1": b"one", "a-2": b"two", **{f"lora/{p}": d for p, d in FOLDER.items()}}.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    index = Index().add("me/a", "1.0.0", a_file("a-1", b"one"), published="2026-01-01")
    index.add("lora", "0.1.0", a_folder("lora", FOLDER), published="2026-01-01").write(home / "index.json")
    (project / "adapterhub.toml").write_text('registry = "hub"\n[adapters]\na = "me/a"\nlora = "lora"\n')
    return home


def publish_second(home: Path) -> None:
    index = Index.load(home / "index.json")
    index.add("me/a", "1.1.0", a_file("a-2", b"two"), published="2026-01-02").write(home / "index.json")


def lock(*arguments: str) -> list[dict[str, str]]:
    """Lock, and return what changed."""
    typed = type_command("lock", *arguments, "--json")
    assert typed.status == 0, typed.out + typed.err
    changes: list[dict[str, str]] = typed.json["changes"]
    return changes


def synced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return name in the project (and file) → bytes after a frozen sync into a cache."""
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(cache))
    typed = type_command("sync", "--frozen", "--json")
    assert typed.status == 0, typed.out + typed.err
    found = {}
    for one in typed.json["adapters"]:
        place = Path(one["path"])
        for path in [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]:
            found[f"{one['name']}:{path.name}"] = path.read_bytes()
    return found


# What is pinned.


def test_all_adapters_of_a_project_are_pinned_those_of_compositions_too(project: Path) -> None:
    assert [change["name"] for change in lock()] == ["moods", "reviews"]
    found = Lock.load(project / "adapterhub.lock")
    assert found.adapters["reviews"].title == "sst2-bert@1.0.0"
    assert set(found.adapters["moods"].parts) == {"product-reviews-bert", "tweets-bert", "editorials-bert"}
    assert all(pin.bytes.identity.startswith("sha256:") for pin in found.pins())
    assert set(found.bases) == {"sentence-transformers/all-MiniLM-L6-v2"}
    assert found.dumps() == (project / "adapterhub.lock").read_bytes()


def test_locked_again_nothing_changes(project: Path) -> None:
    lock()
    before = (project / "adapterhub.lock").read_bytes()
    assert lock() == []
    assert (project / "adapterhub.lock").read_bytes() == before


def test_a_base_model_is_pinned_at_the_commit_that_the_hub_or_its_cache_knows(
    project: Path, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "google-bert/bert-base-uncased"
    typed = type_command("lock")
    assert f"the base model {base} is not pinned: no commit of it is known here" in typed.err
    ref = tmp_path / "hf" / "models--google-bert--bert-base-uncased" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    lock()
    assert Lock.load(project / "adapterhub.lock").bases[base].revision == COMMIT
    with running(Hub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("ADAPTERHUB_OFFLINE")
        hub.storage.put(base, {"config.json": b"{}"})
        lock()
        assert Lock.load(project / "adapterhub.lock").bases[base].revision == COMMIT
        lock("--upgrade")
        assert Lock.load(project / "adapterhub.lock").bases[base].revision == hub.storage.get(base).head


def test_a_frozen_run_takes_the_commit_of_the_adapter_or_else_of_the_lock(
    project: Path, ours: Path, tmp_path: Path
) -> None:
    ref = tmp_path / "hf" / "models--google-bert--bert-base-uncased" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    lock()
    base, other = "google-bert/bert-base-uncased", "f" * 40
    assert [revision_of(base, said, frozen()) for said in (None, "main", other)] == [COMMIT, COMMIT, other]
    assert revision_of("another/base", "main", frozen()) == "main"
    assert revision_of(base, "main", None) == "main"


def test_base_models_are_fetched_at_their_pinned_commits_in_one_form(
    project: Path, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "google-bert/bert-base-uncased"
    with running(Hub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("ADAPTERHUB_OFFLINE")
        hub.storage.put(base, {"config.json": b"{}", "model.safetensors": b"old", "model.bin": b"b", "tf.h5": b"h"})
        lock()
        commit = hub.storage.get(base).head
        hub.storage.put(base, {"config.json": b"{1}", "model.safetensors": b"new"})
        typed = type_command("sync", "--frozen", "--bases", "--json")
        assert typed.status == 0, typed.out
        (found,) = typed.json["bases"]
        assert (found["id"], found["revision"]) == (base, commit)
        there = {path.name: path.read_bytes() for path in Path(found["path"]).iterdir()}
        assert there == {"config.json": b"{}", "model.safetensors": b"old"}
    assert type_command("sync", "--frozen", "--bases", "--offline").status == 7


# The same everywhere.


def test_a_frozen_project_is_the_same_on_another_cache(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    first = synced(tmp_path / "one", monkeypatch)
    assert first == synced(tmp_path / "two", monkeypatch)
    assert {name.partition(":")[0] for name in first} == {
        "reviews",
        "moods",
        *(f"moods/{leaf}" for leaf in ("product-reviews-bert", "tweets-bert", "editorials-bert")),
    }


def test_a_changed_registry_does_not_change_a_frozen_project(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    before = synced(tmp_path / "one", monkeypatch)
    publish_second(ours)
    assert synced(tmp_path / "two", monkeypatch) == before
    (ours / "index.json").write_text("broken")
    assert synced(tmp_path / "three", monkeypatch) == before
    assert before["a:a-1"] == b"one"


def test_a_project_may_be_moved_with_the_registry_in_it(
    project: Path, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    before = synced(tmp_path / "one", monkeypatch)
    shutil.move(project, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert synced(tmp_path / "two", monkeypatch) == before


def test_one_wrong_byte_in_the_registry_ends_a_frozen_sync(ours: Path) -> None:
    lock()
    (ours / "a-1").write_bytes(b"onE")
    typed = type_command("sync", "--frozen", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_DIGEST")


def test_what_a_host_and_the_hub_gave_is_fetched_without_their_indexes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADAPTERHUB_OFFLINE")
    index = Index().add("a", "1.0.0", a_file("files/a", b"one"), published="2026-01-01")
    files = {"index.json": index.dumps(), "files/a": b"one"}
    with running(StaticHost(files)) as host, running(Hub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for to, name in (("hf://me/hub", "b"), ("hf://me/c", "c")):
            publisher = publisher_at(to, settings=Settings.load(), create=to.endswith("hub"))
            publisher.publish(a_publication(tmp_path / "sources", name))
        text = f'[registries]\nweb = "{host.url}"\nhub = "hf://me/hub"\n[adapters]\n'
        (project / "adapterhub.toml").write_text(text + 'a = "web::a"\nb = "hub::b"\nc = "hf://me/c"\n')
        lock()
        publisher_at("hf://me/c", settings=Settings.load()).publish(
            a_publication(tmp_path / "sources", "c", "2.0.0", b"two")
        )
        del host.files["index.json"]
        host.requests.clear()
        found = synced(tmp_path / "other", monkeypatch)
        assert [request.path for request in host.requests] == ["/files/a"]
        assert found["a:a"] == b"one"
        assert found["b:b-1.0.0.safetensors"] == b"native bytes"
        assert found["c:adapterhub.safetensors"] == b"native bytes"
        for reference in ("a", "c", "hf://me/c"):
            assert type_command("pull", reference, "--frozen", "--offline", "-q").status == 0
        assert type_command("pull", "hf://me/hub", "--frozen").status == 3


# Which versions.


def test_pins_stay_until_they_are_upgraded(ours: Path) -> None:
    lock()
    publish_second(ours)
    assert lock() == []
    assert lock("--upgrade", "lora") == []
    assert [(c["name"], c["before"], c["after"]) for c in lock("--upgrade", "a")] == [("a", "me/a@1.0.0", "me/a@1.1.0")]
    assert lock("--upgrade") == []


def test_what_is_asked_for_anew_is_pinned_anew_and_what_is_not_goes(project: Path, ours: Path) -> None:
    lock()
    publish_second(ours)
    (project / "adapterhub.toml").write_text('registry = "hub"\n[adapters]\na = "me/a@1.1"\n')
    assert [(c["name"], c["after"]) for c in lock()] == [("a", "me/a@1.1.0"), ("lora", None)]


def test_base_and_format_are_part_of_what_is_asked_for(project: Path, ours: Path) -> None:
    (project / "adapterhub.toml").write_text(
        'registry = "hub"\n[adapters]\na = { reference = "me/a", base = "bert-base-uncased", format = "native" }\n'
    )
    lock()
    (project / "adapterhub.toml").write_text(
        'registry = "hub"\n[adapters]\na = { reference = "me/a", format = "peft" }\n'
    )
    typed = type_command("sync", "--frozen")
    assert typed.status == 1
    assert (
        "'a': it asks for one in format 'peft', pinned is that for google-bert/bert-base-uncased (native)" in typed.err
    )
    typed = type_command("lock")
    assert (typed.status, "has no artifact in format 'peft'" in typed.err) == (3, True)


def test_everything_that_cannot_be_pinned_is_told_at_once(project: Path, ours: Path) -> None:
    (project / "adapterhub.toml").write_text('registry = "hub"\n[adapters]\na = "me/b"\nb = "lora@^9"\n')
    typed = type_command("lock")
    assert typed.status == 3
    assert "there is no adapter 'me/b'" in typed.err
    assert "lora has no version ^9" in typed.err
    assert not (project / "adapterhub.lock").exists()


# A stale lock is told.


def test_a_stale_lock_is_an_error_of_check_and_of_everything_frozen(project: Path, ours: Path) -> None:
    lock()
    assert type_command("lock", "--check").status == 0
    (project / "adapterhub.toml").write_text('registry = "hub"\n[adapters]\na = "me/a@^1"\nb = "lora"\n')
    before = (project / "adapterhub.lock").read_bytes()
    for command in (("lock", "--check"), ("sync", "--frozen"), ("pull", "a", "--frozen"), ("show", "a", "--frozen")):
        typed = type_command(*command)
        assert typed.status == 1, command
        assert "is stale: 'a': it asks for me/a@^1, pinned is me/a; 'b' is not pinned; 'lora' is not" in typed.err
        assert "`adapterhub lock` brings it up to date" in typed.err
    assert (project / "adapterhub.lock").read_bytes() == before
    assert type_command("sync").status == 0
    assert type_command("lock", "--check").status == 0


def test_without_a_lock_or_a_project_frozen_commands_end_with_status_3(project: Path) -> None:
    typed = type_command("sync", "--frozen")
    assert (typed.status, "`adapterhub lock` writes one" in typed.err) == (3, True)
    (project / "adapterhub.toml").unlink()
    typed = type_command("lock")
    assert (typed.status, "there is no adapterhub.toml" in typed.err) == (3, True)


def test_a_dry_run_tells_and_writes_nothing(project: Path) -> None:
    assert [change["name"] for change in lock("--dry-run")] == ["moods", "reviews"]
    assert not (project / "adapterhub.lock").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1", "'a' is neither text nor a table of texts"),
        ('a = { base = "x" }', "'a' has other fields than reference, base, format, method, or no reference"),
        ('a = { reference = "x", version = "1" }', "'a' has other fields than"),
        ('"A b" = "x"', "'A b' is not a name"),
        ('a = "./file"', "'./file' is a path"),
        ('a = "x@@"', "'a': "),
    ],
)
def test_a_table_that_cannot_be_understood_says_where(project: Path, text: str, fault: str) -> None:
    (project / "adapterhub.toml").write_text(f"[adapters]\n{text}\nalso = 2\n")
    typed = type_command("lock")
    assert typed.status == 2
    assert fault in typed.err
    assert "'also' is neither" in typed.err


# What --frozen gives.


def test_frozen_commands_find_what_is_pinned_by_its_own_name_and_the_project_s(project: Path) -> None:
    lock()
    for name in ("reviews", "sst2-bert@^1", "tweets-bert"):
        typed = type_command("pull", name, "--frozen", "--json")
        assert typed.status == 0, typed.out
        assert sha(Path(typed.json["path"]).read_bytes()) == typed.json["digest"]
    moods = type_command("pull", "moods", "--frozen", "--json").json
    assert set(moods["adapters"]) == {"product-reviews-bert", "tweets-bert", "editorials-bert"}
    assert type_command("show", "reviews", "--frozen").out.startswith("reviews 1.0.0")


def test_frozen_commands_refuse_what_is_not_pinned(project: Path) -> None:
    lock()
    typed = type_command("pull", "editorials-berd", "--frozen")
    assert typed.status == 3
    assert "there is no adapter 'editorials-berd' in adapterhub.lock" in typed.err
    assert "did you mean editorials-bert" in typed.err
    assert type_command("show", "sst2-bert@2", "--frozen").status == 3
    assert type_command("pull", "hf://me/x", "--frozen").status == 3
    typed = type_command("pull", "reviews", "--frozen", "--registry", "bundled")
    assert (typed.status, "--frozen takes adapters from the lock" in typed.err) == (2, True)


def test_an_adapter_that_two_names_pin_has_to_be_called_by_one_of_them(project: Path, ours: Path) -> None:
    publish_second(ours)
    (project / "adapterhub.toml").write_text('registry = "hub"\n[adapters]\nnew = "me/a"\nold = "me/a@1.0.0"\n')
    lock()
    typed = type_command("pull", "me/a", "--frozen")
    assert (typed.status, "is another name of new and old" in typed.err) == (2, True)
    assert Path(type_command("pull", "old", "--frozen", "-q").out.strip()).read_bytes() == b"one"


def test_a_lock_that_pins_neither_artifact_nor_content_is_refused(project: Path) -> None:
    (project / "adapterhub.lock").write_bytes(dumps({"format": 1, "adapters": {"a": {"reference": "x"}}}))
    with pytest.raises(SchemaError):
        Lock.load(project / "adapterhub.lock")
    typed = type_command("sync", "--frozen", "--json")
    assert typed.error["code"] == "E_SCHEMA"
    assert json.loads((project / "adapterhub.lock").read_bytes())["format"] == 1
