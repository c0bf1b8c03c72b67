"""Importing: the adapters of the archived AdapterHub into an index.

A card becomes an entry, its files become versions. The bytes of a version are the zip archive that its card names, with
its digest; the repository on the Hugging Face Hub into which the archive was moved is its second source. Nothing is
fetched. The same archive into the same index gives the same bytes, also where all of it is in the index already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import methods
from ..adapter import JSON
from ..architectures import Architecture, by_model_type
from ..converters.adapters import config as configs
from ..converters.adapters.codec import Source
from ..errors import SchemaError, StateError
from ..registry import Artifact, ArtifactBase, Entries, Entry, Index, Release
from ..registry.index import with_artifact
from .archived_cards import LANGUAGE, Archive, Card, File, read
from .archived_names import BASES, entry_names, versions

HOME = "hf://AdapterHub"
"""Where the archive was moved: a repository for each card, a branch for each version."""

TASKS: Mapping[str, str] = {
    "argument": "Argument mining",
    "chunk": "Phrase chunking",
    "comsense": "Commonsense reasoning",
    "dialect": "Dialect detection",
    "formality_classify": "Formality of sentences",
    "lingaccept": "Linguistic acceptability",
    "lm": "Language modelling",
    "mlki": "Multilingual knowledge integration",
    "mt": "Machine translation",
    "ner": "Named entities",
    "nli": "Natural language inference",
    "pos": "Parts of speech",
    "qa": "Question answering",
    "rc": "Reading comprehension",
    "sentiment": "Sentiment",
    "sts": "Semantic textual similarity",
    "sum": "Summarization",
    "wikiann": "Named entities in Wikipedia",
}
"""What tasks are called in summaries."""

LANGUAGES: Mapping[str, str] = {"arabic": "ar", "chinese": "zh", "en": "en", "english": "en", "japanese": "ja"}
"""Languages of data sets, as the archive writes them, and their codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import made of an index.

    Attributes:
        index: the index with the archive in it.
        names: the entries of the archive, sorted.
        files: number of their versions.
        added: those that were not in the index before.
    """

    index: Index
    names: tuple[str, ...]
    files: int
    added: tuple[str, ...]


def import_archive(folder: Path, index: Index) -> Imported:
    """Return an index that holds all adapters of a copy of the archived AdapterHub.

    An entry of the same name and task gets the archived adapter as another artifact, behind its own.

    Raises:
        NotFoundError, FormatError: the folder holds no such archive.
        SchemaError: something in it has no place in the index; every fault is told.
        StateError: the index has something else under a name, or other bytes for a version.
    """
    return Import.of(folder).into(index)


@dataclass(frozen=True, slots=True)
class Import:
    """An archive on its way into an index.

    Attributes:
        archive: what was read of it.
        names: key of a card → name of its entry.
    """

    archive: Archive
    names: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Import:
        """Return the archive in a folder, its cards named; raises as import_archive does."""
        archive = read(folder)
        return cls(archive, entry_names(archive))

    @property
    def spellings(self) -> list[str]:
        """All names and aliases that its entries have."""
        aliases = (alias for card in self.archive.cards for alias in self._aliases(card))
        return sorted({*self.names.values(), *aliases})

    def into(self, index: Index) -> Imported:
        """Return the index with all its adapters; see import_archive."""
        entries = dict(index.adapters.raw)
        for card in self.archive.cards:
            name = self.names[card.key]
            entries[name] = self._entry(card, name, index.adapters.get(name)).to_json()
        result = replace(index, adapters=Entries(entries))
        result.check()
        return Imported(
            index=result,
            names=tuple(sorted(self.names.values())),
            files=sum(len(card.files) for card in self.archive.cards),
            added=tuple(sorted(name for name in self.names.values() if name not in index.adapters)),
        )

    def _entry(self, card: Card, name: str, old: Entry | None) -> Entry:
        """Return the entry of a card; what an old one says stays.

        Raises:
            StateError: the old one is for another task, or has other bytes for a version.
        """
        entry = old or Entry(versions={}, summary=self._summary(card), task=f"{card.task}/{card.subtask}")
        if entry.task != f"{card.task}/{card.subtask}":
            raise StateError(
                f"the index has an adapter {name} for {entry.task or 'no task'}, the archive one for "
                f"{card.task}/{card.subtask}",
                hint="rename the one in the index",
            )
        aliases = self._aliases(card)
        joined = any(a.base.id != BASES[card.model].id for r in entry.versions.values() for a in r.artifacts)
        made = self._artifacts(card, joined=joined)
        releases = dict(entry.versions)
        for version, artifact in made.items():
            release = releases.get(version, Release(artifacts=()))
            releases[version] = with_artifact(release, artifact, f"{name}@{version}")
        return replace(
            entry,
            versions=releases,
            language=entry.language or self._language(card),
            aliases=tuple(sorted({*entry.aliases, *aliases})),
        )

    def _artifacts(self, card: Card, *, joined: bool) -> dict[str, Artifact]:
        """Return version → artifact; joined: it stands beside others in an entry that is not of the archive alone."""
        row = by_model_type(card.model_type)
        base = ArtifactBase(id=BASES[card.model].id, architecture=row.name)
        method, requires = self._method(card, row), tuple(self._required(card, key) for key in card.requires)
        known = versions([file.version for file in card.files], card.default)

        def artifact(file: File) -> Artifact:
            return Artifact(
                base=base,
                method=method,
                format="adapters",
                url=file.url,
                digest=f"sha256:{file.sha256}",
                sources=(f"{HOME}/{card.stem}@{file.version}",),
                summary=self._summary(card) if joined else "",
                aliases=self._aliases(card) if joined else (),
                requires=requires,
            )

        return {known[file.version]: artifact(file) for file in card.files}

    def _aliases(self, card: Card) -> tuple[str, ...]:
        """Return the names that the archive's library knew, the later ones of which several cards may have."""
        identifiers = self.archive.identifiers.get(card.key, ())
        path = f"{card.task}/{card.subtask}"
        configured = [f"{path}/{identifier}@{card.organisation}" for identifier in identifiers]
        return (f"@{card.key}", f"{path}@{card.organisation}", *configured)

    def _required(self, card: Card, key: str) -> str:
        """Return the reference of an adapter that a card was trained on top of.

        Raises:
            SchemaError: the archive has none.
        """
        path, _, organisation = key.partition("@")
        task, _, subtask = path.partition("/")
        found = self.archive.defaults.get((task, subtask, card.model))
        owner = next((other for other in self.archive.cards if other.key == found), None)
        if owner is None or owner.organisation != organisation:
            raise SchemaError("the archive", [f"{card.key} requires {key}, which is not there for {card.model}"])
        known = versions([file.version for file in owner.files], owner.default)
        return f"{self.names[owner.key]}@{known[owner.default]}"

    def _method(self, card: Card, row: Architecture) -> str:
        """Return the method as a configuration string.

        Until adapter-transformers 2 a configuration could bring an invertible adapter that only languages used.

        Raises:
            SchemaError: the archive does not describe the configuration.
        """
        changes = {key: _whole(value) for key, value in card.config.items() if key != "using"}
        document = self.archive.architectures.get(card.config["using"], {})
        first = document.get("config_v1") if card.kind == LANGUAGE else None
        fields: JSON = first or document.get("config")
        if not isinstance(fields, dict):
            raise SchemaError("the archive", [f"{card.key}: no architecture is called {card.config['using']}"])
        return methods.describe(configs.decode({**fields, **changes}, Source(row=row)))

    def _summary(self, card: Card) -> str:
        """Return one line of facts."""
        titles = self.archive.titles
        texts = titles.get((card.task, card.subtask), "Wikipedia" if card.subtask == "wiki" else card.subtask)
        if card.kind == LANGUAGE:
            subject = f"{titles.get((card.task, ''), card.task)} ({texts}), a language adapter"
        else:
            subject = f"{TASKS.get(card.task, card.task)} ({texts})"
        named = len(card.files) > 1 and not card.default.isdecimal()
        chosen = f"; 1.0.0 is {card.default}" if named else ""
        return f"{subject}, {'with' if card.head else 'without'} a head{chosen}"

    def _language(self, card: Card) -> tuple[str, ...]:
        """Return the codes of the languages."""
        if card.kind == LANGUAGE:
            return (card.task.replace("_", "-"),)
        said = self.archive.languages.get((card.task, card.subtask), "").lower()
        return (LANGUAGES[said],) if said in LANGUAGES else ()


def _whole(value: JSON) -> JSON:
    """Return a number without a point where it has no need of one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
