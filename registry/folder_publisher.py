"""Publishing into a folder with an index.json, on a disk that several processes may share.

    adapters/<name>/<version>/<base model>/…    the files of an artifact
    .push/<mark>/                               what is being copied; a lock beside it tells whether its process lives

The files are copied first, beside the registry's own. Then, under the lock of the index, they are moved to their place
with one rename each, and the index is replaced with another; of a sharded one only the adapter's shard (editing.py). A
process that dies before the last step leaves files that no index names: those in .push/ go with the next push, those in
their place with the next push of the same version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NotFoundError, StateError
from . import atomic, editing, paths
from .index import Index
from .publication import Offer, Outcome, Publication
from .records import Artifact

if TYPE_CHECKING:
    from .signing import Seal

INDEX = "index.json"


class FolderPublisher:
    """Publishes into a folder."""

    spread = False

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Publish into a folder; create says that it is made where there is no registry.

        Raises:
            NotFoundError: there is no registry, and none is to be made.
        """
        self.folder = folder.resolve()
        self.place = str(folder)
        self._create = create
        if not create and not (folder / INDEX).is_file():
            raise NotFoundError(f"there is no registry at {folder}", hint="--create makes one")

    def card(self) -> bytes | None:
        """Return None: a folder has no model card."""
        return None

    def publish(self, publication: Publication, *, dry_run: bool = False, seal: Seal | None = None) -> Outcome:
        """Publish a version; see publication.Publisher."""
        if dry_run:
            index = editing.view(self.folder / INDEX, [publication.name], create=self._create)
            return self._outcome(publication, records(publication, publication.offers), index)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._staged(publication.offers) as (stage, offers):
                artifacts = records(publication, offers)
                return self._place(publication, artifacts, stage, seal)
        except OSError as error:
            raise atomic.unwritable(self.folder, error) from error

    def _place(
        self, publication: Publication, artifacts: tuple[Artifact, ...], stage: Path, seal: Seal | None
    ) -> Outcome:
        """Move what was copied to its place and replace the index, or the shard, under its lock."""
        outcomes: list[Outcome] = []

        def change(index: Index) -> Index:
            outcomes.append(self._outcome(publication, artifacts, index))
            changed = publication.added_to(index, artifacts)
            if changed is index:
                return index
            for number, artifact in enumerate(artifacts):
                if artifact not in publication.known(index):
                    move(stage / str(number), self.folder / artifact.url, self.folder)
            return changed

        editing.edit(self.folder / INDEX, [publication.name], change, create=self._create, seal=seal)
        return outcomes[-1]

    def _outcome(self, publication: Publication, artifacts: tuple[Artifact, ...], index: Index) -> Outcome:
        """Return what publishing to the index as it is changes."""
        publication.refuse_clash(index)
        new = publication.added_to(index, artifacts) is not index
        return Outcome(place=self.place, artifacts=artifacts, files=sizes(artifacts) if new else {}, new=new)

    @contextlib.contextmanager
    def _staged(self, offers: tuple[Offer, ...]) -> Iterator[tuple[Path, tuple[Offer, ...]]]:
        """Yield a folder of the registry, and the offers with their files copied to it, which are on the disk."""
        from filelock import FileLock

        home = self.folder / ".push"
        home.mkdir(exist_ok=True)
        _sweep(home)
        stage = home / os.urandom(8).hex()
        lock = FileLock(f"{stage}.lock")
        with lock:
            try:
                yield stage, tuple(_copied(offer, stage / str(number)) for number, offer in enumerate(offers))
            finally:
                shutil.rmtree(stage, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)


def url_of(publication: Publication, offer: Offer) -> str:
    """Return the path of an artifact in a registry: a file, or a folder called like the format."""
    home = home_of(publication, offer)
    return f"{home}/{file_name(publication, offer)}" if "" in offer.files else f"{home}/{offer.format}"


def home_of(publication: Publication, offer: Offer) -> str:
    """Return the folder of all artifacts of a version for one base model."""
    return paths.home_of(publication.name, publication.version, offer.base.id)


def file_name(publication: Publication, offer: Offer) -> str:
    """Return what the single file of a version is called."""
    return f"{publication.name.rpartition('/')[2]}-{publication.version}{offer.ending}"


def records(publication: Publication, offers: tuple[Offer, ...]) -> tuple[Artifact, ...]:
    """Return what an index says of the artifacts of a publication."""
    return tuple(offer.record(url_of(publication, offer)) for offer in offers)


def sizes(artifacts: tuple[Artifact, ...]) -> dict[str, int]:
    """Return path → size for the files of artifacts."""
    single = {artifact.url: artifact.size for artifact in artifacts if artifact.size is not None}
    return single | {f"{artifact.url}/{file.path}": file.size for artifact in artifacts for file in artifact.files}


def _copied(offer: Offer, place: Path) -> Offer:
    """Return an offer with copies of its files at a place: a file there, or files below it."""
    copies = {path: place / path if path else place for path in offer.files}
    for path, source in offer.files.items():
        copies[path].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copies[path])
        with copies[path].open("rb+") as file:
            atomic.flush_to_disk(file.fileno())
    return replace(offer, files=copies)


def move(source: Path, target: Path, home: Path) -> None:
    """Move a file or folder to its place, where only what a dead process left can lie.

    Raises:
        StateError: a link leads out of the registry.
    """
    if not target.resolve().is_relative_to(home.resolve()):
        raise StateError(f"{target} leads out of the registry", hint="remove the link")
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    for folder in (target.parent, *target.parent.relative_to(home).parents):
        atomic.flush_folder(home / folder)


def _sweep(home: Path) -> None:
    """Remove what processes left that have died: nobody holds its lock."""
    from filelock import FileLock, Timeout

    for path in home.glob("*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
