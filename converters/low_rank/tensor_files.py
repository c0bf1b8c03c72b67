"""Single safetensors files without a document of their own: their tensors, and the texts in their header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...adapter import JSON
from ...errors import FormatError
from .. import json_text, native_head, safetensors_file, safetensors_header
from ..disk import open_regular
from ..format import Parts
from ..safetensors_header import Header
from . import notes
from .dialect import GROUP

METADATA = "metadata"
"""The document: the texts of the header."""

NOTE = "adapterhub_note"
"""What a note is called there; the shorter word would make a native file of it."""

NATIVE = b'{"__metadata__":{"adapterhub":'
"""How the header of a native file begins."""


def detect(path: Path, is_one: Callable[[Header], bool]) -> bool:
    """Return whether path is a safetensors file, not of the native format, whose header is one of a format."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        begins = file.read(8 + len(NATIVE))[8:]
    if not begins.startswith(b"{") or begins == NATIVE:
        return False
    try:
        header = safetensors_header.read_header(path)
    except FormatError:
        return False
    return native_head.METADATA_KEY not in header.metadata and is_one(header)


def read(path: Path) -> Parts:
    """Return tensors, texts and note of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is malformed or hostile.
    """
    loaded = safetensors_file.load(path, digest=True)
    metadata: dict[str, JSON] = dict(loaded.header.metadata)
    note = metadata.pop(NOTE, None)
    documents: dict[str, JSON] = {METADATA: metadata}
    if note is not None:
        documents[notes.KEY] = json_text.loads(note.encode("utf-8", "surrogatepass"), f"the note in {path}")
    return Parts(documents, {GROUP: loaded.tensors}, loaded.digest, name=path.stem)


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write one file, whole or not at all, and return its path.

    Raises:
        StateError: the file exists and force is not set, or cannot be written.
    """
    metadata = dict(parts.documents[METADATA])
    if notes.KEY in parts.documents:
        metadata[NOTE] = json_text.canonical(parts.documents[notes.KEY], "the note")
    safetensors_file.write(path, parts.tensors[GROUP], metadata, force=force)
    return path
