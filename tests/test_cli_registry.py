"""list, search, show, pull and index, on a real registry in a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_session import BASE_ID, Typed, type_command
from click.shell_completion import ShellComplete

from adapterhub.cli.application import application
from adapterhub.converters import read, write
from adapterhub.registry import Artifact, ArtifactBase, Index, derived
from adapterhub.registry.digest import of_bytes, of_file

pytestmark = pytest.mark.usefixtures("clean")

FAR = ArtifactBase(id="google-bert/bert-base-uncased", architecture="bert")


@pytest.fixture(params=["small", "large"])
def full(registry: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registry with more entries, whose files are far away: read as a whole, and by way of a database."""
    if request.param == "large":
        monkeypatch.setattr(derived, "LARGE", 0)
    index = Index.load(registry / "index.json")
    for name, task, method in (
        ("sst-tweets", "sentiment/tweets", "seq_bn"),
        ("nli", "nli/multinli", "double_seq_bn+layer_norm"),
    ):
        artifact = Artifact(
            base=FAR,
            method=method,
            format="native",
            url=f"hf://acme/{name}@main",
            digest=of_bytes(name.encode()),
            size=9,
        )
        index = index.add(name, "2.1.0", artifact, published="2026-01-02", task=task, license="MIT", summary=f"{name}!")
    index.write(registry / "index.json")
    return registry


def file_of(registry: Path) -> Path:
    return registry / "tiny-reviews-1.0.0.safetensors"


# list and search


def test_list_shows_a_line_for_each_adapter(full: Path) -> None:
    lines = type_command("list").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "TASK", "BASE", "MODEL", "METHOD", "SIZE", "SUMMARY"]
    assert [line.split()[0] for line in lines[1:]] == ["nli", "sst-tweets", "tiny-reviews"]
    assert type_command("list", "-q").out == "nli\nsst-tweets\ntiny-reviews\n"


def test_list_as_json_says_all_that_the_index_says(full: Path) -> None:
    data = type_command("list", "--json").json
    raw = json.loads((full / "index.json").read_text())["adapters"]
    assert {entry.pop("name"): entry for entry in data["adapters"]} == {
        name: {"version": max(entry["versions"]), **entry} for name, entry in raw.items()
    }


def test_the_included_registry_is_listed_by_default() -> None:
    assert type_command("list", "--json").json["ok"] is True


def test_a_registry_that_is_not_there_is_an_error() -> None:
    typed = type_command("list", "--registry", "./nowhere", "--json")
    assert (typed.status, typed.error["code"]) == (3, "E_NOT_FOUND")


def test_a_damaged_index_lists_its_faults(full: Path) -> None:
    data = json.loads((full / "index.json").read_text())
    data["adapters"]["nli"]["versions"]["2.1.0"]["artifacts"][0]["size"] = -1
    (full / "index.json").write_text(json.dumps(data))
    typed = type_command("list", "--json")
    assert typed.status == 1
    assert "adapters['nli'].versions['2.1.0'].artifacts[0].size" in typed.error["message"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["tiny"], ["tiny-reviews"]),
        (["REVIEW", "positive"], ["tiny-reviews"]),
        (["sentiment"], ["sst-tweets", "tiny-reviews"]),
        (["--task", "sentiment"], ["sst-tweets", "tiny-reviews"]),
        (["--task", "sent"], []),
        (["--task", "Sentiment/Tweets"], ["sst-tweets"]),
        (["--base", "bert-base-uncased"], ["nli", "sst-tweets"]),
        (["--base", BASE_ID], ["tiny-reviews"]),
        (["--base", "bert"], ["nli", "sst-tweets", "tiny-reviews"]),
        (["--base", "gpt2"], []),
        (["--method", "layer_norm"], ["nli", "tiny-reviews"]),
        (["--method", "seq_bn"], ["sst-tweets"]),
        (["--license", "mit"], ["nli", "sst-tweets"]),
        (["--license", "MIT", "nli"], ["nli"]),
        (["nothing", "like", "this"], []),
    ],
)
def test_search_finds_by_words_and_filters(full: Path, arguments: list[str], found: list[str]) -> None:
    typed = type_command("search", *arguments, "-q")
    assert (typed.status, typed.out.split()) == (0, found)


def test_adapters_with_the_word_in_their_name_come_first(full: Path) -> None:
    assert type_command("search", "bert", "-q").out.split() == ["nli", "sst-tweets", "tiny-reviews"]
    assert type_command("search", "tweets", "sentiment", "-q").out.split() == ["sst-tweets"]
    assert type_command("search", "s", "-q").out.split()[0] == "sst-tweets"


def test_a_limit_cuts_what_is_shown_and_says_so(full: Path) -> None:
    assert type_command("list", "--limit", "2", "-q").out == "nli\nsst-tweets\n"
    typed = type_command("list", "--limit", "2")
    assert [line.split()[0] for line in typed.out.splitlines()] == ["NAME", "nli", "sst-tweets"]
    assert typed.err == "there are more than these 2; --limit shows more\n"
    data = type_command("search", "bert", "--limit", "1", "--json").json
    assert [entry["name"] for entry in data["adapters"]] == ["nli"]
    assert type_command("list", "--limit", "3").err == ""
    assert type_command("list", "--limit", "0").status == 2


def test_a_name_is_completed_from_what_it_begins_with(full: Path) -> None:
    completer = ShellComplete(application, {}, "adapterhub", "_ADAPTERHUB_COMPLETE")
    found = completer.get_completions(["show"], "s")
    assert [(item.value, item.help) for item in found] == [("sst-tweets", "sst-tweets!")]


def test_to_find_nothing_is_no_error(full: Path) -> None:
    typed = type_command("search", "nothing")
    assert (typed.status, typed.out, typed.err) == (0, "", "no adapter fits\n")
    assert type_command("search", "nothing", "--json").json == {"ok": True, "adapters": []}


# show


def test_show_tells_what_the_file_says(registry: Path) -> None:
    typed = type_command("show", "tiny-reviews")
    assert (typed.status, typed.err) == (0, "")
    facts = [
        "tiny-reviews 1.0.0\n",
        "summary      Is a tiny review positive?\n",
        "labels       negative, positive\n",
        f"base model   {BASE_ID} (bert)\n",
        "bottlenecks behind attention and feed-forward, 1/2 as wide as the model, swish\n",
        "all layer norms\n",
        "head for 2 classes: a linear layer on the mean of the tokens\n",
        "data         tiny reviews (CC0-1.0): ",
        "license      Apache-2.0\n",
        "probe        2 inputs with their logits",
        f"digest       {of_file(file_of(registry))}\n",
    ]
    for fact in facts:
        assert fact in typed.out


def test_show_reads_a_path_and_finds_an_alias(registry: Path) -> None:
    by_path = type_command("show", str(file_of(registry)), "--json").json
    by_alias = type_command("show", "tiny/reviews@acme", "--json").json
    assert by_path["name"] == by_alias["name"] == "tiny-reviews"
    assert by_path["manifest"] == by_alias["manifest"]
    assert by_path["digest"] == by_alias["digest"] == of_file(file_of(registry))
    assert by_path["parameters"] == by_alias["parameters"] > 0
    assert "entry" in by_alias
    assert "entry" not in by_path
    assert type_command("show", "tiny-reviews@^1", "-q").out == "tiny-reviews@1.0.0\n"


def test_show_reads_no_weights(registry: Path) -> None:
    code = (
        "import sys; from adapterhub.cli.application import run\n"
        "assert run(['show', 'tiny-reviews']) == 0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_show_tells_what_the_index_says_of_an_adapter_that_is_far_away(full: Path) -> None:
    typed = type_command("show", "sst-tweets")
    assert typed.status == 0
    assert "sst-tweets is not on this machine" in typed.err
    assert "base model  google-bert/bert-base-uncased (bert)\n" in typed.out
    assert "url         hf://acme/sst-tweets@main\n" in typed.out
    data = type_command("show", "sst-tweets", "--json").json
    assert (data["version"], data["artifact"]["base"]["id"]) == ("2.1.0", "google-bert/bert-base-uncased")
    assert "manifest" not in data


def test_show_escapes_what_would_steer_the_terminal(registry: Path) -> None:
    # The schema forbids control characters in most fields; citations are free text.
    adapter = read(file_of(registry))
    evil = replace(adapter, manifest=replace(adapter.manifest, citation="see \x1b[2Jhere"))
    write(evil, registry / "evil.safetensors")
    assert "\x1b" not in type_command("show", "./hub/evil.safetensors").out


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        ("tiny-review", 3, "E_NOT_FOUND"),
        ("tiny-reviews@9", 3, "E_NOT_FOUND"),
        ("./nowhere.safetensors", 3, "E_NOT_FOUND"),
        ("acme::tiny-reviews", 3, "E_NOT_FOUND"),
        ("not a name", 2, "E_USAGE"),
    ],
)
@pytest.mark.parametrize("command", ["show", "pull", "verify", "run"])
def test_what_is_not_there_or_cannot_be_read_is_named(
    registry: Path, command: str, reference: str, status: int, code: str
) -> None:
    typed = type_command(command, reference, *(["text"] if command == "run" else []), "--json")
    assert (typed.status, typed.error["code"]) == (status, code)


def test_a_near_miss_is_proposed(full: Path) -> None:
    assert type_command("pull", "tiny-reviewz").err.endswith("hint: did you mean tiny-reviews?\n")


# pull


def test_pull_prints_the_path_of_verified_bytes(registry: Path) -> None:
    typed = type_command("pull", "tiny-reviews")
    path = Path(typed.out.strip())
    assert path.read_bytes() == file_of(registry).read_bytes()
    assert "fetched" in typed.err
    assert "already here" in type_command("pull", "tiny-reviews").err
    data = type_command("pull", "tiny-reviews", "--base", "tiny-bert", "--json").json
    assert data == {
        "ok": True,
        "name": "tiny-reviews",
        "version": "1.0.0",
        "path": str(path),
        "cached": True,
        "digest": of_file(path),
        "base": BASE_ID,
        "format": "native",
    }


def test_a_tampered_file_is_refused(registry: Path) -> None:
    with file_of(registry).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    typed = type_command("pull", "tiny-reviews", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_DIGEST")
    assert not list(Path("cache").rglob("*.safetensors"))


def test_no_artifact_for_the_base_model_is_an_error(registry: Path) -> None:
    typed = type_command("pull", "tiny-reviews", "--base", "roberta-base", "--json")
    assert (typed.status, BASE_ID in typed.error["hint"]) == (3, True)


def test_what_needs_the_network_is_refused_offline(full: Path) -> None:
    typed = type_command("pull", "nli", "--json")
    assert (typed.status, typed.error["code"]) == (7, "E_OFFLINE")


# index


def add(registry: Path, *more: str, file: str = "tiny-reviews-1.0.0.safetensors") -> Typed:
    return type_command("index", "add", str(registry / file), "--index", str(registry / "index.json"), *more)


def test_an_added_file_fills_its_entry(registry: Path) -> None:
    entry = Index.load(registry / "index.json").adapters["tiny-reviews"]
    assert (entry.task, entry.license, entry.language) == ("sentiment/reviews", "Apache-2.0", ("en",))
    assert (entry.summary, entry.aliases) == ("Is a tiny review positive?", ("tiny/reviews@acme",))
    (artifact,) = entry.versions["1.0.0"].artifacts
    assert artifact.url == "tiny-reviews-1.0.0.safetensors"
    assert artifact.method == "double_seq_bn[reduction_factor=2]+layer_norm"
    assert (artifact.digest, artifact.size) == (of_file(file_of(registry)), file_of(registry).stat().st_size)


def test_adding_the_same_file_again_changes_nothing(registry: Path) -> None:
    before = (registry / "index.json").read_bytes()
    assert add(registry).status == 0
    assert (registry / "index.json").read_bytes() == before


def test_a_dry_run_writes_nothing(registry: Path) -> None:
    before = (registry / "index.json").read_bytes()
    typed = add(registry, "--name", "another", "--version", "3.0.0", "--dry-run")
    assert (typed.status, typed.out) == (0, "would add another@3.0.0\n")
    assert (registry / "index.json").read_bytes() == before


def test_a_published_version_never_changes(registry: Path) -> None:
    adapter = read(file_of(registry))
    write(replace(adapter, manifest=replace(adapter.manifest, summary="another")), registry / "other.safetensors")
    typed = add(registry, "--json", file="other.safetensors")
    assert (typed.status, typed.error["code"]) == (1, "E_STATE")
    assert "published versions never change" in typed.error["hint"]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--version", "one"], 1, "breaks its schema"),
        (["--name", "Not A Name"], 1, "breaks its schema"),
        (["--published", "yesterday", "--name", "x"], 1, "breaks its schema"),
    ],
)
def test_what_would_make_the_index_wrong_is_refused(registry: Path, more: list[str], status: int, message: str) -> None:
    before = (registry / "index.json").read_bytes()
    typed = add(registry, *more, "--json")
    assert typed.status in (status, 2), typed.out
    assert (registry / "index.json").read_bytes() == before


def test_a_file_outside_the_folder_of_the_index_is_refused(registry: Path, trained: Path) -> None:
    typed = type_command("index", "add", str(trained), "--index", str(registry / "index.json"))
    assert (typed.status, "does not lie in the folder" in typed.err) == (2, True)


def test_check_counts_what_it_checked(full: Path) -> None:
    typed = type_command("index", "check", str(full))
    assert (typed.status, typed.out) == (0, f"{full / 'index.json'}: 3 adapters, 3 artifacts, 1 files checked\n")
    assert type_command("index", "check", "--json").json["files"] == 1
    assert type_command("index", "check", "-q").out == "nli\nsst-tweets\ntiny-reviews\n"


def test_check_finds_a_changed_file_even_if_the_right_one_was_pulled(registry: Path) -> None:
    assert type_command("pull", "tiny-reviews").status == 0
    with file_of(registry).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    typed = type_command("index", "check", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_INTEGRITY")
    assert "tiny-reviews@1.0.0" in typed.error["message"]
    assert type_command("index", "check", "--no-files").status == 0


def test_check_finds_a_file_that_says_something_else_than_the_index(registry: Path) -> None:
    index = Index.load(registry / "index.json")
    (artifact,) = index.adapters["tiny-reviews"].versions["1.0.0"].artifacts
    index.add("other", "2.0.0", artifact, published="2026-01-02").write(registry / "index.json")
    typed = type_command("index", "check")
    assert typed.status == 5
    assert "other@2.0.0: the file says name tiny-reviews, the index other\n" in typed.err
    assert "other@2.0.0: the file says version 1.0.0, the index 2.0.0\n" in typed.err


def test_the_included_index_and_its_files_are_right() -> None:
    assert type_command("index", "check").status == 0
