"""The archived AdapterHub as a folder: its cards, and the index by which its library chose among them.

    adapters/<organisation>/<card>.yaml   one adapter: task, model, configuration, and its versions with their digests
    architectures/<name>.yaml             what a configuration is called, and its fields
    tasks/, subtasks/                     what tasks and data sets are called
    dist/                                 which card is meant by task, subtask, model and configuration

Only facts are taken from it: names, numbers, digests and addresses, no descriptions.

Source: https://github.com/Adapter-Hub/Hub, which is archived; adapters 1.3.0, utils.py (`find_in_index`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..adapter import JSON
from ..errors import FormatError, NotFoundError, SchemaError

LARGEST = 1 << 20
"""Bytes that a file of the archive may have."""

LANGUAGE = "text_lang"
"""The type of adapters for a language; all others are for a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One version of an adapter: a zip archive.

    Attributes:
        version: what the card calls it.
        url: where it lay.
        sha256: its digest, 64 hexadecimal digits.
    """

    version: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One adapter.

    Attributes:
        organisation: who published it.
        stem: name of its file without ending, and of its repository on the Hugging Face Hub.
        kind: `text_task` or `text_lang`.
        task, subtask: what it is for; of a language, its code and the texts.
        model, model_type: the base model and its family.
        config: `using`, the name of an architecture, and the fields that differ from that.
        default: the version that is meant where none is said.
        files: its versions.
        head: whether it has a prediction head.
        requires: what it was trained on top of, as `task/subtask@organisation`.
    """

    organisation: str
    stem: str
    kind: str
    task: str
    subtask: str
    model: str
    model_type: str
    config: Mapping[str, JSON]
    default: str
    files: tuple[File, ...]
    head: bool
    requires: tuple[str, ...]

    @property
    def key(self) -> str:
        """What the archive calls it: organisation/card."""
        return f"{self.organisation}/{self.stem}"

    @property
    def group(self) -> tuple[str, str, str]:
        """What it shares with cards of other configurations."""
        return self.task, self.subtask, self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """All that is taken from the archive.

    Attributes:
        cards: sorted by organisation and name.
        architectures: name → its document.
        titles: (task, subtask) → what a data set is called; (task, "") → a task or language.
        languages: (task, subtask) → language of a data set, in words.
        defaults: (task, subtask, model) → key of the card that is meant where no configuration is said.
        identifiers: key of a card → the identifiers of its configuration.
    """

    cards: tuple[Card, ...]
    architectures: Mapping[str, Mapping[str, JSON]]
    titles: Mapping[tuple[str, str], str]
    languages: Mapping[tuple[str, str], str]
    defaults: Mapping[tuple[str, str, str], str]
    identifiers: Mapping[str, tuple[str, ...]]


def read(folder: Path) -> Archive:
    """Return what is taken from a copy of the archive.

    Raises:
        NotFoundError: the folder holds none.
        FormatError: a file is not what it should be.
        SchemaError: cards lack fields; every fault is told.
    """
    if not (folder / "adapters").is_dir() or not (folder / "dist" / "v2" / "index").is_dir():
        raise NotFoundError(
            f"{folder} is no copy of the archived AdapterHub",
            hint="name the folder that has adapters/, architectures/ and dist/",
        )
    faults: list[str] = []
    cards = [card for path, data in _documents(folder / "adapters") if (card := _card(path, data, faults))]
    if faults:
        raise SchemaError(f"the archive in {folder}", faults)
    named = [data for kind in ("tasks", "subtasks") for _, data in _documents(folder / kind)]
    defaults, identifiers = _choices(folder / "dist")
    return Archive(
        cards=tuple(sorted(cards, key=lambda card: (card.organisation, card.stem))),
        architectures={path.stem: data for path, data in _documents(folder / "architectures")},
        titles=_texts(named, "displayname"),
        languages=_texts(named, "language"),
        defaults=defaults,
        identifiers=identifiers,
    )


def _documents(folder: Path) -> Iterator[tuple[Path, Mapping[str, JSON]]]:
    """Yield the YAML files below a folder, in the order of their paths."""
    import yaml

    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        if path.stat().st_size > LARGEST:
            raise FormatError(f"{path} is larger than a card may be ({LARGEST:,} bytes)")
        try:
            data = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"{path} is not YAML: {error}") from error
        if not isinstance(data, dict):
            raise FormatError(f"{path} holds no fields")
        yield path, data


_TEXTS = ("type", "task", "subtask", "model_name", "model_type", "default_version")


def _card(path: Path, data: Mapping[str, JSON], faults: list[str]) -> Card | None:
    """Return the card in a file, or None where something is wrong, which is added to faults."""
    found = [f"{path}: {key} is no text" for key in _TEXTS if not isinstance(data.get(key), str)]
    config: JSON = data.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("using"), str):
        found.append(f"{path}: config names no architecture")
    files = [_file(item) for item in data.get("files") or ()]
    if not files or None in files:
        found.append(f"{path}: a file lacks version, url or sha256")
    known = tuple(file for file in files if file is not None)
    if data.get("default_version") not in {file.version for file in known}:
        found.append(f"{path}: the default version is none of its files")
    faults += found
    if found:
        return None
    return Card(
        organisation=path.parent.name,
        stem=path.stem,
        kind=data["type"],
        task=data["task"],
        subtask=data["subtask"],
        model=data["model_name"],
        model_type=data["model_type"],
        config=config,
        default=data["default_version"],
        files=known,
        head=data.get("prediction_head") is True,
        requires=tuple(str(item["key"]) for item in data.get("dependencies") or ()),
    )


def _file(data: JSON) -> File | None:
    texts: list[JSON] = [data.get(key) for key in ("version", "url", "sha256")] if isinstance(data, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        return None
    return File(version=texts[0], url=texts[1], sha256=texts[2])


def _texts(documents: list[Mapping[str, JSON]], field: str) -> dict[tuple[str, str], str]:
    """Return (task, subtask or "") → a text of the documents that have it."""
    return {
        (str(data.get("task")), str(data.get("subtask", ""))): data[field].strip()
        for data in documents
        if isinstance(data.get(field), str) and data[field].strip()
    }


def _choices(folder: Path) -> tuple[dict[tuple[str, str, str], str], dict[str, tuple[str, ...]]]:
    """Return which card is the default of what, and the identifiers of each card's configuration.

    The index has two forms, of which the later one decides; a configuration may have an identifier in each.
    """
    defaults: dict[tuple[str, str, str], str] = {}
    identifiers: dict[str, dict[str, None]] = {}
    for home in (folder / "index_text_lang", folder / "index_text_task", folder / "v2" / "index"):
        for path in sorted(home.rglob("*.json")):
            model = path.relative_to(home).with_suffix("").as_posix()
            for task, subtask, choices in _leaves(path):
                for identifier, choice in choices.items():
                    if identifier == "default":
                        defaults[task, subtask, model] = _key(choice)
                        continue
                    for place in choice["versions"].values():
                        identifiers.setdefault(_key(place), {})[identifier] = None
    return defaults, {key: tuple(found) for key, found in identifiers.items()}


def _leaves(path: Path) -> Iterator[tuple[str, str, Mapping[str, JSON]]]:
    """Yield task, subtask and the choices among configurations that an index file lists."""
    if path.stat().st_size > LARGEST:
        raise FormatError(f"{path} is larger than an index of the archive may be ({LARGEST:,} bytes)")
    try:
        for task, subtasks in json.loads(path.read_bytes()).items():
            yield from ((task, subtask, choices) for subtask, choices in subtasks.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is no index of the archived AdapterHub: {error}") from error


def _key(place: str) -> str:
    """Return the key of a card from its path in the index.

    >>> _key("adapters/ukp/bert-base-uncased_sentiment_sst-2_pfeiffer.json")
    'ukp/bert-base-uncased_sentiment_sst-2_pfeiffer'
    """
    return place.removeprefix("adapters/").removesuffix(".json")
