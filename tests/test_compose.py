"""compose: from the words of a composition to an artifact that is pulled, run, verified and loaded like an adapter."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from cli_session import BASE_ID, sentences, type_command, write_csv
from composed_adapters import TEXTS, answers, attached

import adapterhub
from adapterhub import Average, Fuse, Stack, arrangement, hub
from adapterhub.arrangement import Arrangement
from adapterhub.errors import (
    BaseMismatchError,
    DigestError,
    IntegrityError,
    NotFoundError,
    SchemaError,
    StateError,
    UnsupportedError,
    UsageError,
)
from adapterhub.registry import Index, Lock, digest, pull

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def place(shelf: Path) -> Path:
    """A registry with a few small adapters, the default one."""
    return shelf


def yank(place: Path, name: str, version: str) -> None:
    index = Index.load(place / "index.json")
    index.yank(name, version).write(place / "index.json")


def test_a_composition_is_one_file_with_pins_fingerprint_and_probe(place: Path, base: Path) -> None:
    made = adapterhub.compose("both@1.0.0", "stack(movies@^1, books)", base=str(base))
    (path,) = made.paths
    assert path == Path("both-1.0.0.json")
    assert made.digest == digest.of_file(path)
    found = Arrangement.loads(path.read_bytes())
    assert found.composition == Stack("movies", "books")
    assert {name: pin.reference for name, pin in found.adapters.items()} == {
        "movies": "movies@1.2.0",
        "books": "books@1.0.0",
    }
    entries = Index.load(place / "index.json").adapters
    assert found.adapters["movies"].digest == entries["movies"].versions["1.2.0"].artifacts[0].identity
    assert found.labels == ("negative", "positive")
    assert found.base is not None
    assert found.base.id == BASE_ID
    assert found.base.fingerprint is not None
    assert found.probe is not None
    assert (found.probe.output, len(found.probe.values)) == ("logits", 2)


def test_written_twice_a_composition_has_the_same_bytes(place: Path, base: Path) -> None:
    for name in ("one.json", "two.json"):
        adapterhub.compose("both@1.0.0", "average(movies, books)", head="books", base=str(base), out=name)
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()
    data = Path("one.json").read_bytes()
    assert Arrangement.loads(data).dumps() == data


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "both.json",
            '{"composition": "average(m, books, weights=[1, 3])", "adapters": {"m": "movies@1.0"}, "head": "m"}',
        ),
        (
            "both.toml",
            'composition = "average(m, books, weights=[1, 3])"\nhead = "m"\nsummary = "s"\nadapters.m = "movies@1.0"',
        ),
        (
            "both.json",
            '{"composition": {"type": "average", "children": ["m", "books"], "weights": [0.25, 0.75]},'
            ' "adapters": {"m": {"reference": "movies@1.0.0"}}, "head": "m", "name": "both", "version": "1.0.0"}',
        ),
    ],
)
def test_a_file_says_what_text_says(place: Path, base: Path, file: str, text: str) -> None:
    Path(file).write_text(text)
    made = adapterhub.compose("both@1.0.0", file, base=str(base), out="made.json")
    assert made.arrangement.composition == Average("m", "books", weights=[1, 3])
    assert made.arrangement.adapters["m"].reference == "movies@1.0.0"
    assert made.arrangement.head == "m"
    assert made.arrangement.summary == ("s" if file.endswith("toml") else "")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"composition": "stack(a)", "adapter": {}}', "adapter: is not a field of a composition"),
        ("{}", "composition: is missing"),
        ('{"composition": "stack(a)", "adapters": {"a": 1}}', "adapters: is no object of references"),
        ('{"composition": "stack(a)", "rules": "other"}', "rules: 'adapters' is the only one"),
        ('{"composition": {"type": "nix", "children": ["a"]}}', "'nix' is none of"),
    ],
)
def test_a_file_with_a_fault_is_told(text: str, match: str) -> None:
    Path("draft.json").write_text(text)
    with pytest.raises(SchemaError, match=match):
        adapterhub.compose("a@1.0.0", Path("draft.json"))


def test_a_file_and_the_command_say_the_same_name(place: Path, base: Path) -> None:
    Path("draft.json").write_text('{"composition": "stack(movies)", "version": "2.0.0"}')
    with pytest.raises(UsageError, match=r"the file says version 2\.0\.0, the command 1\.0\.0"):
        adapterhub.compose("a@1.0.0", Path("draft.json"), base=str(base))


@pytest.mark.parametrize("name", ["Both", "both@1", "both@", "a b", "@1.0.0", "", "con"])
def test_a_name_that_no_index_would_take_is_refused(name: str) -> None:
    if name == "both@":
        assert hub.composing.split_name(name) == ("both", "")
        return
    with pytest.raises(UsageError, match="is not NAME or NAME@VERSION"):
        adapterhub.compose(name, "stack(a)")


def test_what_was_pushed_is_pulled_run_verified_and_shown(place: Path, base: Path) -> None:
    on = ("--base", str(base))
    typed = type_command("compose", "both@1.0.0", "stack(low, movies@1.0.0)", *on, "--push", str(place), "--json")
    assert typed.status == 0, typed.err
    (path,) = typed.json["paths"]
    assert digest.of_file(Path(path)) == typed.json["digest"]
    assert not list(Path().glob("both*"))

    typed = type_command("pull", "both")
    assert typed.status == 0
    assert "movies: " in typed.err
    run = type_command("run", "both", *on, *TEXTS, "--json")
    assert run.status == 0, run.err
    assert run.out == type_command("run", "stack(low, movies@1.0.0)", *on, *TEXTS, "--json").out
    assert run.out != type_command("run", "movies@1.0.0", *on, *TEXTS, "--json").out

    checks = type_command("verify", "both", "--run", *on, "--json").json["checks"]
    assert [(check["name"], check["passed"]) for check in checks] == [
        ("digest", True),
        ("format", True),
        ("tensors", True),
        ("tensors", True),
        ("base model", True),
        ("probe", True),
    ]
    shown = type_command("show", "both")
    assert "composition  stack\n             ├── low\n             └── movies\n" in shown.out
    assert "movies@1.0.0, sha256:" in shown.out
    data = type_command("show", "both", "--json").json
    assert data["composition"]["composition"] == {"type": "stack", "children": ["low", "movies"]}
    assert data["adapters"]["movies"]["version"] == "1.0.0"
    assert type_command("list", "-q").out.split() == ["books", "both", "foreign", "low", "movies"]
    assert type_command("index", "check", str(place)).status == 0


def test_loaded_by_its_name_it_is_swapped_like_an_adapter(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "average(movies, books)", base=str(base), head="books", push=place)
    adapters = attached(base)
    assert adapters.load("both") == "both"
    assert (adapters.names, adapters.compositions) == (("movies", "books"), ("both",))
    with adapters.using(Average("movies", "books"), head="books"):
        wanted = answers(adapters, "both")
    assert torch.equal(answers(adapters, "both"), wanted)
    adapters.activate("movies")
    adapters.activate("both")
    assert adapters.active == "both"
    assert adapters.model.config.id2label == {0: "negative", 1: "positive"}
    assert adapters.replay("both").difference < 1e-5
    adapters.delete("both")
    left: object = (adapters.names, adapters.compositions, adapters.active)
    assert left == ((), (), None)


def test_adapters_that_are_loaded_already_are_shared_if_they_are_the_same(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    adapters = attached(base)
    adapters.load("movies")
    adapters.load("both")
    with pytest.raises(StateError, match="'low' is part of both"):
        adapters.delete("low")
    adapters.delete("both")
    assert adapters.names == ("movies",)
    adapters.delete("movies")
    adapters.load("movies@1.0.0")
    with pytest.raises(StateError, match="an adapter called 'movies' is loaded already"):
        adapters.load("both")
    assert (adapters.names, adapters.compositions) == (("movies",), ())
    adapters.load("both", overwrite_ok=True)
    with pytest.raises(UsageError, match="'both' is a composition, not an adapter"):
        adapters.activate(Stack("both", "movies"))


def test_adapters_that_are_files_lie_beside_the_composition(offered: Path, base: Path, tmp_path: Path) -> None:
    made = adapterhub.compose("both@1.0.0", f"stack({offered}/movies-1.0.0.safetensors)", base=str(base))
    (path,) = made.paths
    assert path == Path("both-1.0.0")
    (beside,) = path.glob("*.safetensors")
    assert beside.read_bytes() == (offered / "movies-1.0.0.safetensors").read_bytes()
    pin = made.arrangement.adapters["movies"]
    assert (pin.reference, pin.digest) == (f"./{beside.name}", digest.of_file(beside))
    assert type_command("run", "./both-1.0.0", "--base", str(base), *TEXTS, "-q").status == 0
    beside.write_bytes(beside.read_bytes()[:-1] + b"\x00")
    typed = type_command("verify", "./both-1.0.0", "--json")
    assert (typed.status, typed.error["code"]) == (5, "E_DIGEST")
    assert typed.error["message"].startswith("the composition 'both': adapter 'movies' in ")
    beside.unlink()
    with pytest.raises(NotFoundError, match="the composition 'both': adapter 'movies': there is no file"):
        pull("./both-1.0.0")


def test_what_a_registry_does_not_offer_goes_beside_when_it_is_pushed_there(
    place: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=tmp_path / "mine")
    artifact = Index.load(tmp_path / "mine" / "index.json").adapters["both"].versions["1.0.0"].artifacts[0]
    assert {file.path.partition("-")[0] for file in artifact.files} == {"composition.json", "low", "movies"}
    assert (artifact.method, artifact.format) == ("stack(movies, low)", "composition")
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(tmp_path / "mine"))
    shutil.rmtree(place)
    assert type_command("verify", "both", "--run", "--base", str(base)).status == 0
    assert type_command("index", "check", str(tmp_path / "mine")).status == 0


def test_push_publishes_a_composition_that_was_saved(place: Path, base: Path, tmp_path: Path) -> None:
    on = ("--base", str(base))
    whole = "average(movies, low, weights=[0.3, 0.7])"
    (path,) = adapterhub.compose("both@1.0.0", whole, base=str(base), head="movies").paths
    other = tmp_path / "other"
    typed = type_command("push", f"./{path}", "--to", str(other), *on)
    assert (typed.status, "there is no registry" in typed.err) == (3, True)
    typed = type_command("push", f"./{path}", "--to", str(other), *on, "--create", "--dry-run")
    assert (typed.status, other.exists()) == (0, False), typed.err
    typed = type_command("push", f"./{path}", "--to", str(other), *on, "--create", "--license", "CC0-1.0")
    assert typed.status == 0, typed.err
    assert "published both@1.0.0" in typed.out
    assert Index.load(other / "index.json").entry("both").license == "CC0-1.0"
    assert type_command("verify", "both", "--run", *on, "--registry", str(other)).status == 0
    assert "average(movies, low)" in type_command("list", "--registry", str(other)).out
    assert type_command("push", f"./{path}", "--to", str(place), *on, "--as", "me/again@2.0.0").status == 0
    renamed = Arrangement.loads(pull("me/again").path.read_bytes())
    assert (renamed.name, renamed.version, renamed.composition) == (
        "again",
        "2.0.0",
        Average("movies", "low", weights=[0.3, 0.7]),
    )
    assert type_command("push", f"./{path}", "--to", str(place), *on, "--as", "No Name@2.0.0").status == 2
    (again,) = adapterhub.compose("mine", "stack(movies)", base=str(base), out="mine.json").paths
    typed = type_command("push", f"./{again}", "--to", str(place), *on)
    assert (typed.status, "has no name or no version" in typed.err) == (2, True)
    assert type_command("push", f"./{again}", "--to", str(place), *on, "--as", "mine@1.0.0").status == 0
    assert type_command("run", "mine", *on, *TEXTS).status == 0
    assert type_command("push", f"./{path}", "--to", str(place), *on, "--formats", "peft").status == 2


@pytest.mark.parametrize("command", ["push", "compose"])
def test_a_place_that_can_only_be_read_is_refused_by_name(place: Path, base: Path, command: str) -> None:
    on = ("--base", str(base))
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base))
    words = ("./both-1.0.0.json", "--to") if command == "push" else ("more@1.0.0", "stack(movies)", "--push")
    typed = type_command(command, *words, "https://acme.example/hub", *on)
    assert typed.status == 6
    assert "https://acme.example/hub cannot be published to" in typed.err


def test_a_composition_that_is_complete_is_pushed_without_its_base_model(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    typed = type_command("push", "both", "--to", "./other", "--create", "--as", "pair@3.0.0")
    assert typed.status == 0, typed.err
    (old, new) = (
        arrangement.read(pull(name, registry=where).path) for name, where in (("both", place), ("pair", "other"))
    )
    assert (new.composition, new.probe, new.base) == (old.composition, old.probe, old.base)
    assert {name: pin.digest for name, pin in new.adapters.items()} == {
        n: pin.digest for n, pin in old.adapters.items()
    }
    assert type_command("verify", "pair", "--run", "--base", str(base), "--registry", "./other").status == 0


def test_a_published_composition_never_changes(place: Path, base: Path) -> None:
    for _ in range(2):
        adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    with pytest.raises(StateError, match=r"both@1\.0\.0 has another composition artifact"):
        adapterhub.compose("both@1.0.0", "stack(low, movies)", base=str(base), push=place)
    with pytest.raises(UsageError, match="has no version"):
        adapterhub.compose("other", "stack(low, movies)", base=str(base), push=place)


def test_a_dry_run_checks_and_writes_nothing(place: Path, base: Path) -> None:
    before = sorted(place.rglob("[!.]*"))
    made = adapterhub.compose("both@1.0.0", "stack(movies)", base=str(base), push=place, dry_run=True)
    assert (made.paths, sorted(place.rglob("[!.]*"))) == ((), before)
    adapterhub.compose("both@1.0.0", "stack(movies)", base=str(base), dry_run=True)
    assert not Path("both-1.0.0.json").exists()


def test_all_adapters_that_do_not_exist_are_told_at_once(place: Path, base: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        adapterhub.compose("both@1.0.0", "stack(movie, average(boks, low@^3))", base=str(base))
    assert str(caught.value).splitlines()[1:] == [
        "  there is no adapter 'movie' in this registry; did you mean movies?",
        "  there is no adapter 'boks' in this registry; did you mean books?",
        "  low has no version ^3; it has 1.0.0",
    ]
    with pytest.raises(
        NotFoundError, match=r"stack\(movies, low@3\.0\.0\): low has no version 3\.0\.0; it has 1\.0\.0"
    ):
        adapterhub.compose("both@1.0.0", "stack(movies, low@3.0.0)", base=str(base))
    assert not list(Path().glob("both*"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("stack(movies, stack(books))", "stack may not stand in stack; stack holds names, average"),
        ("fuse(movies, average(books, low))", "average may not stand in fuse"),
        ("stack(split(average(movies, books), low, splits=2))", "average in split in stack is too deep"),
        ("average(movies, books, weights=[1, -1])", r"weights \[1\.0, -1\.0\] add up to 0\.0"),
        ("batch_split(movies, books)", "batch_split lacks batch_sizes"),
        (
            "fuse(movies, books)",
            r"does not say which fusion layer it has; train one with `adapterhub train --fuse movies,",
        ),
        ("fuse(movies, books, name=low)", "'low' is no fusion layer"),
        ("stak(movies, books)", "'stak' is no kind of composition"),
    ],
)
def test_what_may_not_stand_together_is_refused(place: Path, base: Path, text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        adapterhub.compose("both@1.0.0", text, base=str(base))


def test_several_heads_want_a_word_about_who_answers(place: Path, base: Path) -> None:
    with pytest.raises(UnsupportedError, match="2 heads cannot share the answer of an average"):
        adapterhub.compose("both@1.0.0", "average(movies, books)", base=str(base))
    typed = type_command("run", "average(movies, books)", "--head", "books", "--base", str(base), *TEXTS, "-q")
    assert (typed.status, len(typed.out.split())) == (0, 2)


def test_an_adapter_for_another_base_model_is_named(place: Path, base: Path, other_base: Path) -> None:
    with pytest.raises(BaseMismatchError, match="'movies' for acme/tiny-bert, 'foreign' for acme/other-bert"):
        adapterhub.compose("both@1.0.0", "stack(movies, foreign)")
    with pytest.raises(NotFoundError, match=r"foreign@1\.0\.0 has no artifact for base model 'acme/tiny-bert'"):
        adapterhub.compose("both@1.0.0", "stack(movies, foreign)", base=BASE_ID)
    with pytest.raises(BaseMismatchError, match="adapter 'movies' was made for another base model"):
        adapterhub.compose("both@1.0.0", "stack(movies, books)", base=str(other_base))
    assert not list(Path().glob("both*"))


def test_another_base_model_than_its_own_is_noticed_when_it_is_loaded(
    place: Path, base: Path, other_base: Path
) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies, books)", base=str(base), push=place)
    adapters = attached(other_base)
    with pytest.raises(BaseMismatchError):
        adapters.load("both")
    assert (adapters.names, adapters.compositions) == ((), ())


def test_a_composition_in_a_composition_gives_its_adapters(place: Path, base: Path) -> None:
    adapterhub.compose("inner@1.0.0", "average(movies, books)", base=str(base), head="books", push=place)
    made = adapterhub.compose("outer@1.0.0", "stack(low, inner)", base=str(base))
    assert made.arrangement.composition == Stack("low", Average("movies", "books"))
    assert made.arrangement.head == "books"
    assert set(made.arrangement.adapters) == {"low", "movies", "books"}
    with pytest.raises(UsageError, match="average may not stand in average"):
        adapterhub.compose("outer@1.0.0", "average(low, inner)", base=str(base))


def test_two_versions_of_an_adapter_have_two_names(place: Path, base: Path) -> None:
    made = adapterhub.compose("both@1.0.0", "average(movies@1.0.0, movies@1.2.0)", head="movies@1.2.0", base=str(base))
    assert made.arrangement.composition == Average("movies", "movies@1.2.0")
    assert made.arrangement.head == "movies@1.2.0"


def test_a_composition_that_contains_itself_is_refused(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    with pytest.raises(UsageError, match=r"the composition both contains itself, as both@1\.0\.0"):
        adapterhub.compose("both@1.1.0", "average(books, both@1.0.0)", base=str(base))
    Path("one.json").write_text('{"composition": "average(movies, ./two.json)"}')
    Path("two.json").write_text('{"composition": "stack(low, ./one.json)"}')
    with pytest.raises(UsageError, match=r"the composition \S*one.json contains itself"):
        adapterhub.compose("both@1.1.0", "stack(./one.json)", base=str(base))


def test_a_hand_made_composition_of_compositions_is_refused(place: Path, base: Path) -> None:
    made = adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    document = {"format": 1, "name": "both", "composition": {"type": "stack", "children": ["a"]}}
    document["adapters"] = {"a": {"reference": "both@1.0.0", "digest": made.digest}}
    Path("loop.json").write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="the composition 'both': 'a' contains itself"):
        pull("./loop.json")


def test_a_yanked_adapter_is_named_and_used_all_the_same(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies@1.0.0, low)", base=str(base), push=place)
    yank(place, "movies", "1.0.0")
    with pytest.warns(UserWarning, match=r"both holds movies@1\.0\.0, which is yanked"):
        assert set(pull("both").parts) == {"movies", "low"}


def test_all_adapters_that_are_missing_are_told_at_once(
    place: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies, low)", base=str(base), push=place)
    index = json.loads((place / "index.json").read_text())
    for name in ("movies", "low"):
        del index["adapters"][name]
    (place / "index.json").write_text(json.dumps(index))
    # They are still on this machine, by their digests.
    assert set(pull("both").parts) == {"movies", "low"}
    monkeypatch.setenv("ADAPTERHUB_CACHE", "empty")
    with pytest.raises(NotFoundError) as caught:
        pull("both")
    assert [line.partition(" in this")[0] for line in str(caught.value).splitlines()] == [
        "the composition 'both' (2 faults):",
        "  there is no adapter 'low'",
        "  there is no adapter 'movies'",
    ]
    assert type_command("index", "check", str(place)).status == 5


def test_an_adapter_that_was_exchanged_is_named(place: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies@1.0.0, low)", base=str(base), push=place)
    monkeypatch.setenv("ADAPTERHUB_CACHE", "empty")
    index = json.loads((place / "index.json").read_text())
    versions = index["adapters"]["movies"]["versions"]
    good = versions["1.0.0"]["artifacts"]
    versions["1.0.0"]["artifacts"] = versions["1.2.0"]["artifacts"]
    (place / "index.json").write_text(json.dumps(index))
    with pytest.raises(DigestError, match=r"the composition 'both': movies@1\.0\.0 in .* has digest .*, expected"):
        pull("both")
    versions["1.0.0"]["artifacts"] = good
    (place / "index.json").write_text(json.dumps(index))
    file = place / "movies-1.0.0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DigestError, match=r"the composition 'both': movies@1\.0\.0"):
        pull("both")
    draft = {"composition": "stack(low)", "adapters": {"low": {"reference": "low", "digest": "sha256:" + "0" * 64}}}
    Path("draft.json").write_text(json.dumps({**draft, "summary": "x"}))
    with pytest.raises(IntegrityError):
        adapterhub.compose("x@1.0.0", "draft.json", base=str(base))


def test_the_lock_of_a_composition_holds_all_its_adapters(place: Path, base: Path) -> None:
    adapterhub.compose("both@1.0.0", "stack(movies@1.0.0, low)", base=str(base), push=place)
    Path("adapterhub.toml").write_text(f'registry = "{place}"\n[adapters]\nmine = "both@^1"\n')
    assert type_command("lock", "--offline").status == 0
    pinned = Lock.load("adapterhub.lock").adapters["mine"]
    assert (pinned.reference, pinned.title) == ("both@^1", "both@1.0.0")
    assert {name: part.title for name, part in pinned.parts.items()} == {"movies": "movies@1.0.0", "low": "low@1.0.0"}
    expected = type_command("run", "both", "good bad", "--json", "--base", str(base)).json
    (place / "index.json").unlink()
    shutil.rmtree(os.environ["ADAPTERHUB_CACHE"])
    for name in ("mine", "both", "stack(movies, low)"):
        typed = type_command("run", name, "good bad", "--json", "--frozen", "--base", str(base))
        assert typed.json == expected, name


def test_a_fusion_layer_is_trained_composed_and_run(place: Path, base: Path) -> None:
    data = write_csv(Path("reviews.csv"), sentences(160))
    arguments = ("train", str(data), "--base", str(base), "--base-id", BASE_ID, "--epochs", "8", "--lr", "0.005")
    typed = type_command(*arguments, "--fuse", "movies,books", "--out", "mix.safetensors", "--seed", "1")
    assert typed.status == 0, typed.err
    assert 'adapterhub run "fuse(movies,books, name=./mix.safetensors)"' in typed.err
    manifest = hub.read_manifest(Path("mix.safetensors"))
    losses = [epoch["train_loss"] for epoch in manifest.training["history"]]
    assert losses[-1] < losses[0] - 0.01, losses
    assert manifest.probe is None

    setup = "fuse(movies, books, name=./mix.safetensors)"
    run = type_command("run", setup, "--base", str(base), *TEXTS, "--json")
    assert run.status == 0, run.err
    made = adapterhub.compose("mixed@1.0.0", setup, base=str(base), push=place)
    assert made.arrangement.composition == Fuse("movies", "books", name="mix")
    assert {name: pin.reference.partition("-")[0] for name, pin in made.arrangement.adapters.items()} == {
        "movies": "movies@1.2.0",
        "books": "books@1.0.0",
        "mix": "./mix",
    }
    assert type_command("run", "mixed", "--base", str(base), *TEXTS, "--json").out == run.out
    assert type_command("verify", "mixed", "--run", "--base", str(base)).status == 0

    with pytest.raises(UsageError, match="'mix' was made for movies, books, not for books, movies"):
        adapterhub.compose("m@1.0.0", "fuse(books, movies, name=./mix.safetensors)", base=str(base))
    typed = type_command("run", "./mix.safetensors", "--base", str(base), *TEXTS, "--json")
    assert "is a fusion layer, which does nothing alone" in typed.error["message"]


def test_what_cannot_be_fused_is_told_before_the_training(place: Path, base: Path) -> None:
    data = write_csv(Path("reviews.csv"), sentences(20))
    arguments = ("train", str(data), "--base", str(base), "--base-id", BASE_ID, "--out", "mix.safetensors", "--json")
    typed = type_command(*arguments, "--fuse", "movies,low")
    assert typed.error["message"] == "low cannot be fused: fuse holds bottleneck adapters only"
    typed = type_command(*arguments, "--fuse", "movies,movies@1.0.0")
    assert "called 'movies' is loaded already" in typed.error["message"]
    typed = type_command(*arguments, "--fuse", "movies")
    assert typed.error["message"] == "a fusion is of two adapters or more"
    typed = type_command(*arguments, "--fuse", "movies,books", "--method", "seq_bn")
    assert typed.error["message"] == "bottleneck is no fusion layer"


def test_the_base_model_is_needed_to_compose(place: Path) -> None:
    typed = type_command("compose", "both@1.0.0", "stack(movies)", "--json")
    assert (typed.status, typed.error["code"]) == (7, "E_OFFLINE")


def test_the_composition_of_the_package_is_that_of_the_example() -> None:
    from adapterhub.hub.drafts import read_draft

    pulled = pull("moods-bert", offline=True)
    found = Arrangement.loads(pulled.path.read_bytes())
    draft = read_draft(Path(adapterhub.__file__).parent / "examples" / "moods.toml")
    assert (found.composition, found.head) == (draft.composition, draft.head)
    assert {name: pin.reference for name, pin in found.adapters.items()} == draft.adapters
    assert {name: found.to_json()[name] for name in draft.fields} == draft.fields
    assert {name: part.artifact.identity for name, part in pulled.parts.items() if part.artifact} == {
        name: pin.digest for name, pin in found.adapters.items()
    }
    assert found.dumps() == pulled.path.read_bytes()
