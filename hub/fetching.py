"""Fetching: an adapter onto this machine, and what lies in a registry as an archive of other libraries made native.

    <cache>/native/<digest of the source>-<mark of what the index says>.json    the digest of the native file made of it

The native file is an object of the store like any other: its digest is checked before it is used, and it is made again
where it is missing. It has name, version and base model from the index, and says in its provenance what it is made of.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .. import methods, schemas
from .. import registry as registries
from ..adapter import Manifest
from ..composition_file import NAME as COMPOSITION
from ..converters.identity import own_version
from ..errors import AdapterHubError, BaseMismatchError, DigestError, NotFoundError
from ..registry import Artifact, Content, Pulled, Reference, Registry, Store, atomic, digest
from ..registry.pulling import NATIVE
from ..registry.receiving import Progress


def fetch(
    reference: Reference | str,
    *,
    registry: Registry | str | Path | None = None,
    base: str | None = None,
    format: str | None = None,  # noqa: A002 - the field's name
    method: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Return where an adapter lies on this machine; see registry.pull.

    What came as an archive, or as a repository in its place, is given as a native file, unless a format is asked for.
    Where the native format is, and the version has none of its own, the first artifact is converted.

    method: also one of the names that `adapters` has for it, such as pfeiffer.

    Raises:
        FormatError, UnsupportedError: what was fetched cannot be read.
        BaseMismatchError: it is for another model family than the index says.
        UsageError, NotFoundError, IntegrityError, OfflineError, SchemaError: as registry.pull.
    """
    store = Store()

    def pulled(wanted: str | None) -> Pulled:
        return registries.pull(
            reference,
            registry=registry,
            base=base,
            format=wanted,
            method=None if method is None else methods.describe(methods.parse_method(method)),
            offline=offline,
            store=store,
            progress=progress,
        )

    if format != NATIVE:
        found = pulled(format)
        return made_native(found, store) if format is None and found.packed else found
    try:
        return pulled(NATIVE)
    except NotFoundError:
        return made_native(pulled(None), store)


def made_native(found: Pulled, store: Store) -> Pulled:
    """Return an adapter of a registry as a native file: the one that was made of the same bytes before, or a new one.

    Raises:
        FormatError, UnsupportedError, BaseMismatchError: none can be made of it.
        AdapterHubError: the store cannot be written.
    """
    if found.artifact is None or found.artifact.format in (NATIVE, COMPOSITION):
        return found
    making = _Making(found, found.artifact, store)
    known = making.known()
    path = None if known is None else making.laid_out(known)
    return replace(found, path=path or making.made(), cached=found.cached and path is not None)


@dataclass(frozen=True, slots=True)
class _Making:
    """The native file of one adapter."""

    found: Pulled
    artifact: Artifact
    store: Store

    @property
    def what(self) -> str:
        return f"{self.found.name}@{self.found.version}"

    @property
    def record(self) -> Path:
        """Where the digest of the native file is noted."""
        said = [own_version(), self.found.name, self.found.version, self.artifact.base.to_json()]
        mark = digest.of_bytes(schemas.canonical(said))[7:23]
        return self.store.root / "native" / f"{digest.hexadecimal(self.found.digest or '')}-{mark}.json"

    def known(self) -> Content | None:
        """Return the native file that was made before, or None."""
        try:
            data = json.loads(self.record.read_bytes())
            return self._content(str(data["digest"]), int(data["size"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _content(self, digest_text: str, size: int) -> Content:
        name = self.found.name.rpartition("/")[2]
        return Content(url=f"{name}-{self.found.version}.safetensors", digest=digest_text, size=size)

    def laid_out(self, content: Content) -> Path | None:
        """Return the path of a native file that the store has, or None where it is gone or damaged."""

        def gone(path: str, start: int) -> Iterator[bytes]:
            raise NotFoundError(f"the native file of {self.what} is gone")

        try:
            return self.store.obtain(content, gone, self.what)[0]
        except (NotFoundError, DigestError):
            return None

    def made(self) -> Path:
        """Return the path of a native file that is made now.

        Raises:
            FormatError, UnsupportedError, BaseMismatchError: it cannot be made.
            AdapterHubError: the store cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
            file = self._written(Path(folder) / "adapter.safetensors")
            content = self._content(digest.of_file(file), file.stat().st_size)

            def read(path: str, start: int) -> Iterator[bytes]:
                yield file.read_bytes()[start:]

            path, _ = self.store.obtain(content, read, self.what)
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self.record, schemas.dumps({"digest": content.digest, "size": content.size}))
        except (OSError, AdapterHubError) as error:
            _warn(f"{self.what} will be converted again: {error}")
        return path

    def _written(self, path: Path) -> Path:
        """Write the native file, and return its path."""
        from .. import converters
        from ..architectures import by_name

        base = self.artifact.base
        adapter = converters.read(self.found.path, row=by_name(base.architecture))
        family = adapter.manifest.base.architecture
        if family != base.architecture:
            raise BaseMismatchError(
                f"{self.what} is for models of the family {family}, the index says {base.architecture}",
                hint="the index is wrong; `--format adapters` gives the files as they are",
            )
        return converters.write(replace(adapter, manifest=self._manifest(adapter.manifest)), path, NATIVE)

    def _manifest(self, said: Manifest) -> Manifest:
        """Return what the files say of the adapter, with what the index knows better."""
        base = replace(said.base, id=self.artifact.base.id, revision=self.artifact.base.revision)
        origin = said.provenance and replace(said.provenance, digest=self.found.digest or "")
        name = self.found.name.rpartition("/")[2]
        return replace(said, name=name, version=self.found.version or "", base=base, provenance=origin)


def _warn(message: str) -> None:
    import logging

    logging.getLogger("adapterhub").warning(message)
