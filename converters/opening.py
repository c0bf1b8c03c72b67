"""Opening adapters whose tensors stay on the disk until they are looked at."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import detect, read
from .disk import Stretch, open_regular
from .outline import NeedsValues
from .windows import Window

if TYPE_CHECKING:
    from ..adapter import Adapter
    from ..architectures import Architecture
    from .format import Format
    from .outline import Outline


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An adapter that is open.

    Attributes:
        adapter: the adapter; its tensors lie in its files, where these are safetensors, else in memory.
        digest: the digest of its source, "" where that is not known.
        release: gives the memory back that its tensors took when they were looked at.
    """

    adapter: Adapter
    digest: str
    release: Callable[[], None] = lambda: None


def opened(path: Path, *, row: Architecture | None = None) -> Opened:
    """Return the adapter at a path, all values of which are found to be finite.

    Raises:
        NotFoundError, FormatError, UnsupportedError: as converters.read.
    """
    chosen = detect(path)
    try:
        outline = _outline(chosen, path)
        digest = outline.checked_digest()
    except NeedsValues:
        return _whole(path, row)
    windows = {group: Window(tensors) for group, tensors in outline.parts.tensors.items()}
    tensors = {group: window.tensors for group, window in windows.items()}
    adapter = chosen.decode(dataclasses.replace(outline.parts, tensors=tensors, digest=digest, row=row))
    chosen.account(adapter)

    def release() -> None:
        for window in windows.values():
            window.release()

    return Opened(adapter, digest, release)


def _outline(chosen: Format, path: Path) -> Outline:
    if chosen.outline is None:
        raise NeedsValues
    return chosen.outline(path)


def _whole(path: Path, row: Architecture | None) -> Opened:
    """Return an adapter that is read into memory as a whole."""
    adapter = read(path, row=row)
    known = adapter.manifest.provenance
    if not path.is_file():
        return Opened(adapter, "" if known is None else known.digest)
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for block in Stretch(file, 0, path.stat().st_size).blocks():
            digest.update(block)
    return Opened(adapter, f"sha256:{digest.hexdigest()}")
