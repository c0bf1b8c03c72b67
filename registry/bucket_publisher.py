"""Publishing into a bucket, whichever store it is in.

    index.json, or the shard of the adapter's name              replaced only if it is the one that was read
    adapters/<name>/<version>/<base model>/<format>/<mark>/…    the files of an artifact; the mark is their digest

Files come first, to a place that no other bytes can have, so that two who publish one version do not write over each
other. Then the index is replaced on condition that it is still the one that was read, or that there is none; whether
the store heeds conditions is tried before anything is published. What a push left that died, or that came too late,
goes with the next push of that version: once it is published, no other bytes can become it any more.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ..errors import AuthenticationError, NotFoundError, StateError, UnsupportedError
from . import buckets, conditions, digest, shards, snapshots
from .bucket import NEW, Location
from .contention import Stale, between_others
from .copies import INDEX, MOST
from .folder_publisher import file_name, home_of, sizes
from .index import Index
from .publication import Offer, Outcome, Publication
from .records import Artifact
from .snapshots import SIGNED

if TYPE_CHECKING:
    from .signing import Seal, Sealing


class Noted(NamedTuple):
    """A document as it was read: what the store calls its state, and its digest, None where there is none."""

    tag: str
    digest: str | None


ABSENT = Noted(NEW, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An index in a bucket, or a part of one, and its documents as they were read."""

    index: Index
    noted: Mapping[str, Noted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What signs a change, and what the store calls the signature that it replaces."""

    sealing: Sealing
    tag: str


class BucketPublisher:
    """Publishes below a prefix of a bucket."""

    spread = False

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Publish below a prefix; create says that it becomes a registry where there is none.

        Raises:
            NotFoundError: there is no registry, and none is to be made.
            AuthenticationError, OfflineError, AdapterHubError: it cannot be read.
        """
        self._store, self.home = buckets.home_of(url)
        self.place = str(self.home)
        self._written: set[Location] = set()
        self._found = self._head = self._look()
        self._fresh = True
        if INDEX not in self._head.noted and not create:
            raise NotFoundError(f"there is no registry at {self.place}", hint="--create makes one")

    def card(self) -> bytes | None:
        """Return None: a bucket has no model card."""
        return None

    def publish(self, publication: Publication, *, dry_run: bool = False, seal: Seal | None = None) -> Outcome:
        """Publish a version; see publication.Publisher.

        Raises:
            UnsupportedError: the store does not heed conditions.
        """
        artifacts = tuple(_record(publication, offer) for offer in publication.offers)
        if dry_run:
            return self._outcome(publication, artifacts, self._part(self._head, publication.name).index)
        conditions.refuse_unheeded(self._store, self.home)
        try:
            outcome = between_others(lambda: self._attempt(publication, artifacts, seal), self.place)
        except StateError:
            self._sweep(publication)
            raise
        self._sweep(publication)
        return outcome

    def _attempt(self, publication: Publication, artifacts: tuple[Artifact, ...], seal: Seal | None) -> Outcome:
        """Bring files and index there, on top of the index that was read, or of a new look.

        Raises:
            Stale: somebody else has replaced it meanwhile.
        """
        # What was read serves once: after the wait for others there is something newer.
        self._head, self._fresh = (self._head if self._fresh else self._look()), False
        self._found = found = self._part(self._head, publication.name)
        signed = None if seal is None else self._signed(seal, found)
        outcome = self._outcome(publication, artifacts, found.index)
        if outcome.new:
            changed = publication.added_to(found.index, artifacts)
            known = publication.known(found.index)
            for offer, artifact in zip(publication.offers, artifacts, strict=True):
                if artifact not in known:
                    self._upload(offer, artifact)
            self._replace(found, changed, signed)
        return outcome

    def _signed(self, seal: Seal, found: Found) -> Signing:
        """Return what signs a change of what was found, which is as it was signed last.

        Raises:
            Stale: somebody has died between signature and index; the index is what was signed now.
            StateError: it has changed since it was signed.
        """
        noted: dict[str, Noted] = {}
        sealing = seal.begin(functools.partial(self._read, noted), self.place)
        there = {INDEX: self._head.noted.get(INDEX, ABSENT), **found.noted}
        if left := sealing.unfinished({path: one.digest for path, one in there.items()}):
            for path, data in left.items():
                self._store.put(self.home / path, data, match=there[path].tag)
            raise Stale(self.place)
        return Signing(sealing=sealing, tag=noted.get(SIGNED, ABSENT).tag)

    def _replace(self, found: Found, changed: Index, signed: Signing | None) -> None:
        """Replace the index, or the one shard that is another one now.

        Raises:
            Stale: somebody else has replaced it meanwhile.
            UnsupportedError: several shards are other ones, which cannot be replaced at once.
        """
        documents = shards.changes(found.index, changed) if self._head.index.layout else {INDEX: changed.dumps()}
        if len(documents) != 1:
            raise UnsupportedError(
                f"{self.place} would need {', '.join(documents)} to be replaced at once", hint="change a copy of it"
            )
        if signed is not None:
            for path, data in signed.sealing.files(documents).items():
                self._store.put(self.home / path, data, match=signed.tag if path == SIGNED else None)
        for path, data in documents.items():
            self._store.put(self.home / path, data, match=found.noted.get(path, ABSENT).tag)
        self._found = Found(index=changed, noted={})
        if signed is not None:
            with contextlib.suppress(AuthenticationError):
                self._store.remove(self.home / kept for kept in snapshots.places(documents).values())

    def _outcome(self, publication: Publication, artifacts: tuple[Artifact, ...], index: Index) -> Outcome:
        """Return what publishing to the index as it is changes."""
        publication.refuse_clash(index)
        new = publication.added_to(index, artifacts) is not index
        return Outcome(place=self.place, artifacts=artifacts, files=sizes(artifacts) if new else {}, new=new)

    def _upload(self, offer: Offer, artifact: Artifact) -> None:
        """Bring the files of an artifact there, those that are not there already by this push."""
        for path, file in offer.files.items():
            target = self.home / artifact.url / path
            if target not in self._written:
                self._store.put(target, file)
                self._written.add(target)

    def _look(self) -> Found:
        """Return what index.json is now, an empty index where there is none."""
        noted: dict[str, Noted] = {}
        data = self._read(noted, INDEX)
        index = Index() if data is None else Index.loads(data, f"{INDEX} of {self.place}")
        return Found(index=index, noted=noted)

    def _part(self, head: Found, name: str) -> Found:
        """Return the index; of a sharded one what a name stands for."""
        if not head.index.layout:
            return head
        noted = {shards.path_of(name): ABSENT} if shards.can_be(name) else {}
        index = shards.partial([name], functools.partial(self._read, noted), self.place)
        return Found(index=index, noted=noted)

    def _read(self, noted: dict[str, Noted], path: str) -> bytes | None:
        """Return a document, or None where there is none, and note how it was."""
        try:
            document = self._store.document(self.home / path, most=MOST)
        except NotFoundError:
            return None
        if document is None or not document.etag:
            raise UnsupportedError(f"{self.place} has no name for the state of {path}, and cannot be published to")
        noted[path] = Noted(document.etag, digest.of_bytes(document.data))
        return document.data

    def _sweep(self, publication: Publication) -> None:
        """Remove the files of other bytes for what is published now, which nothing can name any more."""
        published = publication.known(self._found.index)
        named = {str(self.home / artifact.url) for artifact in published}
        kinds = {(artifact.base.id, artifact.format) for artifact in published}
        for offer in publication.offers:
            # Who may publish need not be allowed to list and remove.
            with contextlib.suppress(AuthenticationError):
                if (offer.base.id, offer.format) in kinds:
                    there = self._store.listed(self.home / _folder(publication, offer))
                    self._store.remove(found for found in there if not _belongs(found, named))


def _folder(publication: Publication, offer: Offer) -> str:
    """Return the folder that artifacts of one version, base model and format lie in, whatever their bytes."""
    return f"{home_of(publication, offer)}/{offer.format}/"


def _record(publication: Publication, offer: Offer) -> Artifact:
    """Return what an index says of an artifact, which lies where no other bytes can."""
    found = offer.record("")
    folder = _folder(publication, offer) + digest.hexadecimal(found.identity)[:32]
    return replace(found, url=f"{folder}/{file_name(publication, offer)}" if "" in offer.files else folder)


def _belongs(location: Location, named: set[str]) -> bool:
    """Return whether an object is an artifact that is named, or in its folder."""
    return str(location) in named or any(str(location).startswith(f"{url}/") for url in named)
