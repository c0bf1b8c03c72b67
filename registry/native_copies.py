"""Native copies: what a registry has in the files of another library, as a native file in the store.

    native/<digest of the source>-<mark of what the index says>.json    digest and size of the file made of it

The copy is an object like any other: its digest is checked before it is used. It is made again where it is gone, is
damaged, or was made by another version. Who converts is passed in: this floor knows no formats.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from .. import schemas
from ..composition_file import NAME as COMPOSITION
from ..errors import AdapterHubError, DigestError, NotFoundError
from . import atomic, digest
from .pulling import NATIVE, Pulled
from .records import Artifact, Content
from .store import Store


class Convert(Protocol):
    """Writes the adapter at one path as a native file to another; converters.listed.write."""

    def __call__(self, source: Path, target: Path, *, name: str, version: str, base: str, family: str, of: str) -> None:
        """Write the file.

        Args:
            source: what was fetched.
            target: where to.
            name: what the index calls it.
            version: its version there.
            base: id of the base model there.
            family: architecture of the base model there.
            of: digest of the source.
        """
        ...


def native(found: Pulled, store: Store, convert: Convert, *, by: str) -> Pulled:
    """Return an artifact of a registry as a native file: the one that was made of the same bytes before, or a new one.

    by: the version of what converts.

    Raises:
        AdapterHubError: from convert, or because the store cannot be written.
    """
    if found.artifact is None or found.artifact.format in (NATIVE, COMPOSITION):
        return found
    copy = _Copy(found, found.artifact, store, by)
    path = copy.known()
    return replace(found, path=path or copy.made(convert), cached=found.cached and path is not None)


@dataclass(frozen=True, slots=True)
class _Copy:
    """The native copy of one artifact."""

    found: Pulled
    artifact: Artifact
    store: Store
    by: str

    @property
    def what(self) -> str:
        return f"{self.found.name}@{self.found.version}"

    @property
    def record(self) -> Path:
        """Where digest and size of the copy are noted."""
        said = [self.by, self.found.name, self.found.version, self.artifact.base.to_json()]
        mark = digest.mark(schemas.canonical(said))[:16]
        return self.store.root / "native" / f"{digest.hexadecimal(self.found.digest or '')}-{mark}.json"

    def content(self, digest_text: str, size: int) -> Content:
        """Return what the store takes."""
        name = self.found.name.rpartition("/")[2]
        return Content(url=f"{name}-{self.found.version}.safetensors", digest=digest_text, size=size)

    def known(self) -> Path | None:
        """Return the copy that was made before, or None where there is none, or it is damaged."""

        def gone(path: str, start: int) -> Iterator[bytes]:
            raise NotFoundError(f"the native copy of {self.what} is gone")

        try:
            data = json.loads(self.record.read_bytes())
            content = self.content(str(data["digest"]), int(data["size"]))
            return self.store.obtain(content, gone, self.what)[0]
        except (NotFoundError, DigestError, OSError, ValueError, TypeError, KeyError):
            return None

    def made(self, convert: Convert) -> Path:
        """Return a copy that is made now."""
        base = self.artifact.base
        with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
            file = Path(folder) / "adapter.safetensors"
            convert(
                self.found.path,
                file,
                name=self.found.name.rpartition("/")[2],
                version=self.found.version or "",
                base=base.id,
                family=base.architecture,
                of=self.found.digest or "",
            )
            content = self.content(digest.of_file(file), file.stat().st_size)

            def read(path: str, start: int) -> Iterator[bytes]:
                yield file.read_bytes()[start:]

            path, _ = self.store.obtain(content, read, self.what)
        self._note(content)
        return path

    def _note(self, content: Content) -> None:
        """Note which copy was made; where that cannot be done, it is made again next time."""
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self.record, schemas.dumps({"digest": content.digest, "size": content.size}))
        except (OSError, AdapterHubError) as error:
            import logging

            logging.getLogger("adapterhub").warning(f"{self.what} will be converted again: {error}")
