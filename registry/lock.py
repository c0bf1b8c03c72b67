"""Lock: the adapters and base models of a project, pinned by digest, in `adapterhub.lock`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from .. import schemas
from ..errors import FormatError, NotFoundError
from . import atomic
from .records import Artifact, ArtifactFile, Content

JSON: TypeAlias = Any

FILE = "adapterhub.lock"
FORMAT = 1
SCHEMA = "urn:adapterhub:schema:lock:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedAdapter:
    """One adapter of a project: an artifact of a registry, or content that no index names.

    Attributes:
        reference: what is asked for.
        name: name of the entry; "" outside registries.
        version: the version that the reference meant; "" outside registries.
        artifact: its bytes; urls of registries on the network are complete.
        content: its bytes, outside registries.
        copies: other bytes of the adapter in an artifact, which are taken where it cannot be had.
        registry: where the registry lies: a URL, or a path from the folder of the lock; "" for the one in the package.
        parts: of a composition, name in it → adapter.
    """

    reference: str
    name: str = ""
    version: str = ""
    artifact: Artifact | None = None
    content: Content | None = None
    copies: tuple[Content, ...] = ()
    registry: str = ""
    parts: Mapping[str, LockedAdapter] = field(default_factory=dict)

    @property
    def bytes(self) -> Content:
        """What is pinned."""
        pinned = self.artifact or self.content
        if pinned is None:
            raise FormatError(f"nothing is pinned for {self.reference}")
        return pinned

    @property
    def identities(self) -> tuple[str, ...]:
        """The digests of all that is pinned for it."""
        return tuple(one.identity for one in (self.bytes, *self.copies))

    @property
    def title(self) -> str:
        """Name and version, or the reference, for people."""
        return f"{self.name}@{self.version}" if self.name else self.reference

    @classmethod
    def from_json(cls, data: JSON) -> LockedAdapter:
        """Return the record that checked JSON describes."""
        records: dict[str, type[Content]] = {"artifact": Artifact, "content": Content}
        built = {key: record.from_json(data[key]) for key, record in records.items() if key in data}
        parts = {name: cls.from_json(item) for name, item in data.get("parts", {}).items()}
        copies = tuple(Content.from_json(item) for item in data.get("copies", ()))
        return cls(**{**data, **built, "copies": copies, "parts": parts})

    def to_json(self) -> JSON:
        """Return the record as JSON, without what is empty."""
        texts = {"name": self.name, "version": self.version, "registry": self.registry}
        records = {"artifact": self.artifact, "content": self.content}
        return {
            "reference": self.reference,
            **{key: text for key, text in texts.items() if text},
            **{key: record.to_json() for key, record in records.items() if record is not None},
            **({"copies": [copy.to_json() for copy in self.copies]} if self.copies else {}),
            **({"parts": {name: part.to_json() for name, part in self.parts.items()}} if self.parts else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedBase:
    """One base model of a project.

    Attributes:
        architecture: name of a row in architectures/.
        revision: commit of its repository, or None where it is not known.
        files: its files, or () where they are not known.
    """

    architecture: str
    revision: str | None = None
    files: tuple[ArtifactFile, ...] = ()

    @classmethod
    def from_json(cls, data: JSON) -> LockedBase:
        """Return the record that checked JSON describes."""
        return cls(**{**data, "files": tuple(ArtifactFile.from_json(item) for item in data.get("files", ()))})

    def to_json(self) -> JSON:
        """Return the record as JSON, without what is not known."""
        files = [file.to_json() for file in sorted(self.files, key=lambda file: file.path)]
        known = {"revision": self.revision, "files": files}
        return {"architecture": self.architecture, **{key: value for key, value in known.items() if value}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """All pins of a project. Law: Lock.loads(lock.dumps()) == lock.

    Attributes:
        adapters: name within the project → pinned adapter.
        bases: Hugging Face Hub id → pinned base model.
        format: version of this file format.
    """

    adapters: Mapping[str, LockedAdapter] = field(default_factory=dict)
    bases: Mapping[str, LockedBase] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def load(cls, path: Path | str) -> Lock:
        """Return the lock in a file.

        Raises:
            NotFoundError: there is no such file.
            AdapterHubError: it cannot be read.
            FormatError: it is not JSON, or has a key twice.
            SchemaError: it breaks the schema; lists every fault.
        """
        data = atomic.read(
            Path(path), missing=NotFoundError(f"there is no lock {path}", hint="`adapterhub lock` writes one")
        )
        return cls.loads(data, what=str(path))

    @classmethod
    def loads(cls, data: bytes, what: str = FILE) -> Lock:
        """Return the lock that data write; raises as load does."""
        document = schemas.loads(data, what)
        schemas.check(document, "lock", what=what)
        adapters = {name: LockedAdapter.from_json(item) for name, item in document.get("adapters", {}).items()}
        bases = {name: LockedBase.from_json(item) for name, item in document.get("bases", {}).items()}
        return cls(adapters=adapters, bases=bases, format=document["format"])

    def pins(self) -> Iterator[LockedAdapter]:
        """Yield every pinned adapter, each composition before its adapters."""
        for adapter in self.adapters.values():
            yield adapter
            yield from adapter.parts.values()

    def dumps(self) -> bytes:
        """Return the lock as bytes, keys sorted."""
        adapters = {name: item.to_json() for name, item in self.adapters.items()}
        bases = {name: item.to_json() for name, item in self.bases.items()}
        return schemas.dumps({"$schema": SCHEMA, "format": self.format, "adapters": adapters, "bases": bases})

    def write(self, path: Path | str) -> None:
        """Check the lock and replace the file at path by it, in one step.

        Raises:
            SchemaError: a record holds what the schema does not allow.
            AdapterHubError: the file cannot be written.
        """
        data = self.dumps()
        schemas.check(schemas.loads(data, str(path)), "lock", what=str(path))
        atomic.write(Path(path), data)
