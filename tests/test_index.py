"""The index: read, resolved, extended and written, and refused where it contradicts itself."""

from __future__ import annotations

import gc
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adapterhub
from adapterhub import schemas
from adapterhub.errors import AdapterHubError, FormatError, NotFoundError, SchemaError, StateError, UsageError
from adapterhub.registry import Artifact, ArtifactBase, ArtifactFile, Index, Registry, Release, open_registry, verdicts

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that is no fault."""

BERT = "google-bert/bert-base-uncased"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def an_artifact(base: str = BERT, kind: str = "native", url: str = "a.safetensors", byte: str = "0") -> Artifact:
    return Artifact(
        base=ArtifactBase(id=base, architecture="bert"),
        method="seq_bn",
        format=kind,
        url=url,
        digest="sha256:" + byte * 64,
        size=10,
    )


def a_folder(*paths: str) -> Artifact:
    files = tuple(ArtifactFile(path=path, digest="sha256:" + "0" * 64, size=1) for path in paths)
    return Artifact(
        base=ArtifactBase(id=BERT, architecture="bert"), method="lora", format="peft", url="dir", files=files
    )


def an_index(*versions: str, name: str = "sst2-bert", **fields: Any) -> Index:
    """Return an index with one adapter in these versions, each with other bytes."""
    index = Index()
    for i, version in enumerate(versions):
        index = index.add(name, version, an_artifact(byte=f"{i:x}"), published="2026-01-01", **fields)
    return index


# Reading and writing.


def test_the_index_in_the_package_is_valid_and_written_in_the_one_way() -> None:
    path = Path(adapterhub.__file__).with_name("index.json")
    index = Index.load(path)
    index.check()
    assert index.dumps() == path.read_bytes()


def test_the_bytes_are_stable_and_diff_well() -> None:
    index = an_index("1.10.0", "1.9.0", "1.9.0-rc.1", summary="s", aliases=("b", "a"))
    index = index.add("abc", "1.0.0", a_folder("z", "a/b"), published="2026-01-01")
    text = index.dumps().decode()
    data = json.loads(text)
    assert list(data) == ["$schema", "format", "adapters"]
    assert list(data["adapters"]) == ["abc", "sst2-bert"]
    assert list(data["adapters"]["sst2-bert"]) == ["summary", "aliases", "versions"]
    assert data["adapters"]["sst2-bert"]["aliases"] == ["a", "b"]
    assert list(data["adapters"]["sst2-bert"]["versions"]) == ["1.9.0-rc.1", "1.9.0", "1.10.0"]
    assert [f["path"] for f in data["adapters"]["abc"]["versions"]["1.0.0"]["artifacts"][0]["files"]] == ["a/b", "z"]
    assert data["adapters"]["abc"]["versions"]["1.0.0"]["yanked"] is False
    assert text.endswith("}\n")
    assert Index.loads(text.encode()) == index


@settings(STEADY, max_examples=30)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_input_leaves_no_trace(rng: random.Random) -> None:
    index = an_index("1.0.0", "2.0.0", "0.5.0", summary="s", language=("pt", "en"))
    index = index.add("other", "1.0.0", an_artifact(), published="2026-01-01")

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            rng.shuffle(items)
            return {key: shuffled(item) for key, item in items}
        return value

    again = Index.loads(json.dumps(shuffled(json.loads(index.dumps()))).encode())
    assert again == index
    assert again.dumps() == index.dumps()


def test_what_schema_a_file_names_is_kept() -> None:
    index = Index.loads(b'{"$schema": "schemas/index.schema.json", "format": 1, "adapters": {}}')
    assert json.loads(index.dumps())["$schema"] == "schemas/index.schema.json"


def test_an_index_is_written_in_one_step_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text("old")
    path.chmod(0o640)
    an_index("1.0.0").write(path)
    assert Index.load(path) == an_index("1.0.0")
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_new_index_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    Index().write(tmp_path / "index.json")
    (tmp_path / "other").touch()
    assert (tmp_path / "index.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_index_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(AdapterHubError, match=r"cannot write .*nowhere/index\.json: No such file or directory"):
        Index().write(tmp_path / "nowhere" / "index.json")


def test_an_inconsistent_index_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    index = Index.loads(an_index("1.0.0").dumps().replace(b'"published"', b'"extra": {}, "published"'))
    bad = Index(adapters=type(index.adapters)({**index.adapters.raw, "Bad Name": {}}))
    with pytest.raises(SchemaError):
        bad.write(path)
    assert not path.exists()


def test_a_missing_index_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no index at"):
        Index.load(tmp_path / "index.json")
    with pytest.raises(NotFoundError):
        Index.load(tmp_path / "index.json" / "x")


def test_a_folder_in_place_of_an_index_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AdapterHubError, match=r"cannot read .*: Is a directory; check the file"):
        Index.load(tmp_path)


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="an object has 'a' twice"):
        Index.loads(b'{"format": 1, "adapters": {"a": {}, "a": {}}}')


def test_a_fault_names_the_file_and_the_place(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(an_index("1.0.0").dumps().replace(b"sha256:", b"md5:"))
    with pytest.raises(SchemaError) as caught:
        Index.load(path)
    assert str(caught.value).startswith(
        f"{path} breaks its schema: adapters['sst2-bert'].versions['1.0.0'].artifacts[0].digest"
    )


def test_the_garbage_collector_runs_again_after_loading() -> None:
    assert gc.isenabled()
    Index.loads(an_index("1.0.0").dumps())
    assert gc.isenabled()
    with pytest.raises(FormatError):
        Index.loads(b"{")
    assert gc.isenabled()
    gc.disable()
    try:
        Index.loads(an_index("1.0.0").dumps())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_entry_is_built_only_when_it_is_asked_for() -> None:
    index = Index.loads(an_index("1.0.0").add("other", "1.0.0", an_artifact(), published="2026-01-01").dumps())
    index.resolve("other")
    assert list(index.adapters._built) == ["other"]
    assert index.adapters["other"] is index.adapters["other"]


# Names.


def test_a_name_an_alias_and_an_old_name_lead_to_the_entry() -> None:
    index = an_index(
        "1.0.0", aliases=("sst-2", "@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer", "sentiment/sst-2@ukp")
    )
    for name in ("sst2-bert", "SST2-bert", "sst-2", "SST-2", "sentiment/sst-2@ukp"):
        assert index.find(name) == "sst2-bert"
    for name in ("@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer", "ukp/BERT-base-uncased_sentiment_sst-2_pfeiffer"):
        assert index.resolve(name).name == "sst2-bert"
    assert index.resolve("sentiment/sst-2@ukp@1.0.0").version == "1.0.0"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sst2-brt", "did you mean sst2-bert or sst2-roberta?"),
        ("sst2", "did you mean sst2-bert or sst2-roberta?"),
        ("moviereviews", "did you mean sst2-bert?"),
        ("zzz", "`adapterhub list` shows what there is; a file or folder is written with ./ in front"),
    ],
)
def test_an_unknown_name_has_its_near_misses_in_the_hint(name: str, hint: str) -> None:
    index = an_index("1.0.0", aliases=("movie-reviews",)).add(
        "sst2-roberta", "1.0.0", an_artifact(), published="2026-01-01"
    )
    with pytest.raises(NotFoundError) as caught:
        index.find(name)
    assert caught.value.message == f"there is no adapter {name!r} in this registry"
    assert caught.value.hint == hint


def test_in_an_empty_registry_nothing_comes_near() -> None:
    with pytest.raises(NotFoundError, match="it is empty"):
        Index().find("a")


def test_an_alias_that_two_entries_claim_is_ambiguous() -> None:
    data = json.loads(an_index("1.0.0", aliases=("x",)).dumps())
    data["adapters"]["other"] = data["adapters"]["sst2-bert"]
    with pytest.raises(UsageError, match="'x' is another name of other and sst2-bert; name one of them"):
        Index.loads(schemas.dumps(data)).find("x")


# Versions.


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("sst2-bert", "1.10.0"),
        ("sst2-bert@1", "1.10.0"),
        ("sst2-bert@~1.9.0", "1.9.1"),
        ("sst2-bert@1.9.0", "1.9.0"),
        ("sst2-bert@2.0.0-rc.1", "2.0.0-rc.1"),
        ("sst2-bert@^2.0.0-rc", "2.0.0-rc.1"),
        ("sst2-bert@1.11.0", "1.11.0"),
        ("sst2-bert@=1.11.0,>=1", "1.11.0"),
    ],
)
def test_the_highest_version_is_chosen_that_is_asked_for_and_not_yanked(reference: str, version: str) -> None:
    index = an_index("1.9.0", "1.9.1", "1.10.0", "1.11.0", "2.0.0-rc.1").yank("sst2-bert", "1.11.0")
    assert index.resolve(reference).version == version


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("sst2-bert@3", "sst2-bert has no version 3; it has 1.0.0, 1.1.0 (yanked) and 2.0.0-rc.1 (pre-release); "
         "ask for a marked one by its exact version"),
        ("sst2-bert@>1.0.0", "sst2-bert has no version >1.0.0; it has "),
    ],
)  # fmt: skip
def test_a_version_that_is_not_there_lists_those_that_are(reference: str, message: str) -> None:
    index = an_index("1.0.0", "1.1.0", "2.0.0-rc.1").yank("sst2-bert", "1.1.0")
    with pytest.raises(NotFoundError) as caught:
        index.resolve(reference)
    assert str(caught.value).startswith(message)


def test_where_all_versions_are_yanked_none_is_chosen() -> None:
    index = an_index("1.0.0").yank("sst2-bert", "1.0.0")
    with pytest.raises(NotFoundError, match=r"sst2-bert has no version to choose; it has 1\.0\.0 \(yanked\)"):
        index.resolve("sst2-bert")
    assert index.adapters["sst2-bert"].latest is None
    assert index.resolve("sst2-bert@1.0.0").version == "1.0.0"
    assert index.yank("sst2-bert", "1.0.0", yanked=False).resolve("sst2-bert").version == "1.0.0"


def test_only_versions_that_are_there_can_be_yanked() -> None:
    with pytest.raises(NotFoundError, match=r"sst2-bert has no version 2\.0\.0"):
        an_index("1.0.0").yank("sst2-bert", "2.0.0")


def test_the_latest_version_is_a_release_if_there_is_one() -> None:
    assert an_index("1.0.0", "2.0.0-rc.1").adapters["sst2-bert"].latest == "1.0.0"
    assert an_index("1.0.0-rc.1", "1.0.0-rc.2").adapters["sst2-bert"].latest == "1.0.0-rc.2"


def test_a_long_list_of_versions_is_cut() -> None:
    with pytest.raises(NotFoundError, match=r"1\.9\.0 and 5 more$"):
        an_index(*(f"1.{i}.0" for i in range(15))).resolve("sst2-bert@2")


# Base models and formats.


def several_bases() -> Index:
    index = an_index("1.0.0")
    for base, kind in ((MINILM, "native"), (BERT, "peft"), ("acme/Bert-Base-Uncased", "adapters")):
        index = index.add("sst2-bert", "1.0.0", an_artifact(base, kind), published="2026-01-01")
    return index.add("sst2-bert", "2.0.0", an_artifact(MINILM, "peft", byte="2"), published="2026-01-01")


@pytest.mark.parametrize(
    ("base", "kind", "version", "found"),
    [
        (None, None, "2.0.0", (MINILM, "peft")),
        (MINILM, None, "2.0.0", (MINILM, "peft")),
        ("all-minilm-l6-V2", None, "2.0.0", (MINILM, "peft")),
        ("all-minilm-l6-v2", "native", "1.0.0", (MINILM, "native")),
        (BERT.upper(), None, "1.0.0", (BERT, "native")),
        (BERT, "peft", "1.0.0", (BERT, "peft")),
        (None, "adapters", "1.0.0", ("acme/Bert-Base-Uncased", "adapters")),
        ("bert-base-uncased", "peft", "1.0.0", (BERT, "peft")),
    ],
)
def test_an_artifact_is_chosen_by_base_model_and_format(
    base: str | None, kind: str | None, version: str, found: tuple[str, str]
) -> None:
    resolved = several_bases().resolve("sst2-bert", base=base, format=kind)
    assert (resolved.version, resolved.artifact.base.id, resolved.artifact.format) == (version, *found)


def test_without_a_base_model_the_first_artifact_is_the_default() -> None:
    assert several_bases().resolve("sst2-bert@1.0.0").artifact.base.id == BERT


def test_a_short_base_name_that_fits_several_lists_them() -> None:
    with pytest.raises(UsageError) as caught:
        several_bases().resolve("sst2-bert", base="bert-base-uncased")
    assert str(caught.value) == (
        f"base model 'bert-base-uncased' may be acme/Bert-Base-Uncased and {BERT}; write it in full"
    )


@pytest.mark.parametrize(
    ("base", "kind", "words"),
    [
        ("gpt2", None, f"sst2-bert@2.0.0 has no artifact for base model 'gpt2'; it has {MINILM} (peft)"),
        (None, "gguf", "sst2-bert@2.0.0 has no artifact in format 'gguf'; it has "),
        ("gpt2", "gguf", "sst2-bert@2.0.0 has no artifact for base model 'gpt2' and in format 'gguf'; it has "),
    ],
)  # fmt: skip
def test_an_artifact_that_is_not_there_lists_those_that_are(base: str | None, kind: str | None, words: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        several_bases().resolve("sst2-bert", base=base, format=kind)
    assert str(caught.value).startswith(words)


def test_only_names_are_resolved() -> None:
    with pytest.raises(UsageError, match="hf://user/repo does not name an adapter of a registry"):
        Index().resolve("hf://user/repo")


# Adding.


def test_adding_the_same_artifact_again_changes_nothing() -> None:
    index = several_bases()
    assert index.add("sst2-bert", "1.0.0", an_artifact(), published="2030-01-01") == index


def test_a_published_artifact_never_changes() -> None:
    with pytest.raises(StateError) as caught:
        an_index("1.0.0").add("sst2-bert", "1.0.0", an_artifact(byte="f"), published="2026-01-01")
    assert str(caught.value) == (
        f"sst2-bert@1.0.0 has another native artifact for {BERT}, with digest sha256:{'0' * 64}; "
        "published versions never change; publish a higher version, and yank this one if it is bad"
    )


def test_adding_leaves_the_old_index_as_it_was() -> None:
    index = an_index("1.0.0")
    before = index.dumps()
    index.add("sst2-bert", "1.1.0", an_artifact(byte="1"), published="2026-01-01", summary="new")
    assert index.dumps() == before


def test_what_is_not_given_keeps_its_value() -> None:
    index = an_index("1.0.0", summary="s", task="t", license="MIT", language=("en",), aliases=("a",))
    entry = index.add("sst2-bert", "1.1.0", an_artifact(byte="1"), published="2026-01-01", task="u").adapters[
        "sst2-bert"
    ]
    assert (entry.summary, entry.task, entry.license, entry.language, entry.aliases) == (
        "s",
        "u",
        "MIT",
        ("en",),
        ("a",),
    )


def test_extra_fields_are_kept() -> None:
    data = json.loads(an_index("1.0.0").dumps())
    entry = data["adapters"]["sst2-bert"]
    entry["extra"] = entry["versions"]["1.0.0"]["extra"] = entry["versions"]["1.0.0"]["artifacts"][0]["extra"] = {
        "b": 1,
        "a": 2,
    }
    index = Index.loads(schemas.dumps(data)).add("sst2-bert", "1.1.0", an_artifact(byte="1"), published="2026-01-01")
    assert index.dumps().count(b'"extra"') == 3


@pytest.mark.parametrize(
    ("name", "version", "artifact", "words"),
    [
        ("Bad Name", "1.0.0", an_artifact(), "key 'Bad Name' is not a name"),
        ("con", "1.0.0", an_artifact(), "key 'con' is not a name"),
        ("a", "1.0.0", an_artifact(base="/home/me/model"), "'/home/me/model' is not a Hub id"),
        ("a", "1.0.0", an_artifact(url="../a.safetensors"), "artifacts[0].url: '../a.safetensors' has a part '..'"),
        ("a", "1.0.0", an_artifact(url="bundled:/etc/passwd"), "'bundled:/etc/passwd' is absolute"),
        ("a", "1.0.0", an_artifact(url="C:\\a"), "'C:\\\\a' holds a character that file names must not have"),
        ("a", "1.0.0", a_folder("a", "A"), "paths 'A' and 'a' are one on some systems"),
        ("a", "1.0.0", a_folder("a", "a"), "path 'a' is there twice"),
        ("a", "1.0.0", a_folder("a", "a/b"), "path 'a' is a file and, in 'a/b', a folder"),
        ("a", "1.0.0", a_folder("aux.txt"), "'aux.txt' has a part 'aux.txt' that names a device"),
        ("a", "1.0.0", a_folder("a./b"), "that not every system can store"),
        ("a", "1.0.0", a_folder("x/../y"), "is not a relative path that stays in its folder"),
    ],
)  # fmt: skip
def test_what_would_break_the_index_is_not_added(name: str, version: str, artifact: Artifact, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Index().add(name, version, artifact, published="2026-01-01")
    assert words in str(caught.value)


def test_a_version_that_is_none_is_not_added() -> None:
    with pytest.raises(UsageError, match=r"'1\.0' is not a version"):
        Index().add("a", "1.0", an_artifact(), published="2026-01-01")


def test_versions_that_differ_only_in_the_build_are_refused() -> None:
    with pytest.raises(SchemaError, match="differs from it only in the build text") as caught:
        an_index("1.0.0", "1.0.0+b")
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("alias", ["other", "OTHER", "@other"])
def test_an_alias_that_is_taken_is_refused(alias: str) -> None:
    index = an_index("1.0.0", name="other")
    with pytest.raises(SchemaError, match="adapters: 'other' is a name of 'new' and of 'other'"):
        index.add("new", "1.0.0", an_artifact(), published="2026-01-01", aliases=(alias,))


def test_two_artifacts_for_one_base_model_and_format_are_a_fault() -> None:
    data = json.loads(an_index("1.0.0").dumps())
    artifacts = data["adapters"]["sst2-bert"]["versions"]["1.0.0"]["artifacts"]
    artifacts.append({**artifacts[0], "url": "b"})
    with pytest.raises(SchemaError, match=r"artifacts\[1\]: a second native artifact for google-bert"):
        Index.loads(schemas.dumps(data)).check()


# Artifacts.


def test_the_identity_of_a_folder_is_that_of_its_files_in_any_order() -> None:
    assert a_folder("a", "b").identity == a_folder("b", "a").identity
    assert a_folder("a", "b").identity != a_folder("a", "c").identity
    assert an_artifact().identity == an_artifact().digest
    assert (a_folder("a", "b").total_size, an_artifact().total_size) == (2, 10)


def test_records_are_frozen_and_keep_what_they_are_given() -> None:
    release = Release(published="2026-01-01", artifacts=(an_artifact(),))
    assert Release.from_json(release.to_json()) == release
    with pytest.raises(AttributeError):
        release.yanked = True  # type: ignore[misc]


# Opening a registry, and what is remembered of a large one.


def a_large_index() -> bytes:
    data = json.loads(an_index("1.0.0").dumps())
    entry = data["adapters"]["sst2-bert"]
    data["adapters"] = {f"adapter-{i}": entry for i in range(800)}
    return schemas.dumps(data)


def test_a_registry_is_a_folder_or_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "cache"))
    an_index("1.0.0").write(tmp_path / "index.json")
    for place in (tmp_path, str(tmp_path), tmp_path / "index.json"):
        registry = open_registry(place)
        assert registry == Registry(location=tmp_path.resolve() / "index.json", index=an_index("1.0.0"))
    assert not (tmp_path / "cache").exists()


def test_without_a_place_it_is_the_one_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPTERHUB_REGISTRY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert open_registry().location == Path(adapterhub.__file__).with_name("index.json")
    assert open_registry("bundled").location == open_registry().location


def test_a_place_without_an_index_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no registry at"):
        open_registry(tmp_path)


def test_a_large_index_that_was_valid_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_large_index()
    checks: list[str] = []
    check = schemas.check

    def counted(document: Any, name: str, what: str = "") -> None:
        checks.append(what)
        check(document, name, what)

    monkeypatch.setattr(schemas, "check", counted)
    assert len(data) > verdicts.SMALL
    for _ in range(3):
        assert len(Index.loads(data, verdicts=tmp_path / "checked").adapters) == 800
    assert len(checks) == 1
    Index.loads(data + b" ", verdicts=tmp_path / "checked")
    assert len(checks) == 2
    Index.loads(data)
    assert len(checks) == 3


def test_an_invalid_index_is_never_remembered(tmp_path: Path) -> None:
    bad = a_large_index().replace(b"sha256:", b"sha1:")
    for _ in range(2):
        with pytest.raises(SchemaError):
            Index.loads(bad, verdicts=tmp_path / "checked")
    assert not (tmp_path / "checked").exists()


def test_a_verdict_holds_only_for_the_schemas_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_large_index()
    verdicts.remember(tmp_path, data, "index")
    assert verdicts.known(tmp_path, data, "index")
    assert not verdicts.known(tmp_path, data, "lock")
    monkeypatch.setattr(schemas, "state", lambda: "sha256:other")
    assert not verdicts.known(tmp_path, data, "index")


def test_an_index_is_read_where_nothing_can_be_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(Index.loads(a_large_index(), verdicts=tmp_path / "file" / "checked").adapters) == 800


def test_reading_a_registry_loads_no_torch_and_no_jsonschema(tmp_path: Path) -> None:
    import subprocess
    import sys

    an_index("1.0.0").write(tmp_path / "index.json")
    program = (
        "import sys; from adapterhub.registry import open_registry;"
        "open_registry(sys.argv[1]).index.resolve('sst2-bert@^1');"
        "print({'torch', 'jsonschema', 'filelock', 'tomllib', 'difflib', 'logging'} & set(sys.modules))"
    )
    environ = {**os.environ, "ADAPTERHUB_CACHE": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n"
