"""pull: from a reference to verified bytes on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..composition_file import document_of
from ..errors import AdapterHubError, NotFoundError, OfflineError, UnsupportedError
from . import sources
from .receiving import Progress
from .records import Artifact, Content, Release
from .reference import Reference
from .registry import Registry, open_registry
from .resolution import Resolved
from .settings import Settings
from .store import Store

NATIVE = "native"
ZIP = b"PK\x03\x04"
"""The first bytes of an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a reference led to.

    Attributes:
        path: a file or folder on this machine; where it came from a registry, its digests were just checked.
        name: name of the adapter: that of the entry, or the path's without its ending.
        version: version of the entry, or None for a path.
        artifact: what the index says of these bytes, or None where no index was asked.
        cached: whether all of it was on this machine already.
        content: the files of a repository on the Hub, with their digests, also where an artifact's bytes could not be
            had and the repository is another of its sources; None otherwise.
        home: the registry that the artifact is from, or None where no index was asked.
        parts: of a composition, name in it → adapter; else {}.
    """

    path: Path
    name: str
    version: str | None
    artifact: Artifact | None
    cached: bool
    content: Content | None = None
    home: Registry | None = field(default=None, compare=False, repr=False)
    parts: Mapping[str, Pulled] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether an artifact came as an archive, or as a repository in its place: `hub.fetching` makes it native."""
        if self.artifact is None or self.artifact.format == NATIVE or self.path.is_dir():
            return self.artifact is not None and self.content is not None
        with self.path.open("rb") as file:
            return file.read(len(ZIP)) == ZIP

    @property
    def digest(self) -> str | None:
        """The digest that names what was pulled, or None for a path."""
        checked = self.content or self.artifact
        return None if checked is None else checked.identity


def pull(
    reference: Reference | str,
    *,
    registry: Registry | str | Path | None = None,
    base: str | None = None,
    format: str | None = None,  # noqa: A002 - the field's name
    method: str | None = None,
    offline: bool | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Return where the adapter that a reference names lies on this machine, fetched if need be.

    All adapters of a composition are fetched with it.

    Args:
        reference: an adapter of a registry, or a path, which is returned as it is.
        registry: where to look names up; None is the one that the reference or the settings name.
        base: the base model to choose an artifact for; see Index.resolve.
        format: the format to choose an artifact of.
        method: the method to choose an artifact of.
        offline: refuse to use the network; None is as the settings say.
        store: where bytes are kept; None is the one of the settings.
        progress: is told how many of how many bytes are here, while they are fetched.

    Raises:
        UsageError: the reference cannot be read, or leaves open which adapter or base model is meant.
        NotFoundError: there is no such adapter, version, artifact or path.
        IntegrityError: bytes are not what the index promises.
        OfflineError: the network is needed, and switched off.
        UnsupportedError: this version cannot read from such a place.
        SchemaError: the index is not valid.
    """
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    settings = Settings.load(offline=offline)
    store = store or Store(settings.cache)
    home = registry if isinstance(registry, Registry) else None
    if reference.scheme == "path":
        return _completed(_path(reference), home=home, settings=settings, store=store)
    if home is not None and (content := home.pinned(reference)) is not None:
        path, cached = home.fetch(content, str(reference), store=store, offline=settings.offline, progress=progress)
        found = Pulled(path=path, name=_name(reference), version=None, artifact=None, cached=cached, content=content)
        return _completed(found, home=home, settings=settings, store=store)
    if reference.scheme == "hf":
        _refuse_unsigned(reference, settings)
        found = _from_the_hub(reference, format, store, settings.offline, progress)
        return _completed(found, home=home, settings=settings, store=store)
    if reference.scheme == "oci":
        reference, registry = _of_its_only_entry(reference, settings)
    if reference.scheme != "name":
        raise _elsewhere(reference, settings)
    opened = registry if isinstance(registry, Registry) else _open(reference, registry, settings)
    resolved = _resolve(opened, reference, base, format, method)
    artifact, what = resolved.artifact, f"{resolved.name}@{resolved.version}"
    if resolved.release.yanked:
        warnings.warn(yanked(what, resolved.release), UserWarning, stacklevel=2)
    pinned = opened.alone or opened.signed
    got = sources.obtain(
        opened, artifact, what, store=store, offline=settings.offline, progress=progress, pinned=pinned
    )
    pulled = Pulled(
        path=got.path,
        name=resolved.name,
        version=resolved.version,
        artifact=artifact,
        cached=got.cached,
        content=got.content,
        home=opened,
    )
    return _completed(pulled, home=opened, settings=settings, store=store)


def _completed(pulled: Pulled, *, home: Registry | None, settings: Settings, store: Store) -> Pulled:
    """Return a composition with its adapters, anything else as it is."""
    if document_of(pulled.path) is None:
        return pulled
    from . import closure

    return closure.completed(pulled, home=home, settings=settings, store=store)


def _path(reference: Reference) -> Pulled:
    path = reference.path
    if not path.exists():
        raise NotFoundError(
            f"there is no file or folder {reference}", hint="an adapter of a registry is written without ./"
        )
    name = path.resolve().name if path.is_dir() else path.stem
    return Pulled(path=path, name=name, version=None, artifact=None, cached=True)


def _from_the_hub(
    reference: Reference,
    format: str | None,  # noqa: A002
    store: Store,
    offline: bool,
    progress: Progress | None,
) -> Pulled:
    """Return the adapter in a repository on the Hub."""
    found = sources.from_hub(reference, format=format, store=store, offline=offline, progress=progress)
    name = _name(reference)
    return Pulled(path=found.path, name=name, version=None, artifact=None, cached=found.cached, content=found.content)


def yanked(what: str, release: Release) -> str:
    """Return the warning that a version is yanked, and why."""
    return f"{what} is yanked{f': {release.reason}' if release.reason else ''}"


def _name(reference: Reference) -> str:
    """Return what an adapter outside registries is called: the last part of its place."""
    return (reference.folder or reference.name).rpartition("/")[2]


def _refuse_unsigned(reference: Reference, settings: Settings) -> None:
    """Raise where a repository must be signed: what is pulled past its index is not.

    Raises:
        UnsupportedError: it must.
    """
    from . import trusted_keys

    place = f"hf://{reference.name}"
    if settings.trust and trusted_keys.key_of(place, settings) is not None:
        raise UnsupportedError(
            f"{place} must be signed, and its files are, by its index alone", hint=f"NAME --registry {place}"
        )


def _of_its_only_entry(reference: Reference, settings: Settings) -> tuple[Reference, Registry]:
    """Return what `oci://host/name:1.0.0` means in the repository that it names."""
    from .oci_versions import named

    url, version = named(reference)
    opened = open_registry(url, settings=settings)
    name = next(opened.index.names())
    return Reference.parse(f"{name}@{version}" if version else name), opened


def _elsewhere(reference: Reference, settings: Settings) -> AdapterHubError:
    """Return the error for a place that nothing is pulled from."""
    if settings.offline:
        return OfflineError(
            f"{reference} needs the network, which is switched off", hint="pull it once with the network"
        )
    return UnsupportedError(
        f"{reference} has no digest that its bytes could be held to",
        hint="name an adapter and its registry: NAME --registry URL",
    )


def _open(reference: Reference, registry: str | Path | None, settings: Settings) -> Registry:
    location = registry if registry is not None else settings.location(reference.registry)
    return open_registry(location, settings=settings)


def _resolve(
    registry: Registry,
    reference: Reference,
    base: str | None,
    format: str | None,  # noqa: A002
    method: str | None,
) -> Resolved:
    """Return what the reference means; where it is unknown but names a file here, the hint says how to write that."""
    try:
        return registry.index.resolve(reference, base=base, format=format, method=method)
    except NotFoundError as error:
        if (here := _beside(reference.name)) is not None:
            hints = [*([error.hint] if error.hint else []), f"for the file or folder write ./{here}"]
            raise NotFoundError(error.message, hint="; ".join(hints)) from error
        raise


def _beside(name: str) -> str | None:
    """Return what lies in the working folder under a name, or as the file that `train` and `compose` write for it."""
    if Path(name).exists():
        return name
    start = f"{name.rpartition('/')[2]}-"
    written = [path.name for ending in (".json", ".safetensors") for path in Path().glob(f"*{ending}")]
    return max((one for one in written if one.startswith(start) and one[len(start)].isdigit()), default=None)
