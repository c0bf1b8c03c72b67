"""The archived AdapterHub: its cards become entries, its names resolve, and what was its is pulled as a native file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from archived_hub import CARDS, HOST, SECRET, Card, a_zip, identifiers, write_archive
from cli_session import type_command
from golden import GOLDEN
from hub_double import Hub
from hypothesis import given
from hypothesis import strategies as st
from local_server import Answer, StaticHost, once, running
from transformers import AutoModel

from adapterhub import hub as verbs
from adapterhub.errors import (
    AdapterHubError,
    BaseMismatchError,
    DigestError,
    FormatError,
    NotFoundError,
    OfflineError,
    SchemaError,
    StateError,
    UsageError,
)
from adapterhub.hub.archived_names import versions
from adapterhub.hub.importing import import_archive
from adapterhub.loader import attach
from adapterhub.registry import (
    Artifact,
    ArtifactBase,
    Index,
    Store,
    Version,
    digest,
    open_registry,
    pull,
    receiving,
    sharding,
    sources,
)
from adapterhub.registry.registry import PACKAGED

NAMES = {
    "ukp/bert-base-uncased_sentiment_sst-2_pfeiffer": "sst2-bert",
    "ukp/bert-base-uncased_sentiment_sst-2_houlsby": "sst2-bert-houlsby",
    "ukp/roberta-base-sst_pfeiffer": "sst2-roberta",
    "ukp/bert-base-multilingual-cased-en-wiki_pfeiffer": "en-wiki-mbert-gelu",
    "ukp/bert-base-multilingual-cased-en-wiki_pfeiffer_relu": "en-wiki-mbert",
    "ukp/bert-base-multilingual-cased-en-wiki_houlsby": "en-wiki-mbert-houlsby",
    "someone/bert-base-multilingual-cased_nli_MultiNLI_adapter_config": "multinli-mbert",
    "ukp/bert-base-multilingual-cased_wikiann_ner_en_pfeiffer": "wikiann-en-mbert",
    "ukp/bert-base-uncased-ner-pfeiffer": "ner-conll2003-bert",
    "other/bert-base-uncased-conll2003_pfeiffer": "chunk-conll2003-bert",
    "ukp/bert-base-uncased_sts_stackexchange_pfeiffer": "stackexchange-bert",
    "ukp/bert-base-uncased_sts_sts-b_pfeiffer": "stsb-bert",
    "someone/facebook-bart-large_qa_squad2_some-leaveout": "squad2-bart-large",
}
BERT, MBERT = "google-bert/bert-base-uncased", "google-bert/bert-base-multilingual-cased"
MINI = Artifact(
    base=ArtifactBase(id="acme/mini", architecture="bert"),
    method="lora",
    format="native",
    url="mine.safetensors",
    digest=f"sha256:{'0' * 64}",
    size=1,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive."""
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def index(archive: Path) -> Index:
    """An index of it, and of an adapter of our own that is called as one of its."""
    own = Index().add("sst2-bert", "1.0.0", MINI, published="2026-01-01", task="sentiment/sst-2", summary="mine")
    return import_archive(archive, own).index


def card(name: str) -> Card:
    return next(card for card in CARDS if NAMES[card.key] == name)


# What becomes of a card.


def test_each_card_becomes_an_entry_with_a_name_to_type(archive: Path, index: Index) -> None:
    assert set(NAMES.values()) == set(index.adapters)
    assert {key: index.find(f"@{key}") for key in NAMES} == NAMES
    assert import_archive(archive, Index()).names == tuple(sorted(NAMES.values()))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_each_file_becomes_a_version_with_its_digest_and_its_places(index: Index, card: Card) -> None:
    entry = index.adapters[NAMES[card.key]]
    artifacts = [a for release in entry.versions.values() for a in release.artifacts if a != MINI]
    stem = card.key.split("/")[1]
    assert {(a.url, a.digest, a.sources) for a in artifacts} == {
        (card.url(version, HOST), digest.of_bytes(data), (f"hf://AdapterHub/{stem}@{version}",))
        for version, data in card.files.items()
    }
    default = index.resolve(f"@{card.key}").artifact
    assert default.url == card.url(card.default, HOST)
    assert {a.format for a in artifacts} == {"adapters"}
    assert all(a.size is None for a in artifacts)


def test_methods_base_models_and_families_are_called_as_everywhere(index: Index) -> None:
    known = {
        name: index.resolve(name, base=base).artifact
        for name, base in [*dict.fromkeys(NAMES.values(), None).items(), ("sst2-bert", BERT)]
    }
    said = {name: (a.base.id, a.base.architecture, a.method) for name, a in known.items()}
    assert said["sst2-bert"] == (BERT, "bert", "seq_bn")
    assert said["sst2-bert-houlsby"] == (BERT, "bert", "double_seq_bn")
    assert said["sst2-roberta"] == ("FacebookAI/roberta-base", "roberta", "seq_bn")
    assert said["en-wiki-mbert"] == (MBERT, "bert", "seq_bn[reduction_factor=2]+invertible[before_output=true]")
    assert said["en-wiki-mbert-houlsby"][2] == "double_seq_bn[reduction_factor=2,non_linearity=gelu_new]"
    assert said["multinli-mbert"][2] == "seq_bn[reduction_factor=2]"
    assert said["squad2-bart-large"] == ("facebook/bart-large", "bart", "seq_bn[mh_adapter=true,leave_out=[0,1]]")


def test_entries_say_facts_and_no_words_of_cards(index: Index) -> None:
    assert SECRET.encode() not in index.dumps()
    assert b"a@b" not in index.dumps()
    entries = index.adapters
    assert entries["sst2-roberta"].summary == "Sentiment (SST-2), without a head"
    assert (
        entries["en-wiki-mbert-gelu"].summary == "English (Wikipedia), a language adapter, without a head; 1.0.0 is nd"
    )
    assert (entries["sst2-roberta"].language, entries["en-wiki-mbert"].language) == (("en",), ("en",))
    assert entries["wikiann-en-mbert"].task == "wikiann/en"


def test_what_an_adapter_was_trained_on_is_named_as_it_resolves_here(index: Index) -> None:
    for name in ("multinli-mbert", "wikiann-en-mbert"):
        for release in index.adapters[name].versions.values():
            (reference,) = release.artifacts[0].requires
            assert reference == "en-wiki-mbert@1.0.0"
            assert index.resolve(reference).artifact.base.id == MBERT


def test_an_adapter_of_ours_keeps_its_place_before_an_archived_one_of_its_name(index: Index) -> None:
    entry = index.adapters["sst2-bert"]
    assert [a.base.id for a in entry.versions["1.0.0"].artifacts] == ["acme/mini", BERT]
    assert (entry.summary, index.resolve("sst2-bert").artifact) == ("mine", MINI)
    archived = index.resolve("sst2-bert", base="bert-base-uncased").artifact
    assert (archived.base.id, archived.summary) == (BERT, "Sentiment (SST-2), with a head")


def test_an_old_name_never_means_an_adapter_of_ours(index: Index) -> None:
    for name in ("@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer", "ukp/bert-base-uncased_sentiment_sst-2_pfeiffer"):
        assert index.resolve(name).artifact.base.id == BERT
    with pytest.raises(
        NotFoundError, match="none of those called 'sentiment/sst-2@ukp' has an artifact for base model"
    ):
        index.resolve("sentiment/sst-2@ukp", base="acme/mini")
    assert index.resolve("sst2-bert", base="acme/mini").artifact == MINI


def test_the_same_archive_gives_the_same_bytes(archive: Path, index: Index, tmp_path: Path) -> None:
    again = import_archive(archive, index)
    assert again.index.dumps() == index.dumps()
    assert again.added == ()
    rewritten = write_archive(tmp_path / "other order", list(reversed(CARDS)))
    own = Index().add("sst2-bert", "1.0.0", MINI, published="2026-01-01", task="sentiment/sst-2", summary="mine")
    assert import_archive(rewritten, own).index.dumps() == index.dumps()
    assert Index.loads(index.dumps()) == index


# Versions.


@given(
    st.lists(st.from_regex(r"[A-Za-z0-9]{1,6}(_[A-Za-z0-9]{1,4})?", fullmatch=True), min_size=1, unique=True), st.data()
)
def test_the_default_version_is_the_one_that_is_chosen(names: list[str], data: st.DataObject) -> None:
    default = data.draw(st.sampled_from(names))
    try:
        made = versions(names, default)
    except (SchemaError, UsageError):
        return
    assert list(made) == names
    release = {"artifacts": [MINI.to_json()], "yanked": False}
    index = Index.loads(
        json.dumps({"format": 1, "adapters": {"a": {"versions": dict.fromkeys(made.values(), release)}}}).encode()
    )
    assert index.resolve("a").version == made[default]
    assert all(index.resolve(f"a@{text}").version == text for text in made.values())
    assert all(str(Version.parse(text)) == text for text in made.values())


@pytest.mark.parametrize(
    ("names", "default", "expected"),
    [
        (["1"], "1", ["1.0.0"]),
        (["2", "1"], "2", ["2.0.0", "1.0.0"]),
        (["1", "2", "3"], "1", ["1.0.0", "1.0.0-2", "1.0.0-3"]),
        (["nd", "wd_150k"], "nd", ["1.0.0", "1.0.0-wd-150k"]),
        (["x", "01"], "x", ["1.0.0", "1.0.0-v01"]),
        (["AdapterFusion"], "AdapterFusion", ["1.0.0"]),
    ],
)
def test_versions_are_numbered_by_rule(names: list[str], default: str, expected: list[str]) -> None:
    assert list(versions(names, default).values()) == expected


def test_versions_that_would_be_one_are_refused() -> None:
    with pytest.raises(SchemaError, match="versions a, b_c, b-c cannot be told apart"):
        versions(["a", "b_c", "b-c"], "a")


# Old names.


@pytest.mark.parametrize(
    ("name", "base", "method", "expected"),
    [
        ("sentiment/sst-2@ukp", "bert-base-uncased", None, "sst2-bert"),
        ("sentiment/sst-2@ukp", "google-bert/bert-base-uncased", "double_seq_bn", "sst2-bert-houlsby"),
        ("Sentiment/SST-2@UKP", "roberta-base", None, "sst2-roberta"),
        ("en/wiki@ukp", None, None, "en-wiki-mbert"),
        ("en/wiki@ukp", None, "double_seq_bn", "en-wiki-mbert-houlsby"),
        ("ner/conll2003@ukp", None, None, "ner-conll2003-bert"),
        ("chunk/conll2003@other", None, None, "chunk-conll2003-bert"),
        ("sts/stackexchange@ukp@1.0.0-serverfault-com", None, None, "stackexchange-bert"),
        ("sentiment/sst-2", "bert-base-uncased", None, "sst2-bert"),
        ("Sentiment/SST-2", "roberta-base", None, "sst2-roberta"),
        ("en/wiki", None, "double_seq_bn", "en-wiki-mbert-houlsby"),
        ("chunk/conll2003", None, None, "chunk-conll2003-bert"),
        ("sts/stackexchange@1.0.0-serverfault-com", None, None, "stackexchange-bert"),
    ],
)
def test_a_task_and_an_organisation_mean_what_they_meant(
    index: Index, name: str, base: str | None, method: str | None, expected: str
) -> None:
    assert index.resolve(name, base=base, method=method).name == expected


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_the_identifier_of_a_configuration_chooses_among_them(index: Index, card: Card) -> None:
    base = next(a.base.id for r in index.adapters[NAMES[card.key]].versions.values() for a in r.artifacts if a != MINI)
    for identifier in identifiers(card):
        name = f"{card.task}/{identifier}@{card.key.split('/')[0]}"
        assert index.resolve(name, base=base).name == NAMES[card.key]


def test_a_name_of_adapters_for_several_base_models_wants_one_of_them(index: Index) -> None:
    with pytest.raises(
        UsageError, match="another name of sst2-bert, sst2-bert-houlsby and sst2-roberta; name one of"
    ) as error:
        index.resolve("sentiment/sst-2@ukp")
    assert "base model" in error.value.hint


def test_an_old_name_without_its_organisation_is_ambiguous_or_unknown_by_name(index: Index) -> None:
    with pytest.raises(UsageError, match="another name of sst2-bert, sst2-bert-houlsby and sst2-roberta; name one of"):
        index.resolve("sentiment/sst-2")
    with pytest.raises(NotFoundError, match="there is no adapter 'sentiment/sst'"):
        index.resolve("sentiment/sst")
    assert index.find("ner/conll2003") == "ner-conll2003-bert"
    known = index.add("mine", "1.0.0", MINI, published="2026-01-01", aliases=("ner/conll2003",))
    assert known.find("ner/conll2003") == "mine"


def test_others_than_names_with_an_organisation_belong_to_one_entry(index: Index) -> None:
    known = index.add("sst2-roberta", "9.0.0", MINI, published="2026-01-01", aliases=("sst-2",))
    with pytest.raises(SchemaError, match="'sst-2' is a name of 'en-wiki-mbert' and of 'sst2-roberta'"):
        known.add("en-wiki-mbert", "9.0.0", MINI, published="2026-01-01", aliases=("SST-2",))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"aliases": ("other",)}, "artifacts[0].aliases: 'other' is none of the entry"),
        ({"sources": ("beside.zip",)}, "artifacts[0].sources: 'beside.zip' is no URL"),
        ({"requires": ("a b",)}, "artifacts[0].requires: 'a b' is not a reference"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change: dict[str, tuple[str]], fault: str) -> None:
    with pytest.raises(SchemaError) as error:
        Index().add("a", "1.0.0", dataclasses.replace(MINI, **change), published="2026-01-01")  # type: ignore[arg-type]
    assert fault in str(error.value)


# What cannot be imported.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "acme/unheard-of"}, "the base model acme/unheard-of is not known"),
        ({"is_default": False}, "the index has no default of sentiment/sst-2 for bert-base-uncased"),
        ({"default": "7"}, "the default version is none of its files"),
        ({"config": {"using": "nothing"}}, "no architecture is called nothing"),
        ({"fields": {"files": [{"version": "1", "url": "https://x/y.zip"}]}}, "a file lacks version, url or sha256"),
        ({"fields": {"files": [{"version": "1", "url": "https://x/y.zip", "sha256": "abc"}]}}, "digest (sha256:"),
        ({"fields": {"task": 3}}, "task is no text"),
        ({"requires": ["xx/wiki@ukp"]}, "requires xx/wiki@ukp, which is not there for bert-base-uncased"),
    ],
)
def test_a_card_without_a_place_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    changed = dataclasses.replace(CARDS[0], **change)  # type: ignore[arg-type]
    with pytest.raises(SchemaError) as error:
        import_archive(write_archive(tmp_path, [changed]), Index())
    assert message in str(error.value)


def test_cards_that_would_get_one_name_are_refused(tmp_path: Path) -> None:
    twin = dataclasses.replace(CARDS[0], key="ukp/the-same", is_default=False)
    twins = [CARDS[0], twin, dataclasses.replace(twin, key="ukp/the-same-again")]
    with pytest.raises(
        SchemaError, match="sst2-bert is the name of ukp/bert-base-uncased_sentiment_sst-2_pfeiffer and"
    ):
        import_archive(write_archive(tmp_path, twins), Index())


def test_a_name_that_has_another_task_here_is_not_taken(archive: Path) -> None:
    own = Index().add("sst2-bert", "1.0.0", MINI, published="2026-01-01", task="sentiment/other")
    with pytest.raises(StateError, match="the index has an adapter sst2-bert for sentiment/other, the archive one for"):
        import_archive(archive, own)


def test_published_bytes_are_not_replaced(archive: Path, index: Index, tmp_path: Path) -> None:
    changed = [dataclasses.replace(CARDS[0], files={"1": b"other bytes"}), *CARDS[1:]]
    with pytest.raises(StateError, match=r"sst2-bert@1\.0\.0 has another adapters artifact"):
        import_archive(write_archive(tmp_path, changed), index)


@pytest.mark.parametrize(
    ("path", "data", "kind"),
    [
        ("adapters/ukp/broken.yaml", b"a: [", FormatError),
        ("adapters/ukp/list.yaml", b"- 1", FormatError),
        ("adapters/ukp/huge.yaml", b"#" * (1 << 20) + b"x", FormatError),
        ("dist/v2/index/gpt2.json", b"[]", FormatError),
        ("dist/v2/index/gpt2.json", b"{", FormatError),
    ],
)
def test_a_damaged_archive_is_refused_by_file(
    tmp_path: Path, path: str, data: bytes, kind: type[AdapterHubError]
) -> None:
    folder = write_archive(tmp_path)
    (folder / path).write_bytes(data)
    with pytest.raises(kind, match=path.rpartition("/")[2]):
        import_archive(folder, Index())


def test_another_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is no copy of the archived AdapterHub"):
        import_archive(tmp_path, Index())


# The command.


def test_the_command_writes_the_index_once(clean: None, archive: Path, tmp_path: Path) -> None:
    first = type_command("index", "import", "adapterhub-archive", str(archive), "--index", "new.json")
    assert (first.status, first.out) == (0, "13 adapters with 20 files are in new.json, 13 of them new\n")
    data = Path("new.json").read_bytes()
    again = type_command("index", "import", "adapterhub-archive", str(archive), "--index", "new.json", "--json")
    assert (again.json["added"], Path("new.json").read_bytes()) == ([], data)
    assert type_command("index", "check", "new.json").status == 0


def test_a_sharded_index_gets_a_file_for_each_name_and_nothing_is_lost(clean: None, archive: Path) -> None:
    place = Path("hub/index.json")
    command = ("index", "import", "adapterhub-archive", str(archive), "--index", str(place))
    assert type_command("index", "shard", "hub").status == 0
    marker = place.read_bytes()
    assert type_command(*command).out == f"13 adapters with 20 files are in {place}, 13 of them new\n"
    assert place.read_bytes() == marker
    assert sharding.whole(place.parent) == import_archive(archive, Index()).index
    assert sharding.faults(place.parent, sharding.whole(place.parent)) == []
    assert type_command(*command, "--json").json["added"] == []


def test_a_dry_run_writes_nothing(clean: None, archive: Path) -> None:
    typed = type_command("index", "import", "adapterhub-archive", str(archive), "--dry-run", "-q")
    assert (typed.status, typed.out.split()) == (0, sorted(NAMES.values()))
    assert not list(Path().iterdir())


# Pulling.

CASE = GOLDEN.case("c-bert-cls2")
PACKED = a_zip(CASE.adapter, top="adapter/")


@pytest.fixture
def host(online: None) -> Iterator[StaticHost]:
    """The host of the archives."""
    with running(StaticHost()) as found:
        yield found


@pytest.fixture
def double(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub."""
    with running(Hub()) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def offered(host: StaticHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes = PACKED) -> Card:
    """Let the host offer an archived adapter, and the settings name an index of it; return its card."""
    offered = dataclasses.replace(CARDS[0], files={"1": data})
    folder = write_archive(tmp_path / "archive", [offered], host.url)
    (tmp_path / "registry").mkdir()
    import_archive(folder, Index()).index.write(tmp_path / "registry" / "index.json")
    monkeypatch.setenv("ADAPTERHUB_REGISTRY", str(tmp_path / "registry"))
    host.files[offered.url("1", "").lstrip("/")] = data
    return offered


@pytest.fixture
def one(host: StaticHost, double: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The card of an adapter that the host offers."""
    return offered(host, tmp_path, monkeypatch)


def computes_as_the_library(path: Path) -> bool:
    adapters = attach(AutoModel.from_pretrained(CASE.base).eval())
    adapters.activate(adapters.load(path))
    with torch.no_grad():
        return CASE.close(adapters.model(**CASE.inputs()).logits, CASE.expected()["output"])


def test_what_is_pulled_is_a_native_file_that_computes_the_same(one: Card, host: StaticHost) -> None:
    path = verbs.pull("sentiment/sst-2@ukp")
    manifest = verbs.read_manifest(path)
    assert (path.name, manifest.name, manifest.version) == ("sst2-bert-1.0.0.safetensors", "sst2-bert", "1.0.0")
    assert manifest.base.id == BERT
    assert manifest.provenance is not None
    assert manifest.provenance.digest == digest.of_bytes(PACKED)
    assert computes_as_the_library(path)
    assert [request.path for request in host.requests] == [f"/{one.key}/1.zip"]


def test_what_was_pulled_is_there_offline(one: Card, host: StaticHost) -> None:
    first = type_command("pull", "sst2-bert", "--json").json
    host.files.clear()
    again = type_command("pull", "sst2-bert", "--offline", "--json").json
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["path"] == again["path"]
    assert len(host.requests) == 1


def test_offline_it_says_where_it_would_have_gone(one: Card, host: StaticHost) -> None:
    typed = type_command("pull", "sst2-bert", "--offline")
    assert typed.status == 7
    assert "sst2-bert@1.0.0 is not on this machine, and the network is switched off; it would come from " in typed.err
    assert f"{one.url('1', host.url)}, or else from hf://AdapterHub/{one.key.split('/')[1]}@1" in typed.err
    assert not host.requests


def test_a_format_that_is_asked_for_is_given_as_it_is(one: Card) -> None:
    assert verbs.pull("sst2-bert", format="adapters").read_bytes() == PACKED
    assert verbs.pull("sst2-bert", format="native") == verbs.pull("sst2-bert")
    assert pull("sst2-bert").path.read_bytes() == PACKED


def test_wrong_bytes_end_the_search(one: Card, host: StaticHost, double: Hub) -> None:
    double.storage.put(f"AdapterHub/{one.key.split('/')[1]}", {"adapterhub.safetensors": b"x"})
    host.files[f"{one.key}/1.zip"] = PACKED[:-1] + b"?"
    typed = type_command("pull", "sst2-bert")
    assert typed.status == 5
    assert not double.requests
    host.files[f"{one.key}/1.zip"] = PACKED[:-7]
    assert type_command("pull", "sst2-bert").status == 5
    host.files[f"{one.key}/1.zip"] = PACKED
    assert type_command("pull", "sst2-bert").status == 0


def test_where_the_old_host_is_gone_the_hub_gives_it_and_that_is_told(one: Card, host: StaticHost, double: Hub) -> None:
    repository = f"AdapterHub/{one.key.split('/')[1]}"
    files = {file.name: file.read_bytes() for file in CASE.adapter.iterdir()}
    double.storage.put(repository, {**files, "README.md": b"# card"})
    double.storage.tag(repository, "1", "main")
    host.files.clear()
    typed = type_command("pull", "sst2-bert")
    assert typed.status == 0, typed.err
    assert f"it came from hf://{repository}@" in typed.err
    assert "of which the index has no digest; the one shown is the Hub's" in typed.err
    path = Path(typed.out.strip())
    assert computes_as_the_library(path)
    pulled = pull("sst2-bert", offline=True)
    assert pulled.content is not None
    assert pulled.digest == pulled.content.identity != digest.of_bytes(PACKED)
    assert verbs.pull("sst2-bert") == path


def test_where_only_what_the_index_vouches_for_is_wanted_the_hub_is_not_asked(
    one: Card, host: StaticHost, double: Hub
) -> None:
    host.files.clear()
    registry = open_registry()
    artifact = registry.index.resolve("sst2-bert").artifact
    with pytest.raises(NotFoundError, match=r"there is no .*/1\.zip"):
        sources.obtain(registry, artifact, "it", store=Store(), offline=False, progress=None, pinned=True)
    assert not double.requests


def test_a_frozen_project_gets_the_copy_on_the_hub_that_its_lock_pins_where_the_old_host_is_gone(
    one: Card, host: StaticHost, double: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = f"AdapterHub/{one.key.split('/')[1]}"
    files = {file.name: file.read_bytes() for file in CASE.adapter.iterdir()}
    double.storage.put(repository, files)
    double.storage.tag(repository, "1", "main")
    monkeypatch.chdir(tmp_path)
    Path("adapterhub.toml").write_text(f'registry = "{tmp_path}/registry"\n[adapters]\nit = "sst2-bert"\n')
    assert type_command("lock").status == 0
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "fresh"))
    host.files.clear()
    typed = type_command("sync", "--frozen", "--json")
    assert typed.status == 0, typed.err
    there = Path(typed.json["adapters"][0]["path"])
    assert {path.name: path.read_bytes() for path in there.iterdir()}.items() <= files.items()
    assert typed.json["adapters"][0]["digest"] != digest.of_bytes(PACKED)
    typed = type_command("pull", "it", "--frozen", "--offline")
    assert typed.status == 0, typed.err
    assert computes_as_the_library(Path(typed.out.strip()))
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "fresher"))
    double.storage.put(repository, {**files, "pytorch_adapter.bin": b"other"})
    assert type_command("sync", "--frozen").status == 0


def test_a_file_that_is_gone_from_its_folder_comes_from_another_source(host: StaticHost, tmp_path: Path) -> None:
    data = b"bytes"
    host.files["copy.safetensors"] = data
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    artifact = dataclasses.replace(MINI, digest=digest, size=len(data), sources=(f"{host.url}/copy.safetensors",))
    Index().add("mine", "1.0.0", artifact, published="2026-01-01").write(tmp_path / "index.json")
    with pytest.raises(OfflineError, match="not on this machine"):
        pull("mine", registry=tmp_path, offline=True)
    assert pull("mine", registry=tmp_path).path.read_bytes() == data


def test_each_place_that_fails_is_named(one: Card, host: StaticHost, double: Hub) -> None:
    host.files.clear()
    repository = f"hf://AdapterHub/{one.key.split('/')[1]}@1"
    with pytest.raises(NotFoundError) as error:
        pull("sst2-bert")
    lines = str(error.value).splitlines()
    assert lines[0] == "none of the 2 places of sst2-bert@1.0.0 gives it:"
    assert lines[1].strip().startswith(f"there is no {one.url('1', host.url)}")
    assert repository in lines[2]
    host.faults.append(once(Answer(status=503), times=99))
    with pytest.raises(AdapterHubError, match="answers 503, 5 times"):
        pull("sst2-bert")


def test_an_archive_for_another_family_is_refused(
    host: StaticHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(case for case in GOLDEN.cases() if case.adapter.is_dir() and "roberta" in str(case.base))
    offered(host, tmp_path, monkeypatch, a_zip(other.adapter))
    with pytest.raises(BaseMismatchError, match=r"sst2-bert@1.0.0 is for models of the family .*, the index says bert"):
        verbs.pull("sst2-bert")


@pytest.mark.parametrize("member", ["../adapter_config.json", "/adapter_config.json", "a/../../adapter_config.json"])
def test_a_hostile_archive_is_refused(
    member: str, host: StaticHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import zipfile

    packed = io.BytesIO(PACKED)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(member, b"{}")
    offered(host, tmp_path, monkeypatch, packed.getvalue())
    typed = type_command("pull", "sst2-bert")
    assert typed.status == 5
    assert "leads out of the archive" in typed.err


def test_a_native_copy_that_was_damaged_or_removed_is_made_again(one: Card, host: StaticHost) -> None:
    path = verbs.pull("sst2-bert")
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b"?")
    assert verbs.pull("sst2-bert").read_bytes() == good
    for file in sorted(Path("cache").rglob("*.safetensors")):
        file.unlink()
    for file in sorted(Path("cache/native").iterdir()):
        file.write_text("{")
    assert verbs.pull("sst2-bert").read_bytes() == good
    assert len(host.requests) == 1


def test_a_model_takes_the_adapter_that_an_old_name_means_for_it(one: Card, host: StaticHost) -> None:
    adapters = attach(AutoModel.from_pretrained(CASE.base).eval(), base_id="bert-base-uncased")
    assert adapters.load("sentiment/sst-2@ukp") == "sst2-bert"
    adapters.activate("sst2-bert")
    with torch.no_grad():
        assert CASE.close(adapters.model(**CASE.inputs()).logits, CASE.expected()["output"])
    assert adapters.load("sst2-bert", name="again") == "again"
    assert len(host.requests) == 1


def test_what_is_there_already_is_pulled_without_torch_and_methods(one: Card, tmp_path: Path) -> None:
    verbs.pull("sst2-bert")
    code = (
        "import sys; from adapterhub.cli.application import run; assert run(['pull', 'sst2-bert', '-q']) == 0; "
        "print(sorted({'torch', 'adapterhub.methods', 'adapterhub.hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(verbs.pull("sst2-bert")), "[]"]


def test_run_and_show_know_an_archived_adapter(one: Card) -> None:
    with pytest.raises(OfflineError, match=r"sst2-bert@1\.0\.0 is not on this machine"):
        verbs.open_adapter("sst2-bert", offline=True)
    assert f"or from     hf://AdapterHub/{one.key.split('/')[1]}@1" in type_command("show", "sst2-bert").out
    verbs.pull("sst2-bert")
    shown = type_command("show", "sst2-bert").out
    assert "summary      Sentiment (SST-2), with a head\n" in shown
    assert f"base model   {BERT} (bert)\n" in shown
    assert "made from    adapters adapters.1.3.0\n" in shown


def test_a_file_of_unknown_size_is_bounded(one: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST", len(PACKED) - 1)
    with pytest.raises(DigestError, match=f"more than {len(PACKED) - 1}"):
        pull("sst2-bert")
    monkeypatch.setattr(receiving, "MOST", len(PACKED))
    assert pull("sst2-bert").path.read_bytes() == PACKED


def test_a_file_of_unknown_size_goes_on_where_it_broke_off(one: Card, host: StaticHost) -> None:
    host.faults.append(once(Answer(PACKED, cut=100)))
    assert pull("sst2-bert").path.read_bytes() == PACKED
    assert [request.headers.get("range") for request in host.requests] == [None, "bytes=100-"]


# The index that is shipped.


@pytest.fixture(scope="module")
def shipped() -> Index:
    return Index.load(PACKAGED)


def archived(index: Index) -> list[tuple[str, str, Artifact]]:
    """Return name, version and artifact of all that comes from the archive."""
    return [
        (name, version, artifact)
        for name, entry in index.adapters.items()
        for version, release in entry.versions.items()
        for artifact in release.artifacts
        if any(source.startswith("hf://AdapterHub/") for source in artifact.sources)
    ]


def test_all_cards_and_files_of_the_archive_are_in_the_index_that_is_shipped(shipped: Index) -> None:
    shipped.check()
    found = archived(shipped)
    repositories = {source.partition("@")[0] for _, _, artifact in found for source in artifact.sources}
    assert (len({name for name, _, _ in found}), len(repositories), len(found)) == (291, 291, 501)
    assert len({artifact.url for _, _, artifact in found}) == 501
    assert len({artifact.digest for _, _, artifact in found}) == 501


def test_every_archived_adapter_resolves_by_each_of_its_names(shipped: Index) -> None:
    for name, version, artifact in archived(shipped):
        aliases = artifact.aliases or shipped.adapters[name].aliases
        stem = artifact.sources[0].partition("@")[0].rpartition("/")[2]
        assert any(alias.startswith("@") and alias.endswith(f"/{stem}") for alias in aliases)
        for alias in (name, *aliases):
            plain = alias.count("/") == 1 and not alias.startswith("@")
            method = artifact.method if plain and alias != name else None
            resolved = shipped.resolve(f"{alias}@{version}", base=artifact.base.id, method=method)
            assert (resolved.name, resolved.artifact) == (name, artifact)


def test_the_default_of_an_archived_adapter_is_no_pre_release(shipped: Index) -> None:
    for name, _, artifact in archived(shipped):
        assert not Version.parse(shipped.resolve(name, base=artifact.base.id).version).prerelease


def test_what_an_archived_adapter_requires_is_there_for_its_base_model(shipped: Index) -> None:
    required = [(artifact, reference) for _, _, artifact in archived(shipped) for reference in artifact.requires]
    assert required
    assert all(shipped.resolve(reference, base=a.base.id).artifact.base == a.base for a, reference in required)


def test_the_bundled_adapters_come_first_under_their_names(shipped: Index) -> None:
    for name in ("sst2-bert", "tweets-bert", "product-reviews-bert", "editorials-bert", "moods-bert"):
        assert shipped.resolve(name).artifact.url.startswith("bundled:")
    both = [artifact.base.id for artifact in shipped.adapters["sst2-bert"].versions["1.0.0"].artifacts]
    assert both == ["sentence-transformers/all-MiniLM-L6-v2", BERT]
    assert shipped.find("sst-2") == "sst2-bert"


def test_the_library_that_made_them_is_needed_for_none_of_their_names(shipped: Index, clean: None) -> None:
    opened = open_registry("bundled")
    for name, expected in {
        "sst2-roberta": "roberta",
        "en-wiki-mbert": "bert",
        "@ukp/gpt2_nli_rte_houlsby": "gpt2",
        "squad2-bart-large": "bart",
        "wmt16-en-ro-mbart": "mbart",
    }.items():
        assert opened.index.resolve(name).artifact.base.architecture == expected


def test_the_database_of_the_index_chooses_by_base_model_and_method_too(shipped: Index, clean: None) -> None:
    opened = open_registry("bundled").index
    assert not isinstance(opened, Index)
    for method, expected in ((None, "sst2-gpt2"), ("double_seq_bn", "sst2-gpt2-houlsby")):
        for lookup in (opened, shipped):
            assert lookup.resolve("sentiment/sst-2@ukp", base="gpt2", method=method).name == expected
    for lookup in (opened, shipped):
        with pytest.raises(UsageError, match="is another name of sst2-bart, sst2-bart-houlsby, sst2-bert"):
            lookup.resolve("sentiment/sst-2@ukp")
