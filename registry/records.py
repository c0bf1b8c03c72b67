"""The records of index.json, from a single file up to an adapter with all its versions.

They mirror schemas/index.schema.json field by field (tests/test_schemas.py holds that). `from_json` expects JSON that
schemas.check has passed; from_json(record.to_json()) == record.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from .. import schemas
from . import digest
from .version import Version

JSON: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """One file of an artifact that is a folder.

    Attributes:
        path: relative path with `/` between its parts.
        digest: `sha256:<hex>` of its bytes.
        size: its bytes' number.
    """

    path: str
    digest: str
    size: int

    @classmethod
    def from_json(cls, data: JSON) -> ArtifactFile:
        """Return the record that checked JSON describes."""
        return cls(**data)

    def to_json(self) -> JSON:
        """Return the record as JSON."""
        return {"path": self.path, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactBase:
    """The base model that an artifact was made for.

    Attributes:
        id: Hugging Face Hub id, e.g. `google-bert/bert-base-uncased`.
        architecture: name of a row in architectures/.
        revision: commit or tag of that repository, or None where any will do.
    """

    id: str
    architecture: str
    revision: str | None = None

    @classmethod
    def from_json(cls, data: JSON) -> ArtifactBase:
        """Return the record that checked JSON describes."""
        return cls(**data)

    def to_json(self) -> JSON:
        """Return the record as JSON, without an unknown revision."""
        known = {"id": self.id, "architecture": self.architecture}
        return known if self.revision is None else {**known, "revision": self.revision}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that are kept together: a file, or a folder of files, and where they lie.

    Attributes:
        url: where the bytes lie: `bundled:<file>`, a path beside the index (`.` for its folder itself), or a URL.
        digest: digest of the single file; None for a folder.
        size: size of the single file in bytes; None for a folder, and where it is not known.
        files: the files of a folder; () for a single file.
    """

    url: str
    digest: str | None = None
    size: int | None = None
    files: tuple[ArtifactFile, ...] = ()

    @classmethod
    def from_json(cls, data: JSON) -> Self:
        """Return the record that checked JSON describes."""
        return cls(**{**data, "files": tuple(ArtifactFile.from_json(item) for item in data.get("files", ()))})

    def to_json(self) -> JSON:
        """Return the record as JSON, fields in the order in which index.json has them."""
        single = {"digest": self.digest, "size": self.size}
        files = [file.to_json() for file in sorted(self.files, key=lambda file: file.path)]
        known = {key: value for key, value in single.items() if value is not None}
        return {"url": self.url, **known, **({"files": files} if files else {})}

    @property
    def identity(self) -> str:
        """The digest that names the whole: that of the file, or of the canonical list of a folder's files."""
        if self.digest is not None:
            return self.digest
        listing = [file.to_json() for file in sorted(self.files, key=lambda file: file.path)]
        return digest.of_bytes(schemas.canonical(listing))

    @property
    def total_size(self) -> int | None:
        """The size of all files together in bytes, or None where it is not known."""
        return sum(file.size for file in self.files) if self.files else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Content):
    """The bytes of one adapter version for one base model in one format.

    Attributes:
        base: the base model.
        method: configuration string or name of the method, e.g. `double_seq_bn`.
        format: name of the file format, e.g. `native`.
        sources: where else to get it, in order; see sources.py.
        summary: one line for people, where it is not the adapter that the entry's summary and licence are of.
        aliases: which aliases of the entry mean this artifact alone.
        requires: references of the adapters that it was trained on top of.
        extra: fields that this version does not interpret, kept.
    """

    base: ArtifactBase
    method: str
    format: str
    sources: tuple[str, ...] = ()
    summary: str = ""
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: JSON) -> Self:
        """Return the record that checked JSON describes."""
        base = ArtifactBase.from_json(data["base"])
        files = tuple(ArtifactFile.from_json(item) for item in data.get("files", ()))
        lists = {key: tuple(data[key]) for key in ("sources", "aliases", "requires") if key in data}
        return cls(**{**data, **lists, "base": base, "files": files})

    def to_json(self) -> JSON:
        """Return the record as JSON, fields in the order in which index.json has them."""
        own = {"base": self.base.to_json(), "method": self.method, "format": self.format}
        texts = {"summary": self.summary} if self.summary else {}
        lists = {"aliases": sorted(self.aliases), "requires": list(self.requires)}
        known = {key: value for key, value in lists.items() if value}
        sources = {"sources": list(self.sources)} if self.sources else {}
        return {**own, **Content.to_json(self), **sources, **texts, **known, **_extra(self.extra)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One published version; its artifacts never change, but another base model's may join them.

    Attributes:
        published: date, or date and time in UTC, of RFC 3339; "" where nobody knows.
        artifacts: one for each base model and format; the first is the default.
        yanked: whether it is bad: still found by its exact version, never chosen.
        reason: why it is yanked, for people.
        extra: fields that this version does not interpret, kept.
    """

    artifacts: tuple[Artifact, ...]
    published: str = ""
    yanked: bool = False
    reason: str = ""
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: JSON) -> Release:
        """Return the record that checked JSON describes."""
        return cls(**{**data, "artifacts": tuple(Artifact.from_json(item) for item in data["artifacts"])})

    def to_json(self) -> JSON:
        """Return the record as JSON; `yanked` is always written, an empty reason is not."""
        artifacts = [artifact.to_json() for artifact in self.artifacts]
        known = {"published": self.published} if self.published else {}
        reason = {"reason": self.reason} if self.reason else {}
        return {**known, "yanked": self.yanked, **reason, "artifacts": artifacts, **_extra(self.extra)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One adapter: what it is for, and its versions.

    Attributes:
        versions: version text → release, in ascending order.
        summary: one line for people.
        task: `<task>/<subtask>`, e.g. `sentiment/sst-2`.
        license: SPDX expression.
        language: BCP 47 codes.
        aliases: other names, also those that the archived AdapterHub used.
        extra: fields that this version does not interpret, kept.
    """

    versions: Mapping[str, Release]
    summary: str = ""
    task: str = ""
    license: str = ""
    language: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def latest(self) -> str | None:
        """The highest release that is not yanked; else the highest such pre-release; else None."""
        usable = [Version.parse(text) for text, release in self.versions.items() if not release.yanked]
        stable = [version for version in usable if not version.prerelease]
        return str(max(stable or usable)) if usable else None

    @classmethod
    def from_json(cls, data: JSON) -> Entry:
        """Return the record that checked JSON describes."""
        versions = {text: Release.from_json(item) for text, item in ascending(data["versions"])}
        language, aliases = tuple(data.get("language", ())), tuple(data.get("aliases", ()))
        return cls(**{**data, "versions": versions, "language": language, "aliases": aliases})

    def to_json(self) -> JSON:
        """Return the record as JSON, fields in the order in which index.json has them, without empty ones."""
        texts = {"summary": self.summary, "task": self.task, "license": self.license}
        lists = {"language": sorted(self.language), "aliases": sorted(self.aliases)}
        known = {key: value for key, value in {**texts, **lists}.items() if value}
        versions = {text: release.to_json() for text, release in ascending(self.versions)}
        return {**known, "versions": versions, **_extra(self.extra)}


def ascending(versions: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the items in the order of their versions."""
    return (
        sorted(versions.items(), key=lambda item: _version_key(item[0]))
        if len(versions) > 1
        else list(versions.items())
    )


@functools.lru_cache(maxsize=4096)
def _version_key(text: str) -> Version:
    return Version.parse(text)


def _extra(extra: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the field `extra` with sorted keys, or nothing where it is empty."""
    return {"extra": {key: extra[key] for key in sorted(extra)}} if extra else {}
