"""Compositions as what is published: their record in an index, and their way to a registry or onto the Hub."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ..arrangement import Arrangement
from ..composition_file import DOCUMENT, NAME
from ..errors import UsageError
from ..registry import (
    Artifact,
    ArtifactBase,
    ArtifactFile,
    Index,
    Offer,
    Outcome,
    Publication,
    Publisher,
    Settings,
    digest,
    publisher_at,
)
from ..registry.signing import Seal
from . import card
from .base_models import is_folder

LONGEST = 2000
"""So many characters of a composition stand in an index."""


def publisher_of(
    place: str | Path, *, create: bool = False, private: bool = False, offline: bool | None = None
) -> Publisher:
    """Return what publishes compositions to a place; a folder that is there becomes a registry without being asked.

    Raises:
        UsageError, UnsupportedError, NotFoundError, OfflineError, AuthenticationError: as registry.publisher_at.
    """
    settings = Settings.load(offline=offline)
    folder = Path(settings.registries.get(str(place), str(place))).expanduser()
    return publisher_at(str(place), settings=settings, create=create or folder.is_dir(), private=private)


def publish(
    whole: Arrangement,
    beside: Mapping[str, bytes],
    publisher: Publisher,
    *,
    name: str = "",
    pipeline: str = "",
    dry_run: bool = False,
    seal: Seal | None = None,
) -> Outcome:
    """Publish a composition in one step, and return what that changed.

    Args:
        whole: the composition, with its pins.
        beside: file name → adapter that lies beside it.
        publisher: the place.
        name: name of the entry, with an owner perhaps; "" is its own.
        pipeline: the Hub's name of its task, or "".
        dry_run: check all, and write nothing.
        seal: what signs the index in the same step.

    Raises:
        UsageError: it has no version, does not say its base model, or has no licence where the place has a card.
        StateError: the version is published already, with other bytes.
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: the place cannot be written.
    """
    _refuse_unversioned(whole)
    whole = _licensed(whole, publisher)
    with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
        offer = _offer(whole, beside, Path(folder))
        subject = card.Subject(
            manifest=whole.manifest,
            method=offer.method,
            formats=[NAME],
            repo=publisher.place.removeprefix("hf://"),
            pipeline=pipeline,
            composition=whole,
        )
        publication = Publication(
            name=name or whole.name,
            version=whole.version,
            published=_today(),
            offers=(offer,),
            card=partial(card.merged, subject=subject),
            summary=whole.summary,
            task=whole.task,
            license=whole.license,
            language=whole.language,
        )
        return publisher.publish(publication, dry_run=dry_run, seal=seal)


def entered(index: Index, whole: Arrangement, artifact: Artifact, published: str = "") -> Index:
    """Return an index with a composition in it.

    Raises:
        UsageError: it has no version.
        StateError: the version has another artifact.
    """
    _refuse_unversioned(whole)
    return index.add(
        whole.name,
        whole.version,
        artifact,
        published=published or _today(),
        summary=whole.summary or None,
        task=whole.task or None,
        license=whole.license or None,
        language=whole.language or None,
    )


def artifact_of(whole: Arrangement, beside: Mapping[str, bytes], url: str) -> Artifact:
    """Return the record of a composition: of one file, or of a folder where adapters lie beside it.

    Raises:
        UsageError: it does not say its base model.
    """
    data = whole.dumps()
    one = Artifact(
        base=_base_of(whole),
        method=_method_of(whole),
        format=NAME,
        url=url,
        digest=digest.of_bytes(data),
        size=len(data),
    )
    return dataclasses.replace(one, digest=None, size=None, files=_files(data, beside)) if beside else one


def identity(whole: Arrangement, beside: Mapping[str, bytes]) -> str:
    """Return the digest of a composition file, or that of the list of its folder's files."""
    data = whole.dumps()
    if not beside:
        return digest.of_bytes(data)
    nowhere = ArtifactBase(id="", architecture="")
    return Artifact(base=nowhere, method="", format=NAME, url="", files=_files(data, beside)).identity


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _refuse_unversioned(whole: Arrangement) -> None:
    if not whole.version:
        raise UsageError(f"the composition {whole.name!r} has no version", hint="name it NAME@VERSION, such as 1.0.0")


def _licensed(whole: Arrangement, publisher: Publisher) -> Arrangement:
    """Return a composition with a licence, that of the card which is there, where the place has a card.

    Raises:
        UsageError: nobody names one.
    """
    if whole.license or not publisher.spread:
        return whole
    found = card.license_of(publisher.card())
    if not found:
        raise UsageError(
            f"the composition {whole.name!r} has no licence, and {publisher.place} gets a model card that names one",
            hint="give --license apache-2.0",
        )
    return dataclasses.replace(whole, license=found)


def _offer(whole: Arrangement, beside: Mapping[str, bytes], folder: Path) -> Offer:
    """Return a composition as an artifact whose files lie below a folder."""
    from ..converters import composed

    path = composed.write(whole, beside, folder / ("whole" if beside else DOCUMENT))
    files = {file.name: file for file in sorted(path.iterdir())} if beside else {"": path}
    return Offer(base=_base_of(whole), method=_method_of(whole), format=NAME, files=files)


def _base_of(whole: Arrangement) -> ArtifactBase:
    base = whole.base
    if base is None or not base.id or is_folder(base.id):
        raise UsageError(
            f"the composition {whole.name!r} does not say which base model it is for",
            hint="give --base as a Hub id (with push: --base-id), or adapters that name theirs",
        )
    return ArtifactBase(id=base.id, architecture=base.architecture, revision=base.revision)


def _method_of(whole: Arrangement) -> str:
    """Return the text of a composition, cut where it is too long for an index."""
    method = str(whole.composition)
    return method if len(method) <= LONGEST else f"{method[: LONGEST - 1]}…"


def _files(data: bytes, beside: Mapping[str, bytes]) -> tuple[ArtifactFile, ...]:
    return tuple(
        ArtifactFile(path=name, digest=digest.of_bytes(content), size=len(content))
        for name, content in sorted({**beside, DOCUMENT: data}.items())
    )
