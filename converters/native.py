"""The native format: one safetensors file whose header carries configuration and manifest.

The header's `__metadata__` is {"adapterhub": <canonical JSON>, "format": "pt"}; the JSON document is
{"format": 1, "config": [<one object per method>], …the manifest's fields} (schemas/manifest.schema.json). Tensors have
their canonical keys. One adapter has one sequence of bytes, so its digest is its identity; the document can be read
from the first kilobytes, from a file or by a range request.
"""

from __future__ import annotations

from pathlib import Path

from .. import schemas
from ..adapter import JSON, Adapter, Manifest, from_json, to_json
from ..architectures import ARCHITECTURES
from ..errors import FormatError, SchemaError, UnsupportedError, UsageError
from ..methods import configs_from_json
from . import accounting, json_text, safetensors_file
from .disk import open_regular
from .format import Format, Parts
from .safetensors_file import Header, RangeReader

NAME = "native"
VERSION = 1
METADATA_KEY = "adapterhub"
DOCUMENT = "manifest"
TENSORS = "adapter"


def detect(path: Path) -> bool:
    """Return whether path is a file that begins like a safetensors file."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(9)[8:] == b"{"


def read(path: Path) -> Parts:
    """Return the document and the tensors of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it breaks the format.
    """
    # No digest: it is the identity of an artifact, not a part of it, and the registry has just checked it.
    loaded = safetensors_file.load(path)
    return Parts({DOCUMENT: _document(loaded.header, str(path))}, {TENSORS: loaded.tensors})


def read_manifest(source: str | Path | RangeReader) -> tuple[list[dict[str, JSON]], Manifest]:
    """Return configuration (one JSON object per method) and manifest, from the header alone.

    Args:
        source: a path, or a reader of ranges.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it breaks the format, or is a safetensors file of another kind.
    """
    what = str(source) if isinstance(source, (str, Path)) else "the remote file"
    document = _checked(_document(safetensors_file.read_header(source), what), what)
    return document["config"], _manifest(document)


def decode(parts: Parts) -> Adapter:
    """Return the adapter.

    Raises:
        FormatError: the document breaks its schema or describes a configuration that cannot be, or tensors are missing,
            left over or of another shape; every fault is listed.
        UnsupportedError: the file is of a later version of the format.
    """
    what = "the adapter's manifest"
    document = _checked(parts.documents[DOCUMENT], what)
    try:
        config = configs_from_json(document["config"])
    except UsageError as error:
        raise FormatError(f"{what} is not usable: {error.message}", hint=error.hint) from None
    manifest, tensors = _manifest(document), parts.tensors[TENSORS]
    row = next((row for row in ARCHITECTURES if row.name == manifest.base.architecture), None)
    # A family that only its user can describe is checked when the adapter meets its base.
    faults = [] if row is None else accounting.faults(config, tensors, row)
    if faults:
        raise FormatError(
            f"the tensors of adapter {manifest.name!r} are not those of its configuration",
            faults=faults,
            hint="the file is incomplete or damaged; fetch or write it again",
        )
    return Adapter(config, tensors, manifest)


def encode(adapter: Adapter) -> Parts:
    """Return document and tensors.

    Raises:
        FormatError: the manifest breaks its schema, or holds what JSON cannot.
    """
    document = {
        "format": VERSION,
        "config": [config.to_json() for config in adapter.config],
        **to_json(adapter.manifest),
    }
    json_text.canonical(document, "the manifest")
    return Parts({DOCUMENT: _checked(document, "the manifest")}, {TENSORS: dict(adapter.tensors)})


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write one file, whole or not at all, and return its path.

    Raises:
        StateError: the file exists and force is not set, or cannot be written.
    """
    safetensors_file.write(path, parts.tensors[TENSORS], _metadata(parts), force=force)
    return path


def dumps(adapter: Adapter) -> bytes:
    """Return the bytes of the file that write would write.

    Raises:
        FormatError: as encode.
    """
    parts = encode(adapter)
    return safetensors_file.dumps(parts.tensors[TENSORS], _metadata(parts))


FORMAT = Format(name=NAME, detect=detect, read=read, decode=decode, encode=encode, write=write)


def _metadata(parts: Parts) -> dict[str, str]:
    return {METADATA_KEY: json_text.canonical(parts.documents[DOCUMENT], "the manifest"), "format": "pt"}


def _document(header: Header, what: str) -> JSON:
    """Return the JSON document of a header."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise FormatError(
            f"{what} is a safetensors file without a manifest of adapterhub",
            hint="a file of tensors alone does not say what it computes; give the folder it came in",
        )
    return json_text.loads(text.encode("utf-8", "surrogatepass"), f"the manifest of {what}")


def _checked(document: JSON, what: str) -> dict[str, JSON]:
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
    checked: dict[str, JSON] = document
    return checked


def _manifest(document: dict[str, JSON]) -> Manifest:
    return from_json(
        Manifest, {key: value for key, value in document.items() if key not in ("$schema", "format", "config")}
    )
