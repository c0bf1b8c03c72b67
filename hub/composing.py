"""Compose: several adapters into one arrangement, checked on their base model, pinned, written and published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import schemas
from ..adapter import Base, Manifest
from ..arrangement import Arrangement, Pin
from ..composition import Node, last
from ..errors import NotFoundError, SchemaError, StateError, UsageError
from ..registry import Outcome, Publisher, Reference, Registry, Version
from ..registry.settings import BUNDLED
from .base_models import choose_base, load_model
from .drafts import Draft, draft
from .leaves import Gathered, Part, Search, gather
from .publishing import identity, publish, publisher_of

if TYPE_CHECKING:
    from torch import nn

    from ..architectures import Architecture
    from ..loader import AdapterSet
    from ..registry.signing import Seal


@dataclass(frozen=True, slots=True)
class Composed:
    """A composition that was made.

    Attributes:
        arrangement: what its file holds.
        digest: its identity.
        paths: where it was written on this machine: a file, or a folder with adapters beside it; () where nowhere.
        size: number of bytes of all its files.
        outcome: what publishing it changed; None where it was not asked for.
    """

    arrangement: Arrangement
    digest: str
    paths: tuple[Path, ...]
    size: int
    outcome: Outcome | None = None


def compose(
    name: str,
    composition: str | Path | Node,
    *,
    base: str | None = None,
    head: str | None = None,
    manifest: Manifest | None = None,
    out: str | Path | None = None,
    push: str | Path | None = None,
    registry: str | None = None,
    offline: bool | None = None,
    architecture: Architecture | None = None,
    format: str = "native",  # noqa: A002 - the field's name
    force: bool = False,
    create: bool = False,
    private: bool = False,
    dry_run: bool = False,
) -> Composed:
    """Make a composition of adapters: look them up, check that they work together on their base model, and write it.

    Every adapter is pinned by version and digest; what is no adapter of a registry lies beside the composition. Nothing
    is written before all is checked.

    Args:
        name: `name` or `name@version`.
        composition: text such as `stack(a, fuse(b, c, name=./f.safetensors))`, whose words are references; a value; or
            a JSON or TOML file, a composition, or a setup folder of `adapters`.
        base: folder or Hub id of the base model; None is the one that the adapters name.
        head: the word for the adapter whose head answers; None lets heads follow the composition.
        manifest: what is said of it besides (summary, task, license, language, metrics).
        out: file, or folder if adapters lie beside it; None is NAME-VERSION.json or NAME-VERSION here, or nothing where
            it is pushed.
        push: where it is published: a folder, a bucket (s3://, az://, gs://), oci://host/name, hf://user/repo or the
            name of a registry in the settings; a repository on the Hub is a registry, if it is one already, or else
            that of this composition.
        registry: where adapters are looked up; None is that of the settings.
        offline: whether the network is switched off; None asks the settings.
        architecture: describes a base model of a family that is not known.
        format: "native", or "adapters" for a setup folder of that library at out.
        force: replace what is at out.
        create: make a registry at push, if there is none; a folder that is there becomes one without it.
        private: whether a repository that is made is private.
        dry_run: check all, and write nothing.

    Raises:
        UsageError: name or composition cannot be read, nests what may not be nested, or contains itself.
        NotFoundError, IntegrityError: from looking up the adapters; all of them are told.
        BaseMismatchError, FormatError, UnsupportedError: an adapter does not fit the base model or its place.
        StateError: something is at out, or the registry has another composition of this version.
    """
    title, version = split_name(name)
    publisher = None if push is None else publisher_of(push, create=create, private=private, offline=offline)
    written = _with_head(draft(composition), head)
    search = Search(base=base, registry=registry, offline=offline, within=(title,))
    gathered = gather(written, search)
    known = _manifest(title, version, written, manifest)
    with on_its_base(gathered, known, base=base, offline=offline, architecture=architecture) as (adapters, named):
        found = adapters.arrangement(named)
        if format != "native":
            folder = Path(out) if out is not None else Path(found.name)
            return _in_other_words(adapters, named, format, folder, force, dry_run, push)
    done = [_write(found, gathered, out, force, dry_run)] if out is not None or publisher is None else []
    if publisher is not None:
        done.append(published(found, gathered, publisher, dry_run=dry_run)[0])
    paths = tuple(path for one in done for path in one.paths)
    return dataclasses.replace(done[-1], paths=paths)


@contextmanager
def on_its_base(
    gathered: Gathered,
    known: Manifest,
    *,
    base: str | None,
    offline: bool | None,
    architecture: Architecture | None,
) -> Iterator[tuple[AdapterSet, str]]:
    """Yield adapters attached to their base model with a composition active, and its name; detached afterwards."""
    chosen, revision = base_of(gathered, base)
    model = load_model(chosen, revision=revision, offline=offline)
    with attached_to(model, gathered, known, architecture=architecture) as found:
        yield found


@contextmanager
def attached_to(
    model: nn.Module, gathered: Gathered, known: Manifest, *, architecture: Architecture | None
) -> Iterator[tuple[AdapterSet, str]]:
    """Yield adapters attached to a model with a composition active, and its name; detached afterwards."""
    adapters, named = put_on(model, gathered, known, architecture=architecture)
    try:
        yield adapters, named
    finally:
        adapters.detach()


def published(
    found: Arrangement,
    gathered: Gathered,
    publisher: Publisher,
    *,
    name: str = "",
    dry_run: bool = False,
    seal: Seal | None = None,
) -> tuple[Composed, Outcome]:
    """Publish a composition, and return it and what that changed. Raises as publish.

    Adapters that neither the place nor the package offers go with it.

    name: name of the entry, with an owner perhaps; "" is its own.
    seal: what signs the index in the same step.
    """
    from ..registry.folder_publisher import FolderPublisher
    from .card import pipeline_tag

    whole, beside = pinned(found, gathered, reachable_from=publisher.place)
    answers = gathered.parts[whole.head or last(whole.composition)].adapter
    outcome = publish(whole, beside, publisher, name=name, pipeline=pipeline_tag(answers), dry_run=dry_run, seal=seal)
    here = isinstance(publisher, FolderPublisher) and not dry_run
    paths = (Path(outcome.place) / outcome.artifacts[0].url,) if here else ()
    return Composed(whole, identity(whole, beside), paths, _size(whole, beside), outcome), outcome


def base_of(gathered: Gathered, base: str | None) -> tuple[str, str | None]:
    """Return the base model to load, and its revision where the adapters agree on one.

    Raises:
        UsageError: neither they nor `base` name one.
        BaseMismatchError: they name several.
    """
    own = gathered.base_id()
    chosen = choose_base(base, Manifest(name=str(gathered.node), base=Base(architecture="", id=own)))
    bases = [part.adapter.manifest.base for part in gathered.parts.values()]
    revisions = {base.revision for base in bases if base.id == own}
    return chosen, revisions.pop() if chosen == own and len(revisions) == 1 else None


def put_on(
    model: nn.Module,
    gathered: Gathered,
    manifest: Manifest | None = None,
    *,
    architecture: Architecture | None = None,
) -> tuple[AdapterSet, str]:
    """Return adapters attached to a model with a composition active, and what it is called there; raises as compose."""
    from ..loader import attach

    adapters = attach(model, architecture=architecture, base_id=gathered.base_id() or None)
    known = manifest or Manifest(name=_nameless(gathered), base=Base(architecture=""))
    return adapters, adapters.load(gathered.assembly(known), set_active=True)


def _nameless(gathered: Gathered) -> str:
    """Return a name that none of the adapters has."""
    name = "composition"
    while name in gathered.parts:
        name += "-"
    return name


def split_name(text: str) -> tuple[str, str]:
    """Return name and version of `name@version`, "" where there is no version.

    Raises:
        UsageError: it is neither.

    >>> split_name("my-stack@1.0.0"), split_name("my-stack")
    (('my-stack', '1.0.0'), ('my-stack', ''))
    """
    name, _, version = text.partition("@")
    try:
        schemas.check(name, "index", part="name")
        schemas.check(version or "0.0.0", "index", part="version")
    except SchemaError as error:
        fault = error.faults[0]
        raise UsageError(f"{text!r} is not NAME or NAME@VERSION: {fault}", hint="such as moods@1.0.0") from None
    return name, str(Version.parse(version)) if version else ""


def _with_head(written: Draft, head: str | None) -> Draft:
    return written if head is None else dataclasses.replace(written, head=head)


def _manifest(name: str, version: str, written: Draft, given: Manifest | None) -> Manifest:
    """Return what is known of the composition: what is given, else what its file says."""
    texts = {key: value for key, value in written.fields.items() if key not in ("name", "version")}
    if "language" in texts:
        texts["language"] = tuple(texts["language"])
    said = written.fields.get("name"), written.fields.get("version")
    for field, there, wanted in (("name", said[0], name), ("version", said[1], version)):
        if there and wanted and there != wanted:
            raise UsageError(f"the file says {field} {there}, the command {wanted}", hint="let them say the same")
    known = given or Manifest(name=name, base=Base(architecture=""))
    kept = {key: value for key, value in texts.items() if not getattr(known, key)}
    return dataclasses.replace(known, name=name, version=version or said[1] or "", **kept)


def pinned(
    found: Arrangement, gathered: Gathered, *, reachable_from: str | None = None
) -> tuple[Arrangement, dict[str, bytes]]:
    """Return a composition with its pins, and the adapters that have to lie beside it: file name → bytes.

    reachable_from: a registry; adapters that neither it nor the package offers are put beside.
    """
    from ..converters import composed, native
    from ..registry import digest

    pins, beside = {}, {}
    offering = None if reachable_from is None else _registries(reachable_from)
    for name, part in gathered.parts.items():
        pin = part.pin()
        if pin is None or (offering is not None and not _offered(pin, offering)):
            data = _bytes(part) or native.dumps(part.adapter)
            file = composed.file_name(name, data)
            beside[file] = data
            pin = Pin(digest=digest.of_bytes(data), reference=f"./{file}")
        pins[name] = pin
    return dataclasses.replace(found, adapters=pins), beside


def _bytes(part: Part) -> bytes | None:
    """Return the bytes of an adapter's native file, None where it has another form."""
    from ..converters import native_head

    return part.pulled.path.read_bytes() if native_head.detect(part.pulled.path) else None


def _registries(place: str) -> list[Registry]:
    """Return the registry at a place, if it is one already, and that of the package."""
    from ..registry import open_registry

    found = []
    for where in (place, BUNDLED):
        with suppress(NotFoundError):
            found.append(open_registry(where))
    return found


def _offered(pin: Pin, registries: Sequence[Registry]) -> bool:
    """Return whether one of the registries has the adapter of a pin under its reference, or a repository has it."""
    reference = Reference.parse(pin.reference)
    if reference.scheme != "name" or reference.registry:
        return reference.scheme != "name"
    for registry in registries:
        try:
            release = registry.index.entry(reference.name).versions[str(reference.versions.exact)]
        except (NotFoundError, KeyError):
            continue
        if any(artifact.identity == pin.digest for artifact in release.artifacts):
            return True
    return False


def _write(found: Arrangement, gathered: Gathered, out: str | Path | None, force: bool, dry_run: bool) -> Composed:
    """Write a composition to where it was asked for, or here."""
    from ..converters import composed

    whole, beside = pinned(found, gathered)
    path = Path(out) if out is not None else Path(_file_name(whole, beside))
    if not dry_run:
        composed.write(whole, beside, path, force=force)
    elif path.exists() and not force:
        raise StateError(f"{path} exists already", hint="choose another --out, or replace it with --force")
    return Composed(whole, identity(whole, beside), () if dry_run else (path,), _size(whole, beside))


def _in_other_words(
    adapters: AdapterSet,
    name: str,
    format: str,  # noqa: A002
    path: Path,
    force: bool,
    dry_run: bool,
    push: str | Path | None,
) -> Composed:
    """Write a composition in another format than ours; such a folder has no digest, and no registry takes it."""
    if push is not None or dry_run:
        raise UsageError(f"--format {format} goes with --out alone", hint="leave --push and --dry-run away")
    folder = adapters.save(name, path, format=format, force=force)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Composed(adapters.arrangement(name), "", (folder,), size)


def _file_name(whole: Arrangement, beside: Mapping[str, bytes]) -> str:
    stem = f"{whole.name}-{whole.version}" if whole.version else whole.name
    return stem if beside else f"{stem}.json"


def _size(whole: Arrangement, beside: Mapping[str, bytes]) -> int:
    return len(whole.dumps()) + sum(map(len, beside.values()))
