"""The adapters that a composition is made of: all of them pulled at once, each held against its digest."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import arrangement
from ..arrangement import Arrangement, Pin
from ..composition_file import document_of
from ..errors import (
    AdapterHubError,
    AuthenticationError,
    BaseMismatchError,
    DigestError,
    FormatError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    StateError,
    UnsupportedError,
    UsageError,
)
from . import digest, paths
from .lock import LockedAdapter
from .pulling import Pulled, pull, yanked
from .records import Artifact
from .reference import Reference
from .registry import Registry, open_registry
from .settings import BUNDLED, Settings
from .store import Store


def completed(pulled: Pulled, *, home: Registry | None, settings: Settings, store: Store) -> Pulled:
    """Return what was pulled; a composition with all its adapters, anything else as it is.

    Args:
        pulled: what a reference led to.
        home: the registry that it came from, which is asked first; None for a path.
        settings: which other registries are asked, and whether the network may be used.
        store: where bytes are kept.

    Raises:
        NotFoundError: adapters are missing; every one is named.
        IntegrityError: adapters are not those that were pinned; every one is named.
        FormatError, SchemaError: the composition is not valid.
    """
    document = document_of(pulled.path)
    if document is None:
        return pulled
    found = arrangement.read(pulled.path)
    closure = _Closure(found, document.parent, home, settings, store)
    # The entry of an index is called with its owner, which the file does not know.
    name = pulled.name if pulled.artifact is not None else found.name or pulled.name
    return dataclasses.replace(pulled, name=name, parts=closure.pull(pulled.name))


class _Closure:
    """The search for the adapters of one composition."""

    def __init__(
        self, found: Arrangement, folder: Path, home: Registry | None, settings: Settings, store: Store
    ) -> None:
        self.found, self.folder, self.home, self.settings, self.store = found, folder, home, settings, store

    def pull(self, name: str) -> Mapping[str, Pulled]:
        """Return name → adapter; all faults are told at once."""
        parts: dict[str, Pulled] = {}
        errors: list[AdapterHubError] = []
        for leaf, pin in self.found.adapters.items():
            try:
                parts[leaf] = self._leaf(leaf, pin)
            except AdapterHubError as error:
                errors.append(error)
        if errors:
            raise together(f"the composition {self.found.name or name!r}", errors)
        return parts

    def _leaf(self, leaf: str, pin: Pin) -> Pulled:
        if pin.beside:
            return self._beside(leaf, pin)
        if self.home is not None and (part := self.home.part(pin.digest)) is not None:
            return self._locked(self.home, leaf, part)
        if "://" in pin.reference:
            return self._from_elsewhere(leaf, pin)
        missing: list[AdapterHubError] = []
        for registry in self._registries(pin):
            if isinstance(registry, AdapterHubError):
                missing.append(registry)
                continue
            try:
                return self._from(registry, leaf, pin)
            except (NotFoundError, DigestError) as error:
                missing.append(error)
        stored = self.store.find(pin.digest)
        if stored is not None:
            return self._checked(Pulled(path=stored, name=leaf, version=None, artifact=None, cached=True), leaf)
        raise next((e for e in missing if isinstance(e, DigestError)), missing[0] if missing else self._homeless(leaf))

    def _homeless(self, leaf: str) -> NotFoundError:
        return NotFoundError(f"adapter {leaf!r} has no reference, and is not on this machine", hint="compose it anew")

    def _beside(self, leaf: str, pin: Pin) -> Pulled:
        """Return an adapter that lies beside the composition file."""
        if fault := paths.fault(pin.beside):
            raise FormatError(f"adapter {leaf!r}: the path {pin.reference!r} {fault}")
        path = self.folder / pin.beside
        if not path.is_file():
            raise NotFoundError(f"adapter {leaf!r}: there is no file {path}", hint="the composition is incomplete")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise FormatError(f"adapter {leaf!r}: {path} is a link that leads out of {self.folder}")
        actual = digest.of_file(path)
        if actual != pin.digest:
            raise DigestError(f"adapter {leaf!r} in {path}", expected=pin.digest, actual=actual)
        return self._checked(Pulled(path=path, name=leaf, version=None, artifact=None, cached=True), leaf)

    def _from_elsewhere(self, leaf: str, pin: Pin) -> Pulled:
        """Return an adapter of a repository."""
        found = pull(pin.reference, offline=self.settings.offline, store=self.store)
        if found.digest != pin.digest:
            raise DigestError(f"adapter {leaf!r} at {pin.reference}", expected=pin.digest, actual=str(found.digest))
        return self._checked(found, leaf)

    def _registries(self, pin: Pin) -> Iterator[Registry | AdapterHubError]:
        """Yield where a pin is looked up, or why there is nothing to look it up in."""
        if not pin.reference or (self.home is not None and self.home.alone):
            return
        named = Reference.parse(pin.reference).registry
        places: list[str | Path] = [] if named or self.home is None else [self.home.location]
        places += [self.settings.location(named), *([] if named else [BUNDLED])]
        for place in dict.fromkeys(places):
            if self.home is not None and place == self.home.location:
                yield self.home
                continue
            try:
                yield open_registry(place, settings=self.settings)
            except (NotFoundError, OfflineError) as error:
                yield error

    def _from(self, registry: Registry, leaf: str, pin: Pin) -> Pulled:
        """Return a pinned adapter from a registry."""
        reference = Reference.parse(pin.reference)
        name = registry.index.find(reference.name)
        releases = registry.index.entry(name).versions
        version, artifact = _pinned(registry, reference, name, pin)
        if releases[version].yanked:
            holds = f"{self.found.name or 'the composition'} holds {name}@{version}, which"
            warnings.warn(yanked(holds, releases[version]), UserWarning, stacklevel=2)
        path, cached = registry.fetch(artifact, f"{name}@{version}", store=self.store, offline=self.settings.offline)
        found = Pulled(path=path, name=name, version=version, artifact=artifact, cached=cached, home=registry)
        return self._checked(found, leaf)

    def _locked(self, home: Registry, leaf: str, part: LockedAdapter) -> Pulled:
        """Return an adapter that a lock pins."""
        path, cached = home.fetch(part.bytes, part.title, store=self.store, offline=self.settings.offline)
        found = Pulled(
            path=path,
            name=part.name or leaf,
            version=part.version or None,
            artifact=part.artifact,
            cached=cached,
            content=part.content,
            home=home,
        )
        return self._checked(found, leaf)

    def _checked(self, pulled: Pulled, leaf: str) -> Pulled:
        """Return an adapter; a composition is refused."""
        if document_of(pulled.path) is None:
            return pulled
        inner = arrangement.read(pulled.path)
        words = "contains itself" if inner.name and inner.name == self.found.name else "is a composition too"
        raise FormatError(
            f"{leaf!r} {words}", hint="`adapterhub compose` puts the adapters of a composition in its place"
        )


def _pinned(registry: Registry, reference: Reference, name: str, pin: Pin) -> tuple[str, Artifact]:
    """Return version and artifact that have the pin's digest.

    Raises:
        NotFoundError: there is no such version.
        DigestError: the version has other bytes.
    """
    entry = registry.index.entry(name)
    exact = reference.versions.exact
    for version in [str(exact)] if exact else reversed(list(entry.versions)):
        for artifact in entry.versions[version].artifacts if version in entry.versions else ():
            if artifact.identity == pin.digest:
                return version, artifact
    resolved = registry.index.resolve(reference)
    raise DigestError(
        f"{name}@{resolved.version} in {registry.location}",
        expected=pin.digest,
        actual=resolved.artifact.identity,
        hint="it is not the adapter that the composition was made of",
    )


def together(what: str, errors: list[AdapterHubError]) -> AdapterHubError:
    """Return one error of several; what: names that in which they are.

    One error stays of its kind; of several the gravest kind is told: wrong bytes before missing ones.
    """
    first = errors[0]
    if len(errors) > 1:
        message = "\n  ".join([f"{what} ({len(errors)} faults):", *map(str, errors)])
        return next((kind for kind in _GRAVEST if any(isinstance(e, kind) for e in errors)), AdapterHubError)(message)
    if isinstance(first, DigestError):
        return DigestError(f"{what}: {first.what}", expected=first.expected, actual=first.actual, hint=first.hint)
    kind = next((kind for kind in (*_GRAVEST, *_OTHERS) if isinstance(first, kind)), AdapterHubError)
    return kind(f"{what}: {first.message}", hint=first.hint)


_GRAVEST: tuple[type[AdapterHubError], ...] = (BaseMismatchError, IntegrityError, UnsupportedError, NotFoundError)
_OTHERS: tuple[type[AdapterHubError], ...] = (OfflineError, UsageError, AuthenticationError, StateError)
