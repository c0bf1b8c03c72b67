"""Push: an adapter or composition, from here or from another registry, into a registry or onto the Hugging Face Hub.

source → adapter → complete manifest → files of every format, each read back → publication. All of that is done in a
folder of its own before anything is written elsewhere; what is published is published in one step, or not at all.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import converters, registry
from ..adapter import Adapter, Manifest
from ..composition_file import document_of
from ..converters import native_head, setup_folder
from ..converters.identity import hub_id, manifest_name
from ..errors import NotFoundError, UnsupportedError, UsageError
from ..registry import (
    ArtifactBase,
    Offer,
    Outcome,
    Publication,
    Publisher,
    Pulled,
    Reference,
    Settings,
    Version,
    trusted_keys,
)
from ..registry.signing import Seal
from . import card
from .base_models import BaseModel, is_folder, load_base, local_folder

if TYPE_CHECKING:
    from ..architectures import Architecture

NATIVE = "native"
FORMATS = (NATIVE, "peft", "adapters")
"""What can be published, in the order in which an index lists them."""

CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for besides source and place; None is as the adapter itself or the place says.

    Attributes:
        name: `name`, `name@1.0.0` or `owner/name@1.0.0`.
        formats: which formats; None is native, and on the Hub every other one that can say it exactly.
        base: folder or Hub id of the base model to load, for fingerprint and probe.
        base_id: Hub id of the base model, where the adapter does not name it.
        license: SPDX expression.
        architecture: describes a base model of a family that is not known.
    """

    name: str | None = None
    formats: Sequence[str] | None = None
    base: str | None = None
    base_id: str | None = None
    license: str | None = None
    architecture: Architecture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What came of a push.

    Attributes:
        name, version: under which it is published.
        formats: in which formats.
        left_out: format → why the adapter is not published in it.
        remarks: what could not be filled in, and how it could.
        outcome: what was changed at the place, or would be.
    """

    name: str
    version: str
    formats: tuple[str, ...]
    outcome: Outcome
    left_out: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def push(
    source: str | Path,
    to: str | Path,
    *,
    wanted: Wanted | None = None,
    create: bool = False,
    private: bool = False,
    sign: Path | None = None,
    dry_run: bool = False,
    offline: bool | None = None,
) -> Pushed:
    """Publish an adapter or a composition, and return what that changed.

    Args:
        source: a file or folder of any format, a composition, or the reference of what is published elsewhere.
        to: a folder, a bucket (s3://, az://, gs://), oci://host/name, hf://user/repo or the name of a registry in
            the settings; a repository on the Hub is a registry, if it is one already, or else that of this adapter.
        wanted: under which name, in which formats, and what the adapter does not say itself.
        create: make a registry where there is none.
        private: whether a repository that is made is private.
        sign: a private key, which signs the index in the same step.
        dry_run: write nothing.
        offline: refuse to use the network; None is as the settings say.

    Raises:
        UsageError: name, version, base model or licence is missing or cannot be.
        StateError: the version is there already, with other bytes.
        FormatError, SchemaError: the adapter is not what it should be.
        BaseMismatchError: it does not fit the base model.
        UnsupportedError: a format that was asked for has no word for it, or the place can only be read.
        NotFoundError, AuthenticationError, OfflineError: source or place cannot be reached.
    """
    wanted, settings = wanted or Wanted(), Settings.load(offline=offline)
    pulled, seal = _pulled(source, settings), None if sign is None else Seal.of(sign)
    path, publisher = pulled.path, registry.publisher_at(str(to), settings=settings, create=create, private=private)
    if document_of(path) is not None or setup_folder.detect(path):
        from . import composed

        pushed = composed.push(pulled, publisher, wanted, settings, dry_run=dry_run, seal=seal)
    else:
        pushed = _adapter(path, publisher, wanted, settings, dry_run=dry_run, seal=seal)
    unsigned = trusted_keys.stale(str(to), settings, changed=pushed.outcome.new and seal is None and not dry_run)
    return dataclasses.replace(pushed, remarks=(*pushed.remarks, *unsigned))


def _adapter(
    path: Path, publisher: Publisher, wanted: Wanted, settings: Settings, *, dry_run: bool, seal: Seal | None
) -> Pushed:
    """Publish the adapter that lies at a path; raises as push."""
    adapter = converters.read(path, row=wanted.architecture)
    cards = (publisher.card(), _card_beside(path))
    name, manifest = _described(adapter.manifest, wanted, *cards)
    filled, base, remarks = _filled(dataclasses.replace(adapter, manifest=manifest), wanted, settings)
    with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
        offers, left_out = _offers(filled, _formats(wanted.formats, publisher), Path(folder), wanted, base)
        publication = _publication(name, filled, offers, publisher, cards[1])
        outcome = publisher.publish(publication, dry_run=dry_run, seal=seal)
    return Pushed(
        name=name,
        version=manifest.version,
        formats=tuple(offer.format for offer in offers),
        outcome=outcome,
        left_out=left_out,
        remarks=tuple(remarks),
    )


def _pulled(source: str | Path, settings: Settings) -> Pulled:
    """Return the source on this machine; a composition with its adapters."""
    is_path = isinstance(source, Path) or Path(source).exists()
    reference = Reference(scheme="path", name=str(source)) if is_path else Reference.parse(str(source))
    return registry.pull(reference, offline=settings.offline)


def _card_beside(path: Path) -> bytes | None:
    """Return the model card in the folder of the source, or None."""
    place = path / CARD
    return place.read_bytes() if path.is_dir() and place.is_file() else None


def _described(manifest: Manifest, wanted: Wanted, *cards: bytes | None) -> tuple[str, Manifest]:
    """Return the name to publish under, and the manifest with all that publishing needs.

    Raises:
        UsageError: version, base model or licence is missing or cannot be, which are all told at once; or the name.
    """
    name, _, version = (wanted.name or "").partition("@")
    name, version = name or manifest.name, version or manifest.version
    short = name.rpartition("/")[2]
    if manifest_name(short, "") != short:
        raise UsageError(f"{name!r} is not a name", hint="use lower-case letters, digits, and . _ - within")
    license_text = wanted.license or manifest.license or next(filter(None, map(card.license_of, cards)), "")
    base_id = wanted.base_id or manifest.base.id
    faults = [
        *([] if version else [("it has no version", f"--as {name}@1.0.0")]),
        *([] if license_text else [("it has no licence", "--license apache-2.0")]),
        *_faults_of_base(base_id),
    ]
    if faults:
        raise UsageError(
            f"{name} cannot be published: {'; '.join(fault for fault, _ in faults)}",
            hint=f"give {' and '.join(flag for _, flag in faults)}",
        )
    Version.parse(version)
    revision = manifest.base.revision if base_id == manifest.base.id else None
    base = dataclasses.replace(manifest.base, id=base_id, revision=revision)
    return name, dataclasses.replace(manifest, name=short, version=version, license=license_text, base=base)


def _faults_of_base(base_id: str) -> list[tuple[str, str]]:
    """Return what is wrong with the id of a base model, and how it is given; nothing where it may be one."""
    flag = "--base-id google-bert/bert-base-uncased"
    if not base_id:
        return [("it does not name its base model by its id on the Hugging Face Hub", flag)]
    if not hub_id(base_id) and not is_folder(base_id):
        return [(f"{base_id!r} is not the id of a base model on the Hugging Face Hub", flag)]
    if is_folder(base_id):
        return [(f"its base model {base_id} is a folder on this machine, which nobody else has", flag)]
    return []


def _filled(adapter: Adapter, wanted: Wanted, settings: Settings) -> tuple[Adapter, BaseModel | None, list[str]]:
    """Return the adapter with fingerprint and probe, where its base model is at hand; that model; and remarks.

    Raises:
        BaseMismatchError, FormatError: the adapter does not fit its base model.
        NotFoundError, OfflineError: the base model that was asked for cannot be had.
    """
    manifest = adapter.manifest
    complete = manifest.base.fingerprint is not None and manifest.probe is not None
    if complete and wanted.base is None:
        return adapter, None, []
    chosen = wanted.base or _here(manifest)
    if chosen is None:
        known = f"the base model {manifest.base.id} is not on this machine"
        return adapter, None, [f"no fingerprint and probe: {known}; --base fills them in"]
    loaded = load_base(chosen, revision=manifest.base.revision, offline=settings.offline)
    try:
        return dataclasses.replace(adapter, manifest=_measured(adapter, loaded, wanted)), loaded, []
    except UnsupportedError as error:
        if wanted.base is not None:
            raise
        return adapter, loaded, [f"no fingerprint and probe: {error.message}"]


def _here(manifest: Manifest) -> str | None:
    """Return the adapter's own base model if it is on this machine, else None."""
    try:
        folder = local_folder(manifest.base.id, manifest.base.revision)
    except NotFoundError:
        return None
    return manifest.base.id if folder is not None else None


def _measured(adapter: Adapter, loaded: BaseModel, wanted: Wanted) -> Manifest:
    """Return the manifest with the fingerprint of the base model and a probe of the adapter on it."""
    from ..loader import attach

    adapters = attach(loaded.model, architecture=wanted.architecture, base_id=adapter.manifest.base.id)
    name = adapters.load(adapter)
    try:
        with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
            path = adapters.save(name, Path(folder) / "measured.safetensors", manifest=adapter.manifest)
            return native_head.read_manifest(path)[1]
    finally:
        adapters.detach()


def _formats(wanted: Sequence[str] | None, publisher: Publisher) -> list[tuple[str, bool]]:
    """Return the formats to write, and whether one that has no word for the adapter is only left out.

    Raises:
        UsageError: there is no such format.
    """
    if wanted is None:
        return [(row, row != NATIVE) for row in (FORMATS if publisher.spread else (NATIVE,))]
    unknown = [row for row in wanted if row not in FORMATS]
    if unknown or not wanted:
        raise UsageError(f"{', '.join(unknown) or 'nothing'} is not a format", hint=f"known are {', '.join(FORMATS)}")
    return [(row, False) for row in FORMATS if row in wanted]


def _offers(
    adapter: Adapter, formats: Sequence[tuple[str, bool]], folder: Path, wanted: Wanted, base: BaseModel | None
) -> tuple[tuple[Offer, ...], dict[str, str]]:
    """Return the artifacts, written below a folder and read back; and format → why it was left out."""
    offers, left_out = [], {}
    for format, optional in formats:  # noqa: A001
        try:
            offers.append(_offer(adapter, format, folder, wanted, base))
        except UnsupportedError as error:
            if not optional:
                raise
            left_out[format] = error.message
    return tuple(offers), left_out


def _offer(adapter: Adapter, format: str, folder: Path, wanted: Wanted, base: BaseModel | None) -> Offer:  # noqa: A002
    known = None
    if base is not None:
        from ..loader.known_base import KnownBase

        known = KnownBase(base.model, wanted.architecture)
    path = folder / ("adapter.safetensors" if format == NATIVE else format)
    converters.write(adapter, path, format=format, base=known)
    # What was written is what others will read.
    converters.read(path, format=format, row=wanted.architecture)
    files = {"": path} if path.is_file() else dict(_files(path))
    own = adapter.manifest.base
    recorded = ArtifactBase(id=own.id, architecture=own.architecture, revision=own.revision)
    return Offer(base=recorded, method=method_of(adapter), format=format, files=files)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def method_of(adapter: Adapter) -> str:
    """Return the configuration string of an adapter; of one that is a head alone, the head's name."""
    from ..methods import describe, is_head

    return describe(config for config in adapter.config if not is_head(config)) or adapter.config[0].method


def _publication(
    name: str, adapter: Adapter, offers: tuple[Offer, ...], publisher: Publisher, beside: bytes | None
) -> Publication:
    """Return what is to be published."""
    manifest = adapter.manifest
    subject = card.Subject(
        manifest=manifest,
        method=method_of(adapter),
        formats=[offer.format for offer in offers],
        repo=publisher.place.removeprefix("hf://"),
        pipeline=card.pipeline_tag(adapter),
    )
    return Publication(
        name=name,
        version=manifest.version,
        published=dt.datetime.now(dt.UTC).date().isoformat(),
        offers=offers,
        card=partial(_card, beside, subject),
        summary=manifest.summary,
        task=manifest.task,
        license=manifest.license,
        language=manifest.language,
    )


def _card(beside: bytes | None, subject: card.Subject, there: bytes | None) -> bytes:
    """Return the card: that of the repository goes before the one beside the source."""
    return card.merged(beside if there is None else there, subject)
