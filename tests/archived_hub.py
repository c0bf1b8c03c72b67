"""A small archive in the form of the archived AdapterHub: cards, architectures, tasks, and the index of its library."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adapterhub.registry import digest

HOST = "https://archive.example.org"

PFEIFFER: dict[str, Any] = {
    "ln_after": False,
    "ln_before": False,
    "mh_adapter": False,
    "output_adapter": True,
    "adapter_residual_before_ln": False,
    "non_linearity": "relu",
    "original_ln_after": True,
    "original_ln_before": True,
    "reduction_factor": 16,
    "residual_before_ln": True,
}
INVERSE = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "pfeiffer": {"config": PFEIFFER, "config_v1": {**PFEIFFER, "invertible_adapter": INVERSE}},
    "houlsby": {"config": {**PFEIFFER, "mh_adapter": True, "non_linearity": "swish", "original_ln_before": False}},
    "some-leaveout": {"config": {**PFEIFFER, "mh_adapter": True, "leave_out": [0, 1]}},
}
TITLES = {
    ("sentiment", ""): ("Sentiment Analysis", ""),
    ("sentiment", "sst-2"): ("SST-2", "english"),
    ("en", ""): ("English", ""),
}
SECRET = "Words of a person about a card"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card, and the zip archives of its versions; those without bytes get some."""

    key: str
    task: str
    model: str
    model_type: str
    config: Mapping[str, Any]
    files: Mapping[str, bytes]
    default: str
    is_default: bool = False
    head: bool = True
    requires: Sequence[str] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    ending: str = ".yaml"

    @property
    def kind(self) -> str:
        return "text_lang" if self.task.endswith("/wiki") else "text_task"

    def url(self, version: str, host: str) -> str:
        """Return where a version lies."""
        return f"{host}/{self.key}/{version}.zip"

    def document(self, host: str) -> dict[str, Any]:
        """Return the fields of the card."""
        task, subtask = self.task.split("/")
        files = [
            {"version": version, "url": self.url(version, host), "sha1": "0" * 40, "sha256": digest.of_bytes(data)[7:]}
            for version, data in self.files.items()
        ]
        return {
            "type": self.kind,
            "task": task,
            "subtask": subtask,
            "author": SECRET,
            "email": "a@b",
            "citation": SECRET,
            "model_type": self.model_type,
            "model_name": self.model,
            "config": dict(self.config),
            "default_version": self.default,
            "files": files,
            "description": SECRET,
            "prediction_head": self.head,
            **(
                {"dependencies": [{"key": key, "description": SECRET} for key in self.requires]}
                if self.requires
                else {}
            ),
            **self.fields,
        }


def a_zip(folder: Path | None = None, text: str = "", top: str = "") -> bytes:
    """Return a zip archive of a folder's files, or of a text."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()) if folder else ():
            archive.writestr(f"{top}{file.name}", file.read_bytes())
        if text:
            archive.writestr("text", text)
    return packed.getvalue()


def some(*versions: str) -> dict[str, bytes]:
    """Return versions with bytes of their own."""
    return {version: a_zip(text=f"bytes of {version}") for version in versions}


BERT: dict[str, Any] = {"model": "bert-base-uncased", "model_type": "bert"}
MBERT: dict[str, Any] = {"model": "bert-base-multilingual-cased", "model_type": "bert"}
ROBERTA: dict[str, Any] = {"model": "roberta-base", "model_type": "roberta"}
GELU = {"non_linearity": "gelu", "reduction_factor": 2}
RELU = {"non_linearity": "relu", "reduction_factor": 2}
PLAIN = {"using": "pfeiffer"}
DOUBLE = {"using": "houlsby"}
WIKI: dict[str, Any] = {"task": "en/wiki", "head": False, **MBERT}

CARDS: tuple[Card, ...] = (
    Card(
        key="ukp/bert-base-uncased_sentiment_sst-2_pfeiffer",
        task="sentiment/sst-2",
        config=PLAIN,
        files=some("1"),
        default="1",
        is_default=True,
        **BERT,
    ),
    Card(
        key="ukp/bert-base-uncased_sentiment_sst-2_houlsby",
        task="sentiment/sst-2",
        config=DOUBLE,
        files=some("1"),
        default="1",
        **BERT,
    ),
    Card(
        key="ukp/roberta-base-sst_pfeiffer",
        task="sentiment/sst-2",
        config=PLAIN,
        files=some("AdapterFusion"),
        default="AdapterFusion",
        is_default=True,
        head=False,
        **ROBERTA,
    ),
    Card(
        key="ukp/bert-base-multilingual-cased-en-wiki_pfeiffer",
        config={**PLAIN, **GELU},
        files=some("nd", "wd"),
        default="nd",
        **WIKI,
    ),
    Card(
        key="ukp/bert-base-multilingual-cased-en-wiki_pfeiffer_relu",
        config={**PLAIN, **RELU},
        files=some("madx"),
        default="madx",
        is_default=True,
        **WIKI,
    ),
    Card(
        key="ukp/bert-base-multilingual-cased-en-wiki_houlsby",
        config={**DOUBLE, **GELU},
        files=some("nd_150k", "wd_150k"),
        default="nd_150k",
        **WIKI,
    ),
    Card(
        key="someone/bert-base-multilingual-cased_nli_MultiNLI_adapter_config",
        task="nli/multinli",
        config={**PLAIN, "reduction_factor": 2.0},
        files=some("2", "1"),
        default="2",
        is_default=True,
        requires=["en/wiki@ukp"],
        **MBERT,
    ),
    Card(
        key="ukp/bert-base-multilingual-cased_wikiann_ner_en_pfeiffer",
        task="wikiann/en",
        config={**PLAIN, "non_linearity": "gelu"},
        files=some("1", "2", "3"),
        default="1",
        is_default=True,
        requires=["en/wiki@ukp"],
        **MBERT,
    ),
    Card(
        key="ukp/bert-base-uncased-ner-pfeiffer",
        task="ner/conll2003",
        config=PLAIN,
        files=some("NER"),
        default="NER",
        is_default=True,
        ending=".yml",
        **BERT,
    ),
    Card(
        key="other/bert-base-uncased-conll2003_pfeiffer",
        task="chunk/conll2003",
        config=PLAIN,
        files=some("1"),
        default="1",
        is_default=True,
        **BERT,
    ),
    Card(
        key="ukp/bert-base-uncased_sts_stackexchange_pfeiffer",
        task="sts/stackexchange",
        config={**PLAIN, "reduction_factor": 12},
        files=some("serverfault_com", "cooking_stackexchange_com", "ux_stackexchange_com"),
        default="cooking_stackexchange_com",
        is_default=True,
        **BERT,
    ),
    Card(
        key="ukp/bert-base-uncased_sts_sts-b_pfeiffer",
        task="sts/sts-b",
        config=PLAIN,
        files=some("1"),
        default="1",
        is_default=True,
        **BERT,
    ),
    Card(
        key="someone/facebook-bart-large_qa_squad2_some-leaveout",
        task="qa/squad2",
        config={"using": "some-leaveout", "non_linearity": "relu", "reduction_factor": 16},
        files=some("1"),
        default="1",
        is_default=True,
        model="facebook/bart-large",
        model_type="bart",
    ),
)


def write_archive(folder: Path, cards: Sequence[Card] = CARDS, host: str = HOST) -> Path:
    """Write an archive, and return its folder."""
    for card in cards:
        _yaml(folder / "adapters" / f"{card.key}{card.ending}", card.document(host))
    for name, document in ARCHITECTURES.items():
        _yaml(folder / "architectures" / f"{name}.yaml", {"name": name, "description": SECRET, **document})
    for (task, subtask), (title, language) in TITLES.items():
        kind, name = ("subtasks", f"{task}_{subtask}") if subtask else ("tasks", task)
        document = {"task": task, "subtask": subtask, "displayname": title, "description": SECRET, "language": language}
        _yaml(folder / kind / f"{name}.yaml", {key: text for key, text in document.items() if text})
    _write_index(folder / "dist", cards)
    return folder


def identifiers(card: Card) -> tuple[str, str]:
    """Return what the former and the later index of the archive call a card's configuration."""
    former, later = (digest.of_bytes(f"{form} {sorted(card.config.items())}".encode())[7:23] for form in (1, 2))
    return former, later


def _write_index(folder: Path, cards: Sequence[Card]) -> None:
    former: dict[str, Any] = {}
    later: dict[str, Any] = {}
    for card in cards:
        task, subtask = card.task.split("/")
        for index, identifier in zip((former, later), identifiers(card), strict=True):
            home = f"index_{card.kind}" if index is former else "v2/index"
            found = index.setdefault(f"{home}/{card.model}.json", {}).setdefault(task, {}).setdefault(subtask, {})
            place = f"adapters/{card.key}.json"
            found.setdefault(identifier, {"versions": {}})["versions"][card.key.split("/")[0]] = place
            if card.is_default:
                found["default"] = place
    for name, document in {**former, **later}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))


def _yaml(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
