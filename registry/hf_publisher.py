"""Publishing to the Hugging Face Hub: into a registry in a repository, or as the repository of one adapter.

Either way a version is one commit that holds its files and the new index.json, on top of the commit whose index was
read: the Hub takes it as a whole or not at all, and refuses it where somebody else has committed meanwhile. Then the
index is read again. A registry has the files of all its adapters below adapters/. The repository of one adapter has
those of its newest version at the root, where other libraries look for them, a model card, and a tag for each version;
in its index former versions point to their commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..composition_file import DOCUMENT
from ..composition_file import NAME as COMPOSITION
from ..errors import NotFoundError, StateError
from . import digest, folder_publisher, hf_client, hf_commits, paths, shards
from . import snapshots as signed
from .contention import Stale, between_others
from .copies import INDEX, MOST
from .hf_adapter import ADAPTERS, ADAPTERS_WEIGHTS, DOCUMENTS, NATIVE, PEFT_WEIGHTS
from .hf_client import SCHEME, Snapshot
from .index import Entries, Index
from .publication import Offer, Outcome, Publication
from .records import Artifact, Entry

if TYPE_CHECKING:
    from .signing import Seal

CARD = "README.md"
ROOT_URLS = (NATIVE, DOCUMENT, paths.HERE, ADAPTERS)
"""Urls of the newest version in the repository of one adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a publication is for a repository in one state."""

    adds: Mapping[str, Path | bytes]
    outcome: Outcome


class HubPublisher:
    """Publishes to a repository on the Hub."""

    def __init__(self, repo: str, *, create: bool = False, private: bool = False) -> None:
        """Publish to a repository, which is made where there is none; create says that it becomes a registry.

        Raises:
            NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be read.
        """
        self.repo = repo
        self.place = hf_client.what(repo)
        self._private = private
        self._sharded = False
        self._found = self._look()
        listed = None if self._sharded else self._found
        self.registry = self._sharded or (create if listed is None else _is_registry(listed, create=create))

    @property
    def spread(self) -> bool:
        """Whether one version is offered in several formats by itself."""
        return not self.registry

    def card(self) -> bytes | None:
        """Return the model card of the repository, or None; that of a registry with very many adapters is its own."""
        return None if self._found is None or self._sharded else _file(self._found, CARD)

    def shard(self, *, dry_run: bool = False) -> int | None:
        """Make the index of a registry a sharded one, in one commit; see sharding.shard_at.

        Raises:
            StateError: the repository is that of one adapter, or others keep it busy.
            NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be read or written.
        """
        if not self.registry:
            raise StateError(f"{self.place} is the repository of one adapter", hint="make a new one for a registry")
        if self._sharded:
            return None
        if dry_run:
            return len(dict(shards.all_of(_index(self._found)))) if self._found else 0
        found = self._found or self._made()
        documents = dict(shards.all_of(_index(found)))
        try:
            hf_commits.commit(found, {**documents, INDEX: shards.MARKER.dumps()}, (), "Keep the index in shards")
        except Stale as error:
            raise StateError(f"somebody has published to {self.place} meanwhile", hint="try again") from error
        return len(documents)

    def publish(self, publication: Publication, *, dry_run: bool = False, seal: Seal | None = None) -> Outcome:
        """Publish a version; see publication.Publisher."""
        if self._found is None and not publication.offers:
            raise NotFoundError(f"there is no {self.place}", hint=hf_client.CREDENTIALS)
        if dry_run:
            return self._change(publication, self._found or Snapshot(repo=self.repo, commit="", files=())).outcome
        return between_others(lambda: self._attempt(publication, seal), self.place)

    def _attempt(self, publication: Publication, seal: Seal | None) -> Outcome:
        """Publish on top of the state that was looked at, or of a new look.

        Raises:
            Stale: somebody else has committed meanwhile.
        """
        found = self._found or self._look() or self._made()
        # What was looked at serves once.
        self._found = None
        change = self._change(publication, found)
        if seal is not None and change.outcome.new:
            change = replace(change, adds={**change.adds, **self._signed(seal, found, change.adds)})
        return self._finish(publication, found, change)

    def _signed(self, seal: Seal, found: Snapshot, adds: Mapping[str, Path | bytes]) -> dict[str, bytes]:
        """Return the files that sign a commit which adds files; it is on top of one that is signed.

        Raises:
            StateError: that is not as it was signed.
        """
        documents = {path: data for path, data in adds.items() if isinstance(data, bytes) and path != CARD}
        sealing = seal.begin(partial(_unlisted, found), self.place)
        before = {path: _unlisted(found, path) for path in {INDEX, *documents}}
        sealing.unfinished({path: None if data is None else digest.of_bytes(data) for path, data in before.items()})
        kept = set(signed.places(documents).values())
        return {path: data for path, data in sealing.files(documents).items() if path not in kept}

    def _finish(self, publication: Publication, found: Snapshot, change: Change) -> Outcome:
        """Commit a change if there is one, see to the tag, and return the outcome."""
        outcome = change.outcome
        if outcome.new:
            name = hf_commits.commit(found, change.adds, outcome.removed, f"{publication.verb} {publication.title}")
            outcome = replace(outcome, commit=name)
        else:
            outcome = replace(outcome, commit=_commit_of(publication, self._index(found, publication.name), found))
        if not self.registry and publication.offers:
            hf_commits.tag(self.repo, f"v{publication.version}", outcome.commit)
        return outcome

    def _change(self, publication: Publication, found: Snapshot) -> Change:
        """Return what publishing to a snapshot changes.

        Raises:
            StateError: the version is there with other bytes, or the repository is that of another adapter.
        """
        index = self._index(found, publication.name)
        publication.refuse_clash(index)
        if self.registry or not publication.offers:
            return self._into_registry(publication, index)
        return self._as_adapter(publication, index, found)

    def _index(self, found: Snapshot, name: str) -> Index:
        """Return the index at a snapshot; of a sharded one what a name stands for."""
        return shards.partial([name], partial(_unlisted, found), self.place) if self._sharded else _index(found)

    def _into_registry(self, publication: Publication, index: Index) -> Change:
        urls = [folder_publisher.url_of(publication, offer) for offer in publication.offers]
        artifacts = tuple(offer.record(url) for offer, url in zip(publication.offers, urls, strict=True))
        changed = publication.added_to(index, artifacts)
        if changed is index:
            return Change(adds={}, outcome=Outcome(place=self.place, artifacts=artifacts, new=False))
        documents = shards.changes(index, changed) if self._sharded else {INDEX: changed.dumps()}
        adds = {**_files(publication.offers, urls), **documents}
        return Change(adds=adds, outcome=Outcome(place=self.place, artifacts=artifacts, files=_sizes(adds)))

    def _as_adapter(self, publication: Publication, index: Index, found: Snapshot) -> Change:
        urls = _root_urls(publication.offers)
        artifacts = tuple(offer.record(url) for offer, url in zip(publication.offers, urls, strict=True))
        if known := publication.known(index):
            if [_bytes(artifact) for artifact in known] != [_bytes(artifact) for artifact in artifacts]:
                raise StateError(
                    f"{self.place} has {publication.title} already, with other bytes or formats",
                    hint="published versions never change; publish a higher version",
                )
            return Change(adds={}, outcome=Outcome(place=self.place, artifacts=known, new=False))
        self._refuse_foreign(publication, index, found)
        changed = publication.added_to(_pinned(index, found), artifacts)
        adds = _files(publication.offers, urls)
        removed = tuple(sorted(_replaced(found, index) - set(adds)))
        card = publication.card(_file(found, CARD))
        adds = {**adds, INDEX: changed.dumps(), CARD: card}
        outcome = Outcome(
            place=self.place, artifacts=artifacts, files=_sizes(adds), removed=removed, card=card.decode("utf-8")
        )
        return Change(adds=adds, outcome=outcome)

    def _refuse_foreign(self, publication: Publication, index: Index, found: Snapshot) -> None:
        """Raise where the repository holds another adapter, or has the version's tag from elsewhere.

        Raises:
            StateError: it does.
        """
        others = [name for name in index.adapters if name != publication.name]
        if others:
            raise StateError(
                f"{self.place} is the repository of {others[0]}",
                hint="publish to another repository, or --as that name",
            )
        if found.commit and f"v{publication.version}" in hf_commits.tags(self.repo):
            raise StateError(
                f"{self.place} has a tag v{publication.version} already",
                hint="published versions never change; publish a higher version",
            )

    def _look(self) -> Snapshot | None:
        """Return the newest state of the repository, or None where there is none.

        The files of a sharded registry are not asked for: there may be very many.
        """
        try:
            head = Snapshot(repo=self.repo, commit=hf_client.commit_of(self.repo), files=())
            self._sharded = _is_sharded(head)
            return head if self._sharded else hf_client.snapshot(self.repo, head.commit)
        except NotFoundError:
            return None

    def _made(self) -> Snapshot:
        """Return the first state of a repository that is made now."""
        hf_commits.create(self.repo, private=self._private)
        return hf_client.snapshot(self.repo)


def _is_registry(found: Snapshot, *, create: bool) -> bool:
    """Return whether a repository is a registry and not that of one adapter, which has its files at the root.

    Raises:
        StateError: it is the repository of one adapter, and is to become a registry.
    """
    if found.find(INDEX) is None:
        return create
    entries = _index(found).adapters
    urls = {a.url for name in entries for release in entries[name].versions.values() for a in release.artifacts}
    if create and urls & set(ROOT_URLS):
        raise StateError(
            f"{hf_client.what(found.repo)} is the repository of one adapter", hint="make a new one for a registry"
        )
    return not urls & set(ROOT_URLS)


def _is_sharded(head: Snapshot) -> bool:
    """Return whether a repository is a registry that keeps its index in one file per name."""
    data = _unlisted(head, INDEX)
    return data is not None and Index.loads(data, f"{INDEX} of {hf_client.what(head.repo)}").sharded


def _index(found: Snapshot) -> Index:
    """Return the index at a snapshot, an empty one where there is none."""
    data = _file(found, INDEX)
    return Index() if data is None else Index.loads(data, f"{INDEX} of {hf_client.what(found.repo)}")


def _unlisted(head: Snapshot, path: str) -> bytes | None:
    """Return the bytes of a file at a commit whose files are not listed, or None where there is none."""
    try:
        return hf_client.small_file(head, path, most=MOST)
    except NotFoundError:
        return None


def _file(found: Snapshot, path: str) -> bytes | None:
    """Return the bytes of a file at a snapshot, or None where there is none."""
    return None if found.find(path) is None else hf_client.small_file(found, path, most=MOST)


def _root_urls(offers: tuple[Offer, ...]) -> list[str]:
    """Return where the artifacts lie in the repository of one adapter: folders at the root, those of PEFT before all.

    >>> _root_urls(())
    []
    """
    folders = [offer.format for offer in offers if "" not in offer.files]
    root = "peft" if "peft" in folders else folders[0] if folders else ""
    return [_single(o) if "" in o.files else paths.HERE if o.format == root else o.format for o in offers]


def _single(offer: Offer) -> str:
    return DOCUMENT if offer.format == COMPOSITION else NATIVE


def _files(offers: tuple[Offer, ...], urls: list[str]) -> dict[str, Path | bytes]:
    """Return path in the repository → file here."""
    return {
        "/".join(filter(None, ["" if url == paths.HERE else url, path])): file
        for offer, url in zip(offers, urls, strict=True)
        for path, file in offer.files.items()
    }


def _sizes(adds: Mapping[str, Path | bytes]) -> dict[str, int]:
    return {path: len(file) if isinstance(file, bytes) else file.stat().st_size for path, file in sorted(adds.items())}


def _bytes(artifact: Artifact) -> tuple[str, str, str]:
    """Return what an artifact is, wherever it lies."""
    return artifact.format, artifact.base.id, artifact.identity


def _replaced(found: Snapshot, index: Index) -> set[str]:
    """Return the files of the version that a snapshot holds, which another version must not be mixed with."""
    names = {NATIVE, *DOCUMENTS, *PEFT_WEIGHTS, *(name for pair in ADAPTERS_WEIGHTS for name in pair)}
    below = {f"{ADAPTERS}/{name}" for name in names}
    return {file.path for file in found.files} & (names | below | _listed(index))


def _listed(index: Index) -> set[str]:
    """Return the files at the root that an index names: those of a composition may be called like anybody's."""
    releases = [release for name in index.adapters for release in index.adapters[name].versions.values()]
    artifacts = [artifact for release in releases for artifact in release.artifacts]
    here = {file.path for artifact in artifacts if artifact.url == paths.HERE for file in artifact.files}
    return here | {artifact.url for artifact in artifacts if artifact.url == DOCUMENT}


def _pinned(index: Index, found: Snapshot) -> Index:
    """Return an index whose relative urls point to the commit of a snapshot, and so stay true after the next one."""

    def pin(artifact: Artifact) -> Artifact:
        if paths.is_url(artifact.url):
            return artifact
        home = f"{SCHEME}{found.repo}@{found.commit}"
        return replace(artifact, url=home if artifact.url == paths.HERE else f"{home}/{artifact.url}")

    def pinned(entry: Entry) -> Entry:
        versions = {
            text: replace(release, artifacts=tuple(map(pin, release.artifacts)))
            for text, release in entry.versions.items()
        }
        return replace(entry, versions=versions)

    raw = {name: pinned(index.adapters[name]).to_json() for name in index.adapters}
    return replace(index, adapters=Entries(raw))


def _commit_of(publication: Publication, index: Index, found: Snapshot) -> str:
    """Return the commit at which a version that is there already has its files."""
    known = publication.known(index)
    url = known[0].url if known else ""
    return hf_client.parse(url).revision or found.commit if url.startswith(SCHEME) else found.commit
