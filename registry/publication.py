"""Publication: an adapter version that is to be published, and what that changes in an index; plain values.

Where the bytes go, and how an index is replaced so that nobody is overtaken, is a publisher's matter (publishers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..composition_file import NAME as COMPOSITION
from ..errors import StateError
from . import digest
from .index import Index
from .records import Artifact, ArtifactBase, ArtifactFile

if TYPE_CHECKING:
    from .signing import Seal

Card: TypeAlias = Callable[[bytes | None], bytes]
"""Takes the model card that a repository has, or None, and returns the one that it gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One artifact of a publication, its bytes on this machine.

    Attributes:
        base: the base model.
        method: configuration string of the method.
        format: name of the file format.
        files: path within the artifact → file here; {"": file} where it is a single file.
    """

    base: ArtifactBase
    method: str
    format: str
    files: Mapping[str, Path]

    @property
    def ending(self) -> str:
        """How the name of a single file ends."""
        return ".json" if self.format == COMPOSITION else ".safetensors"

    def record(self, url: str) -> Artifact:
        """Return what an index says of it.

        Raises:
            OSError: a file cannot be read.
        """
        listed = tuple(
            ArtifactFile(path=path, digest=digest.of_file(file), size=file.stat().st_size)
            for path, file in sorted(self.files.items())
        )
        single = listed[0] if "" in self.files else None
        return Artifact(
            base=self.base,
            method=self.method,
            format=self.format,
            url=url,
            digest=single.digest if single else None,
            size=single.size if single else None,
            files=() if single else listed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A version of an adapter, ready to be published.

    Attributes:
        name: name of the entry, with or without an owner: `me/sst2`.
        version: its version.
        published: date of RFC 3339.
        offers: one artifact for each format.
        card: makes the model card, where the place has one.
        summary, task, license, language: fill the entry where they are not empty.
    """

    name: str
    version: str
    published: str
    offers: tuple[Offer, ...]
    card: Card
    summary: str = ""
    task: str = ""
    license: str = ""
    language: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name}@{self.version}"

    @property
    def verb(self) -> str:
        """What is done with the version, for people."""
        return "Publish"

    def added_to(self, index: Index, artifacts: tuple[Artifact, ...]) -> Index:
        """Return an index with the version and these artifacts; the same index where it has all of them.

        Raises:
            StateError: it has the version with other bytes.
            SchemaError: the result would break the schema or contradict itself.
        """
        index.refuse_sharded("the registry")
        if all(artifact in self.known(index) for artifact in artifacts):
            return index
        for artifact in artifacts:
            index = index.add(
                self.name,
                self.version,
                artifact,
                published=self.published,
                summary=self.summary or None,
                task=self.task or None,
                license=self.license or None,
                language=self.language or None,
            )
        return index

    def known(self, index: Index) -> tuple[Artifact, ...]:
        """Return the artifacts that an index has for the version."""
        entry = index.adapters.get(self.name)
        release = entry.versions.get(self.version) if entry else None
        return release.artifacts if release else ()

    def refuse_clash(self, index: Index) -> None:
        """Raise where the entry's name belongs to another one, as its alias or with other capitals.

        Raises:
            StateError: it does.
        """
        others = [owner for owner in index.owners(self.name) if owner != self.name]
        if others:
            raise StateError(f"{self.name!r} is another name of {others[0]} in this registry", hint="choose another")


@dataclass(frozen=True, slots=True, kw_only=True)
class Yank(Publication):
    """A published version that is taken back, or taken back no longer: its files stay, only the index changes.

    Attributes:
        name: name of the entry, or an alias.
        yanked: False where it is taken back no longer.
        reason: why, for people.
    """

    published: str = ""
    offers: tuple[Offer, ...] = ()
    card: Card = field(default=lambda old: old or b"")
    yanked: bool = True
    reason: str = ""

    @property
    def verb(self) -> str:
        """What is done with the version, for people."""
        return "Yank" if self.yanked else "Restore"

    def added_to(self, index: Index, artifacts: tuple[Artifact, ...]) -> Index:
        """Return an index in which the version is yanked, or no longer so; the same index where it is so already.

        Raises:
            NotFoundError: there is no such adapter or version.
        """
        index.refuse_sharded("the registry")
        return index.yank(self.name, self.version, yanked=self.yanked, reason=self.reason)

    def known(self, index: Index) -> tuple[Artifact, ...]:
        """Return nothing: no artifact is published."""
        return ()

    def refuse_clash(self, index: Index) -> None:
        """Refuse nothing: no name is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What publishing changes, or would.

    Attributes:
        place: the registry or repository.
        artifacts: what its index says of the version.
        files: path there → size in bytes, for all that is written.
        removed: paths there that the new version does not have any more.
        card: the model card, or "" where the place has none.
        new: whether there was anything to do; False where the same bytes were there already.
        commit: the commit it became, where the place has commits.
    """

    place: str
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, int] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    card: str = ""
    new: bool = True
    commit: str = ""


class Publisher(Protocol):
    """A place that can be published to."""

    @property
    def place(self) -> str:
        """What it is called."""
        ...

    @property
    def spread(self) -> bool:
        """Whether one version is offered in several formats by itself."""
        ...

    def card(self) -> bytes | None:
        """Return the model card that it has, or None."""
        ...

    def publish(self, publication: Publication, *, dry_run: bool = False, seal: Seal | None = None) -> Outcome:
        """Publish a version, as a whole or not at all, and return what that changed; or only what it would change.

        seal: signs the index that the version is in, in the same step.

        Raises:
            UnsupportedError: nothing is signed there.
            StateError: the version is there with other bytes, or others keep the place busy.
            NotFoundError, AuthenticationError, OfflineError, AdapterHubError: the place cannot be written.
        """
        ...
