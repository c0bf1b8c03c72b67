"""Index: which adapters there are, in which versions, for which base models, and where their bytes lie.

An index is a frozen value that mirrors `index.json` (schemas/index.schema.json). It keeps the JSON of its entries and
builds the records when they are asked for, so that one look-up among many thousands costs one entry.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from .. import schemas
from ..errors import NotFoundError, StateError, UnsupportedError
from . import atomic, matching
from . import verdicts as remembered
from .lookup import Lookup
from .records import Artifact, Entry, Release
from .version import Version

JSON: TypeAlias = Any

FORMAT = 1
SHARDED = "sharded"
SCHEMA = "urn:adapterhub:schema:index:1"


class Entries(Mapping[str, Entry]):
    """The entries of an index by name, each built when it is first asked for."""

    __slots__ = ("_built", "_raw")

    def __init__(self, raw: Mapping[str, JSON]) -> None:
        self._raw = raw
        self._built: dict[str, Entry] = {}

    @property
    def raw(self) -> Mapping[str, JSON]:
        """The JSON of all entries by name."""
        return self._raw

    def __getitem__(self, name: str) -> Entry:
        if name not in self._built:
            self._built[name] = Entry.from_json(self._raw[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entries):
            return NotImplemented
        if self._raw == other._raw:
            return True
        return self.keys() == other.keys() and all(self[name].to_json() == other[name].to_json() for name in self)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Lookup):
    """All that a registry offers.

    Laws: Index.loads(index.dumps()) == index; index.dumps() is the same for equal indexes, whatever their order.

    Attributes:
        adapters: name → entry.
        layout: SHARDED where the entries lie in one file per name, and none of them here; see shards.py.
        alias_of: of one of these files, the entries that have its name as an alias.
        format: version of this file format.
        schema: what `$schema` says, for editors.
    """

    adapters: Entries = field(default_factory=lambda: Entries({}))
    layout: str = ""
    alias_of: tuple[str, ...] = ()
    format: int = FORMAT
    schema: str = SCHEMA

    @classmethod
    def load(cls, path: Path | str, *, verdicts: Path | None = None) -> Index:
        """Return the index in a file; verdicts is a folder that remembers which large indexes are valid.

        Raises:
            NotFoundError: there is no such file.
            AdapterHubError: it cannot be read.
            FormatError: it is not JSON, or has a key twice.
            SchemaError: it breaks the schema; lists every fault.
        """
        data = atomic.read(
            Path(path), missing=NotFoundError(f"there is no index at {path}", hint="name a folder with an index.json")
        )
        return cls.loads(data, what=str(path), verdicts=verdicts)

    @classmethod
    def loads(cls, data: bytes, what: str = "index.json", *, verdicts: Path | None = None) -> Index:
        """Return the index that data write; `what` names it in errors, verdicts is as for load.

        Raises:
            FormatError: data are not JSON, or have a key twice.
            SchemaError: they break the schema; lists every fault.
        """
        with collector_off():
            document = schemas.loads(data, what)
            if not remembered.known(verdicts, data, "index"):
                schemas.check(document, "index", what=what)
                remembered.remember(verdicts, data, "index")
        return cls(
            adapters=Entries(document["adapters"]),
            layout=document.get("layout", ""),
            alias_of=tuple(document.get("alias_of", ())),
            schema=document.get("$schema", SCHEMA),
        )

    def dumps(self) -> bytes:
        """Return the index as bytes that diff well: names sorted, versions ascending, fields in a fixed order."""
        adapters = {name: self.adapters[name].to_json() for name in sorted(self.adapters)}
        return schemas.dumps({**self.marks(), "adapters": adapters}, sort_keys=False)

    def marks(self) -> dict[str, JSON]:
        """Return the fields around the entries."""
        layout = {"layout": self.layout} if self.layout else {}
        alias_of = {"alias_of": sorted(self.alias_of)} if self.alias_of else {}
        return {"$schema": self.schema, "format": self.format, **layout, **alias_of}

    @property
    def sharded(self) -> bool:
        """Whether the entries are not here but in one file per name; see shards.py."""
        return bool(self.layout)

    def refuse_sharded(self, what: str) -> None:
        """Raise where the entries are not here but in files of their own.

        Raises:
            UnsupportedError: they are.
        """
        if self.layout:
            raise UnsupportedError(
                f"{what} keeps its entries in one file per name, which this way of publishing cannot write",
                hint="publish to a copy of it in a folder, or on the Hub",
            )

    def write(self, path: Path | str) -> None:
        """Check the index and replace the file at path by it, in one step.

        Raises:
            SchemaError: the index is not consistent.
            AdapterHubError: the file cannot be written.
        """
        self.check(what=str(path))
        atomic.write(Path(path), self.dumps())

    def check(self, what: str = "index.json") -> None:
        """Raise where the index breaks its schema or contradicts itself.

        Raises:
            SchemaError: lists every fault with its path.
        """
        from . import consistency

        consistency.check(self, what)

    def add(
        self,
        name: str,
        version: str,
        artifact: Artifact,
        *,
        published: str,
        summary: str | None = None,
        task: str | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
        language: tuple[str, ...] | None = None,
        aliases: tuple[str, ...] | None = None,
    ) -> Index:
        """Return an index that holds the artifact too; what is None keeps its value.

        An artifact that the version has already is left as it is; one for another base model or format is appended.

        Raises:
            StateError: the version has another artifact for this base model and format; published ones never change.
            SchemaError: the result breaks the schema or contradicts itself.
        """
        old = self.adapters[name] if name in self.adapters else Entry(versions={})
        release = old.versions.get(str(Version.parse(version))) or Release(published=published, artifacts=())
        entry = replace(
            old,
            versions={**old.versions, version: with_artifact(release, artifact, f"{name}@{version}")},
            summary=old.summary if summary is None else summary,
            task=old.task if task is None else task,
            license=old.license if license is None else license,
            language=old.language if language is None else language,
            aliases=old.aliases if aliases is None else aliases,
        )
        index = replace(self, adapters=Entries({**self.adapters.raw, name: entry.to_json()}))
        index.check()
        return index

    def yank(self, name: str, version: str, *, yanked: bool = True, reason: str = "") -> Index:
        """Return an index in which the version is yanked for a reason, or no longer so; the same if it is so already.

        Raises:
            NotFoundError: there is no such adapter or version.
        """
        name = self.find(name)
        entry = self.adapters[name]
        if version not in entry.versions:
            raise NotFoundError(f"{name} has no version {version}", hint=f"it has {', '.join(entry.versions)}")
        release = replace(entry.versions[version], yanked=yanked, reason=reason if yanked else "")
        if release == entry.versions[version]:
            return self
        changed = replace(entry, versions={**entry.versions, version: release}).to_json()
        return replace(self, adapters=Entries({**self.adapters.raw, name: changed}))

    def __len__(self) -> int:
        return len(self.adapters)

    def owners(self, name: str) -> list[str]:
        """Return the entries that name stands for; see Lookup.owners."""
        if name in self.adapters:
            return [name]
        wanted = matching.folded(name)
        return sorted(
            owner
            for owner, raw in self.adapters.raw.items()
            if wanted in map(matching.folded, (owner, *raw.get("aliases", ())))
        )

    def of_organisations(self, name: str) -> list[str]:
        """Return the entries with an alias that is name and an organisation; see Lookup.of_organisations."""
        beginning = f"{matching.folded(name)}@"
        spellings = matching.spellings(self.adapters.raw)
        return sorted({owner for spelling, owner in spellings if spelling.startswith(beginning)})

    def near(self, name: str) -> list[str]:
        """Return the entries whose names come nearest; see Lookup.near."""
        from . import nearest

        return nearest.among(matching.folded(name), sorted(matching.spellings(self.adapters.raw)))

    def entry(self, name: str) -> Entry:
        """Return the entry called exactly so; see Lookup.entry."""
        return self.adapters[name]

    def names(self, beginning: str = "") -> Iterator[str]:
        """Yield the names of the entries that begin so, in their order."""
        return iter(sorted(name for name in self.adapters if name.startswith(beginning)))

    def search(
        self,
        words: Sequence[str] = (),
        *,
        task: str | None = None,
        base: str | None = None,
        method: str | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
    ) -> Iterator[str]:
        """Yield the names of the entries that all words and filters fit, best first; see Lookup.search."""
        return iter(matching.search(self.adapters.raw, words, task=task, base=base, method=method, license=license))


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Run without the garbage collector, which would go through millions of values of a large index for nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def with_artifact(release: Release, artifact: Artifact, what: str) -> Release:
    """Return release with the artifact: unchanged where it has it, appended where its base and format are new."""
    for present in release.artifacts:
        if present.to_json() == artifact.to_json():
            return release
        if (present.base.id, present.format) == (artifact.base.id, artifact.format):
            raise StateError(
                f"{what} has another {artifact.format} artifact for {artifact.base.id}, with digest {present.identity}",
                hint="published versions never change; publish a higher version, and yank this one if it is bad",
            )
    return replace(release, artifacts=(*release.artifacts, artifact))
