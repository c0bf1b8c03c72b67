"""Publishing to a registry of OCI: a repository of one adapter, and a tag for each version.

Tags can be moved by whoever may push, and a registry compares nothing before it moves one. Versions of different
numbers never meet: each is a tag of its own. That two publishers of one version do not overwrite each other is agreed
among them. Each first announces its bytes under a tag of their own, `claim.<mark of the version>.<mark of the bytes>`;
then it looks whether others have announced other bytes, and then whether the version is there. Of two at least the
second to announce sees the other, and goes away; if both see each other, both do. Who sees nobody sets the tag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import schemas
from ..errors import NotFoundError, StateError, UnsupportedError
from . import digest, oci_client, oci_versions, oci_yanks
from .copies import INDEX
from .folder_publisher import file_name
from .index import Index
from .oci import OciRegistry
from .oci_client import JSON, MANIFEST
from .oci_versions import ADAPTER, CONFIG, TITLE
from .oci_yanks import YANK
from .publication import Offer, Outcome, Publication
from .records import Artifact

if TYPE_CHECKING:
    from .signing import Seal

WEIGHTS = "application/vnd.adapterhub.weights.v1"
CLAIM = "application/vnd.adapterhub.claim.v1"
EMPTY = "application/vnd.oci.empty.v1+json"
NOTHING = b"{}"
ACTIONS = "pull,push"
_TYPES = {".safetensors": WEIGHTS, ".bin": WEIGHTS, ".json": "application/json"}


class OciPublisher:
    """Publishes to a repository in a registry of OCI."""

    spread = False

    def __init__(self, url: str) -> None:
        """Publish to a repository, which the registry makes when something comes.

        Raises:
            AuthenticationError, OfflineError, AdapterHubError: it cannot be read.
        """
        self.repository = OciRegistry(url).repository
        self.place = str(self.repository)
        self._tags()

    def card(self) -> bytes | None:
        """Return None: a repository has no model card."""
        return None

    def publish(self, publication: Publication, *, dry_run: bool = False, seal: Seal | None = None) -> Outcome:
        """Publish a version; see publication.Publisher.

        Raises:
            UnsupportedError: it is to be signed.
        """
        if seal is not None:
            raise UnsupportedError(
                f"{self.place} cannot be signed: readers put its index together themselves", hint="push it unsigned"
            )
        if not publication.offers:
            return self._said(publication, dry_run=dry_run)
        artifacts = tuple(offer.record(_url_of(publication, offer)) for offer in publication.offers)
        files = _files(publication.offers, artifacts)
        sizes = {path: file.stat().st_size for path, file in files.items()}
        outcome = Outcome(place=self.place, artifacts=artifacts, files=sizes)
        if self._is_there(publication, artifacts):
            return replace(outcome, files={}, new=False)
        if dry_run:
            return outcome
        document = self._uploaded(publication, artifacts, files)
        with self._claimed(publication, artifacts):
            # Whoever published between the first look and the claim is seen by this one.
            if self._is_there(publication, artifacts):
                return replace(outcome, files={}, new=False)
            oci_client.put_manifest(self.repository, oci_versions.tag_of(publication.version), document)
        return replace(outcome, commit=digest.of_bytes(document))

    def _said(self, publication: Publication, *, dry_run: bool) -> Outcome:
        """Say something about a version that is there: that it is taken back, or no longer is.

        Raises:
            NotFoundError: there is no such adapter or version.
        """
        state = OciRegistry(self.place).fetch("")
        if state is None:
            raise AssertionError("no state is called by nothing")
        before = Index.loads(state.data, f"{INDEX} of {self.place}")
        changed = publication.added_to(before, ())
        outcome = Outcome(place=self.place, artifacts=(), new=changed is not before)
        if dry_run or not outcome.new:
            return outcome
        (entry,) = changed.adapters.values()
        release = entry.versions[publication.version]
        nothing = self._document(EMPTY, NOTHING)
        said = oci_yanks.words(yanked=release.yanked, reason=release.reason)
        document = _manifest(YANK, nothing, [nothing], said)
        oci_client.put_manifest(self.repository, oci_yanks.yank_tag(publication.version), document)
        return replace(outcome, commit=digest.of_bytes(document))

    def _uploaded(self, publication: Publication, artifacts: tuple[Artifact, ...], files: Mapping[str, Path]) -> bytes:
        """Bring all files there, and return the manifest that names them."""
        config = publication.added_to(Index(), artifacts).dumps()
        layers = [self._layer(path, file) for path, file in files.items()]
        return _manifest(ADAPTER, self._document(CONFIG, config), layers, _annotations(publication))

    @contextmanager
    def _claimed(self, publication: Publication, artifacts: tuple[Artifact, ...]) -> Iterator[None]:
        """Announce the bytes of a version until the block ends.

        Raises:
            StateError: others have announced other bytes.
        """
        beginning = f"claim.{digest.mark(publication.version.encode())}."
        said = "".join(f"{a.base.id} {a.format} {a.identity}\n" for a in artifacts)
        own = beginning + digest.mark(said.encode())
        nothing = self._document(EMPTY, NOTHING)
        claim = _manifest(CLAIM, nothing, [nothing], {"adapterhub.claim": own, "adapterhub.title": publication.title})
        oci_client.put_manifest(self.repository, own, claim)
        try:
            others = [tag for tag in self._tags() if tag.startswith(beginning) and tag != own]
            if others:
                raise StateError(
                    f"somebody else has begun to publish {publication.title} to {self.place} with other bytes",
                    hint=f"try again, publish a higher version, or, if they have died, remove the tag {others[0]}",
                )
            yield
        finally:
            # A registry that removes nothing keeps it; it is in nobody's way who publishes the same bytes.
            oci_client.forget(self.repository, digest.of_bytes(claim))

    def _is_there(self, publication: Publication, artifacts: tuple[Artifact, ...]) -> bool:
        """Return whether the version is there with these bytes.

        Raises:
            StateError: it is there with others, or the repository is that of another adapter.
        """
        versions = list(oci_versions.versions_of(self._tags()))
        there = next(filter(None, map(self._found, versions)), None)
        if there is not None and there.name != publication.name:
            raise StateError(
                f"{self.place} is the repository of {there.name}",
                hint="publish to another repository, or --as that name",
            )
        same = self._found(publication.version) if publication.version in versions else None
        if same is not None and publication.known(same.index) != artifacts:
            raise StateError(
                f"{self.place} has {publication.title} already, with other bytes or formats",
                hint="published versions never change; publish a higher version",
            )
        return same is not None

    def _found(self, version: str) -> oci_versions.Found | None:
        return oci_versions.found(self.repository, version, actions=ACTIONS)

    def _tags(self) -> list[str]:
        """Return the tags of the repository; none where there is no such repository yet."""
        try:
            return oci_client.tags(self.repository, actions=ACTIONS)
        except NotFoundError:
            return []

    def _layer(self, path: str, file: Path) -> JSON:
        """Bring a file there, and return what a manifest says of it."""
        known = digest.of_file(file)
        oci_client.upload(self.repository, file, known)
        kind = _TYPES.get(Path(path).suffix, "application/octet-stream")
        return {
            "mediaType": kind,
            "digest": known,
            "size": file.stat().st_size,
            "annotations": {TITLE: path},
        }

    def _document(self, kind: str, data: bytes) -> JSON:
        """Bring a document there, and return what a manifest says of it."""
        known = digest.of_bytes(data)
        oci_client.upload(self.repository, data, known)
        return {"mediaType": kind, "digest": known, "size": len(data)}


def _url_of(publication: Publication, offer: Offer) -> str:
    """Return the path of an artifact among the layers: a file, or a folder called like the format."""
    return file_name(publication, offer) if "" in offer.files else offer.format


def _files(offers: tuple[Offer, ...], artifacts: tuple[Artifact, ...]) -> dict[str, Path]:
    """Return path among the layers → file here."""
    return {
        "/".join(filter(None, [artifact.url, path])): file
        for offer, artifact in zip(offers, artifacts, strict=True)
        for path, file in sorted(offer.files.items())
    }


def _manifest(kind: str, config: JSON, layers: list[JSON], annotations: Mapping[str, str]) -> bytes:
    """Return the bytes of a manifest."""
    return schemas.canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": config,
            "layers": layers,
            "annotations": dict(annotations),
        }
    )


def _annotations(publication: Publication) -> dict[str, str]:
    """Return what people and the pages of registries read; all of it stands in the index too."""
    said = {
        "title": publication.name,
        "version": publication.version,
        "description": publication.summary,
        "licenses": publication.license,
    }
    return {f"org.opencontainers.image.{key}": text for key, text in said.items() if text}
