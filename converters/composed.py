"""Compositions on the disk: one composition file, or a folder with it and adapters beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..arrangement import Arrangement
from ..composition_file import DOCUMENT
from ..errors import StateError
from .disk import sha256, write_atomic, write_folder


def write(found: Arrangement, beside: Mapping[str, bytes], path: Path, *, force: bool = False) -> Path:
    """Write a composition, whole or not at all, and return its path: a file, or a folder where adapters lie beside it.

    Law: written twice, the bytes are the same.

    beside: file name → the adapter in it.

    Raises:
        SchemaError: a field holds what the schema does not allow.
        StateError: something is there and force is not set, or it cannot be written.
    """
    data = found.dumps()
    if not beside:
        write_atomic(path, [data], force=force)
        return path
    return _write_folder(path, partial(_fill, {**beside, DOCUMENT: data}), force=force)


def put(written: Path, path: Path, *, force: bool = False) -> None:
    """Write what was written elsewhere, a file or a folder, to a path; raises as write."""
    if written.is_file():
        write_atomic(path, [written.read_bytes()], force=force)
    else:
        _write_folder(path, partial(shutil.copytree, written, dirs_exist_ok=True), force=force)


def _write_folder(path: Path, fill: Callable[[Path], object], *, force: bool) -> Path:
    if path.exists() and not path.is_dir():
        raise StateError(f"{path} is a file, and the composition is a folder", hint="choose another path")
    return write_folder(path, fill, force=force)


def _fill(files: Mapping[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        write_atomic(folder / name, [data], force=True)


def file_name(leaf: str, data: bytes) -> str:
    """Return the name of the file that an adapter of a composition gets beside it.

    >>> file_name("tweets", b"")
    'tweets-e3b0c442.safetensors'
    """
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", leaf).strip("-.")[:80]
    return f"{plain or 'adapter'}-{sha256(data).removeprefix('sha256:')[:8]}.safetensors"
