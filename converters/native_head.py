"""What a native file says of itself, read from its first kilobytes: the document in its header (see native.py).

Nothing here knows the methods and model families, so that looking at a file costs little more than reading it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import schemas
from ..errors import FormatError, SchemaError, UnsupportedError
from .disk import open_regular
from .safetensors_header import Header, RangeReader, read_header

if TYPE_CHECKING:
    from ..adapter import Manifest

JSON: TypeAlias = Any

VERSION = 1
METADATA_KEY = "adapterhub"


def detect(path: Path) -> bool:
    """Return whether path is a file that begins like a safetensors file."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(9)[8:] == b"{"


def read_head(source: str | Path | RangeReader) -> tuple[Header, dict[str, JSON]]:
    """Return the header of a file and the document in it, which follows its schema.

    Args:
        source: a path, or a reader of ranges.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it breaks the format, or is a safetensors file of another kind.
    """
    what = str(source) if isinstance(source, (str, Path)) else "the remote file"
    header = read_header(source)
    return header, checked(document_of(header, what), what)


def read_manifest(source: str | Path | RangeReader) -> tuple[list[dict[str, JSON]], Manifest]:
    """Return configuration (one JSON object per method) and manifest, from the header alone; raises as read_head."""
    _, document = read_head(source)
    return document["config"], manifest_of(document)


def document_of(header: Header, what: str) -> JSON:
    """Return the JSON document of a header."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise FormatError(
            f"{what} is a safetensors file without a manifest of adapterhub",
            hint="a file of tensors alone does not say what it computes; give the folder it came in",
        )
    return schemas.loads(text.encode("utf-8", "surrogatepass"), f"the manifest of {what}")


def checked(document: JSON, what: str) -> dict[str, JSON]:
    """Return a document that follows its schema."""
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is int and version > VERSION:
        raise UnsupportedError(
            f"{what} is of format version {version}, known are those up to {VERSION}", hint="upgrade adapterhub"
        )
    try:
        schemas.check(document, "manifest")
    except SchemaError as error:
        raise FormatError(f"{what} breaks its schema", faults=error.faults, hint=error.hint) from None
    fitting: dict[str, JSON] = document
    return fitting


def manifest_of(document: Mapping[str, JSON]) -> Manifest:
    """Return the manifest in a checked document."""
    from ..adapter import Manifest, from_json

    return from_json(
        Manifest, {key: value for key, value in document.items() if key not in ("$schema", "format", "config")}
    )
