"""Conversion of an artifact that an index lists: fetched, converted, read back, and put into the folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import converters, schemas
from ..adapter import JSON
from ..architectures import by_name
from ..composition_file import NAME as COMPOSITION
from ..converters import listed as listed_files
from ..converters.identity import own_version
from ..errors import BaseMismatchError, StateError, UnsupportedError
from ..registry import Artifact, Entry, Offer, Pulled, Release, Store, atomic, digest, paths
from ..registry.folder_publisher import move
from ..registry.growing import Spot
from ..registry.listed import Listed, Shelf
from ..registry.pulling import NATIVE
from ..registry.tasks import Task
from .converting import convert
from .pushing import method_of

MADE_OF = "made_of"
"""Field of an artifact: the digest of what it was converted from."""

ENDINGS = {"gguf": "gguf"}
"""Of formats that are one file, where it is not `safetensors`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a task is about.

    Attributes:
        listed: what is converted.
        entry, release: what the index says of its adapter and version, without artifacts.
        ours: what the folder has in the format for this version and base model.
    """

    listed: Listed
    entry: Entry
    release: Release
    ours: Artifact | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came of a task.

    Attributes:
        artifact: what the index of the folder says of it.
        exact: whether it computes what its source does, but for rounding.
    """

    artifact: Artifact
    exact: bool = True

    def to_json(self) -> JSON:
        """Return it as JSON."""
        return {"artifact": self.artifact.to_json(), "exact": self.exact}

    @classmethod
    def from_json(cls, data: Any) -> Converted:
        """Return what JSON says; from_json(x.to_json()) == x."""
        return cls(artifact=Artifact.from_json(data["artifact"]), exact=data["exact"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert:
    """Converts one artifact: the function of the tasks.

    Attributes:
        shelf: where it is fetched from.
        to: name of the format.
        options: what the format wants to be told besides.
        spot: where the result goes; None keeps nothing.
    """

    shelf: Shelf
    to: str
    spot: Spot | None
    options: Mapping[str, JSON] = field(default_factory=dict)

    def mark(self, task: Task[Wanted]) -> str:
        """Return what stands for all that the outcome depends on."""
        source = task.value.listed.artifact
        return digest.mark(schemas.canonical([own_version(), self.to, dict(self.options), source.identity]))

    def __call__(self, wanted: Wanted) -> Converted:
        """Return what was made, read back and on the disk.

        Raises:
            UnsupportedError: the format has no word for what the adapter computes.
            StateError: the folder has another artifact of the version.
            AdapterHubError: it cannot be fetched, read or written.
        """
        if self.spot is not None:
            self.spot.check()
        listed = wanted.listed
        if listed.artifact.format == COMPOSITION:
            raise UnsupportedError("a composition names its adapters by their digests, and is not converted")
        if wanted.ours is not None:
            raise StateError(
                f"another {self.to} artifact is there, {wanted.ours.identity}, that was not made of this one",
                hint="published versions never change; convert to another folder",
            )
        with tempfile.TemporaryDirectory(prefix="adapterhub-") as cache, self._stage(listed) as stage:
            try:
                return self._brought(listed, self.shelf.obtain(listed, Store(cache)), stage)
            except OSError as error:
                raise atomic.unwritable(stage, error) from error

    def _brought(self, listed: Listed, pulled: Pulled, stage: Path) -> Converted:
        """Return what was made of an artifact on this machine, in its place in the folder."""
        if listed.artifact.format == self.to:
            made, exact = _copied(pulled.path, stage), True
        else:
            made, exact = self._converted(listed, pulled, stage)
        offer = self._offer(listed, made)
        home = f"{paths.home_of(listed.name, listed.version, offer.base.id)}/{self.to}"
        artifact = _recorded(listed, offer, f"{home}/{made.name}" if made.is_file() else home)
        if self.spot is not None:
            for file in offer.files.values():
                _flush(file)
            move(made, self.spot.folder / artifact.url, self.spot.folder)
        return Converted(artifact=artifact, exact=exact)

    def _converted(self, listed: Listed, pulled: Pulled, stage: Path) -> tuple[Path, bool]:
        """Return what was made of an artifact in another format, and whether exactly."""
        short, base = listed.name.rpartition("/")[2], listed.artifact.base
        target = stage / f"{short}-{listed.version}.{ENDINGS.get(self.to, 'safetensors')}"
        row = None if listed.artifact.format == NATIVE else by_name(base.architecture)
        if self.to == NATIVE:
            # The same bytes as `pull --format native` gives.
            of = pulled.digest or ""
            listed_files.write(
                pulled.path, target, name=short, version=listed.version, base=base.id, family=base.architecture, of=of
            )
            return target, True
        report = convert(
            pulled.path,
            target,
            to=self.to,
            name=short,
            offline=self.shelf.offline,
            architecture=row,
            options=self.options,
        )
        return target, report.exact

    def _offer(self, listed: Listed, made: Path) -> Offer:
        """Return what is offered; what was written is read back, as others will read it.

        Raises:
            BaseMismatchError: it is for another model family than the index says.
        """
        adapter = converters.read(made, format=self.to)
        family, said = adapter.manifest.base.architecture, listed.artifact.base.architecture
        if family != said:
            raise BaseMismatchError(
                f"it is for models of the family {family}, the index says {said}", hint="the index is wrong"
            )
        files = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
        offered = {"": made} if made.is_file() else files
        return Offer(base=listed.artifact.base, method=method_of(adapter), format=self.to, files=offered)

    @contextlib.contextmanager
    def _stage(self, listed: Listed) -> Iterator[Path]:
        """Yield a folder for what is not finished: where it goes, or if nothing is kept, anywhere."""
        if self.spot is None:
            with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
                yield Path(folder)
            return
        stage = self.spot.temporary(digest.mark(listed.title.encode()), "")
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir(parents=True)
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def made_of(ours: Artifact, source: Artifact) -> bool:
    """Return whether an artifact is the source, or was made of it."""
    return source.identity in (ours.identity, ours.extra.get(MADE_OF))


def _copied(path: Path, stage: Path) -> Path:
    """Return a copy of a file or folder; the store's own are read-only, and a copy is not."""
    target = stage / path.name
    if path.is_dir():
        shutil.copytree(path, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(path, target)
    return target


def _recorded(listed: Listed, offer: Offer, url: str) -> Artifact:
    """Return what an index says of an artifact that was made of another one."""
    source, made = listed.artifact, offer.record(url)
    of = {} if source.identity == made.identity else {MADE_OF: source.identity}
    return replace(
        made,
        summary=source.summary,
        aliases=source.aliases,
        requires=source.requires,
        extra={**source.extra, **of},
    )


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        atomic.flush_to_disk(opened.fileno())
