"""The native format: one safetensors file whose header carries configuration and manifest.

The header's `__metadata__` is {"adapterhub": <canonical JSON>, "format": "pt"}; the JSON document is
{"format": 1, "config": [<one object per method>], …the manifest's fields} (schemas/manifest.schema.json). Tensors have
their canonical keys. One adapter has one sequence of bytes, so its digest is its identity; the document can be read
from the first kilobytes, from a file or by a range request.
"""

from __future__ import annotations

from pathlib import Path

from ..adapter import Adapter, to_json
from ..architectures import ARCHITECTURES
from ..errors import FormatError, UsageError
from ..methods import configs_from_json
from . import accounting, json_text, native_head, safetensors_file
from .format import Format, Parts
from .native_head import METADATA_KEY, VERSION, detect
from .outline import Outline, outlined
from .values import check_usable

NAME = "native"
DOCUMENT = "manifest"
TENSORS = "adapter"


def read(path: Path) -> Parts:
    """Return the document and the tensors of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it breaks the format.
    """
    # No digest: it is the identity of an artifact, not a part of it, and the registry has just checked it.
    loaded = safetensors_file.load(path)
    return Parts({DOCUMENT: native_head.document_of(loaded.header, str(path))}, {TENSORS: loaded.tensors})


def outline(path: Path) -> Outline:
    """Return the document, and the tensors as outlines; raises as read."""
    file, tensors = outlined(path)
    parts = Parts({DOCUMENT: native_head.document_of(file.header, str(path))}, {TENSORS: tensors})
    return Outline(parts, {"": file}, {})


def decode(parts: Parts) -> Adapter:
    """Return the adapter.

    Raises:
        FormatError: the document breaks its schema or describes a configuration that cannot be.
        UnsupportedError: the file is of a later version of the format.
    """
    what = "the adapter's manifest"
    document = native_head.checked(parts.documents[DOCUMENT], what)
    try:
        config = configs_from_json(document["config"])
    except UsageError as error:
        raise FormatError(f"{what} is not usable: {error.message}", hint=error.hint) from None
    check_usable(parts.tensors, f"adapter {document['name']!r}")
    return Adapter(config, parts.tensors[TENSORS], native_head.manifest_of(document))


def account(adapter: Adapter) -> None:
    """Hold the tensors against the configuration.

    Raises:
        FormatError: tensors are missing, left over or of another shape; every fault is listed.
    """
    manifest = adapter.manifest
    row = next((row for row in ARCHITECTURES if row.name == manifest.base.architecture), None)
    # A family that only its user can describe is checked when the adapter meets its base.
    faults = [] if row is None else accounting.faults(adapter.config, adapter.tensors, row)
    if faults:
        raise FormatError(
            f"the tensors of adapter {manifest.name!r} are not those of its configuration",
            faults=faults,
            hint="the file is incomplete or damaged; fetch or write it again",
        )


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
    return Parts({DOCUMENT: native_head.checked(document, "the manifest")}, {TENSORS: dict(adapter.tensors)})


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


def files(parts: Parts) -> dict[str, int]:
    """Return the size of the one file."""
    return {"": safetensors_file.size(parts.tensors[TENSORS], _metadata(parts))}


FORMAT = Format(
    name=NAME,
    detect=detect,
    read=read,
    decode=decode,
    account=account,
    encode=encode,
    write=write,
    files=files,
    outline=outline,
)


def _metadata(parts: Parts) -> dict[str, str]:
    return {METADATA_KEY: json_text.canonical(parts.documents[DOCUMENT], "the manifest"), "format": "pt"}
