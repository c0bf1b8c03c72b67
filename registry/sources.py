"""Sources: an artifact from the first of the places that have it.

The bytes at an artifact's url, and at each URL among its sources, are held against the digest in the index. A source
`hf://user/repo@revision` holds the adapter as it was saved anew, in files of its own: the index has no digest of them,
so they are held against those that the Hub lists, and whoever asks is told. A lock pins the digests of such files too.
A place that cannot give the adapter is passed over; one that gives wrong bytes ends the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AdapterHubError, AuthenticationError, IntegrityError, NotFoundError, OfflineError, UnsupportedError
from . import remotes
from .receiving import Progress
from .records import Artifact, Content
from .reference import Reference
from .store import Store

if TYPE_CHECKING:
    from .registry import Registry

REPOSITORY = "hf://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An adapter that lies on this machine.

    Attributes:
        path: its file or folder.
        cached: whether all of it was here already.
        content: its files, where they are not those that the index has digests of.
    """

    path: Path
    cached: bool
    content: Content | None = None


def obtain(
    registry: Registry,
    artifact: Artifact,
    what: str,
    *,
    store: Store,
    offline: bool,
    progress: Progress | None,
    pinned: bool = False,
) -> Found:
    """Return an artifact on this machine: as it is here already, or from the first of its places that gives it.

    pinned: ask only places whose bytes are held against digests of the index or lock, as where that has to be signed.

    Raises:
        OfflineError: it is not here, and the network is switched off; says where it would come from.
        IntegrityError: the bytes here, or at a place, are not those that were promised.
        AdapterHubError: no place gives it; says why each does not.
    """
    if pinned:
        artifact = replace(artifact, sources=pinned_sources(artifact))
    copies = {copy.url: copy for copy in registry.copies(artifact)}
    attempt = _Attempt(registry, artifact, copies, what, store, progress)
    if not artifact.sources and not copies:
        return attempt.at(artifact.url, offline=offline)
    here = attempt.here()
    if here is not None:
        return here
    if offline:
        raise OfflineError(
            f"{what} is not on this machine, and the network is switched off; it would come from "
            + ", or else from ".join(attempt.places),
            hint="pull it once with the network; unset ADAPTERHUB_OFFLINE and HF_HUB_OFFLINE",
        )
    return attempt.first()


def pinned_sources(artifact: Artifact) -> tuple[str, ...]:
    """Return the further sources of an artifact whose bytes are held against the index's own digest."""
    return tuple(source for source in artifact.sources if not source.startswith(REPOSITORY))


def from_hub(
    reference: Reference,
    *,
    format: str | None,  # noqa: A002
    store: Store,
    offline: bool,
    progress: Progress | None,
) -> Found:
    """Return the adapter in a repository on the Hub, its files held against the digests that the Hub lists.

    Raises:
        NotFoundError, OfflineError, IntegrityError, AuthenticationError, AdapterHubError: it cannot be had.
    """
    from .hf_adapter import content_of

    content = content_of(reference, format=format, store=store, offline=offline)
    read = remotes.reader(content.url, store.root, offline=offline)
    path, cached = store.obtain(content, read, str(reference), progress=progress)
    return Found(path=path, cached=cached, content=content)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The search for one artifact."""

    registry: Registry
    artifact: Artifact
    copies: Mapping[str, Content]
    what: str
    store: Store
    progress: Progress | None

    @property
    def places(self) -> tuple[str, ...]:
        return (self.artifact.url, *self.artifact.sources, *self.copies)

    def at(self, place: str, *, offline: bool) -> Found:
        """Return the artifact from one place."""
        if place in self.copies:
            content = self.copies[place]
            read = remotes.reader(place, self.store.root, offline=offline)
            path, cached = self.store.obtain(content, read, self.what, progress=self.progress)
            return Found(path=path, cached=cached, content=content)
        if place.startswith(REPOSITORY) and place != self.artifact.url:
            reference = Reference.parse(place)
            return from_hub(reference, format=None, store=self.store, offline=offline, progress=self.progress)
        artifact = replace(self.artifact, url=place)
        path, cached = self.registry.fetch(
            artifact, self.what, store=self.store, offline=offline, progress=self.progress
        )
        return Found(path=path, cached=cached)

    def here(self) -> Found | None:
        """Return the artifact as it was fetched from a place before, or None."""
        for place in self.places:
            try:
                return self.at(place, offline=True)
            except (OfflineError, NotFoundError):
                continue
        return None

    def first(self) -> Found:
        """Return the artifact from the first place that gives it."""
        errors: list[AdapterHubError] = []
        for place in self.places:
            try:
                return self.at(place, offline=False)
            except IntegrityError:
                raise
            except AdapterHubError as error:
                errors.append(error)
        raise _none_gives_it(self.what, self.places, errors)


def _none_gives_it(what: str, places: Sequence[str], errors: Sequence[AdapterHubError]) -> AdapterHubError:
    """Return one error for all places: of the kind that may pass soonest, so that a program knows whether to wait."""
    said = zip(places, errors, strict=True)
    lines = [error.message if place in error.message else f"{place}: {error.message}" for place, error in said]
    kind = next((kind for kind in _KINDS if any(isinstance(error, kind) for error in errors)), AdapterHubError)
    return kind("\n  ".join([f"none of the {len(places)} places of {what} gives it:", *lines]), hint=errors[-1].hint)


_KINDS: tuple[type[AdapterHubError], ...] = (OfflineError, AuthenticationError, NotFoundError, UnsupportedError)
