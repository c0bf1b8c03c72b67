"""File formats of adapters, one Format each, and the table that lists them.

Reading goes file → Parts → Adapter, writing the other way (format.py). A new format is one file with a FORMAT and one
entry in FORMATS. Importing this package loads no torch, and a format only when it is needed: what a native file says of
itself (native_head.py) is read without them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, NotFoundError, UnsupportedError, UsageError
from .native_head import read_manifest
from .options import check, told

if TYPE_CHECKING:
    from ..adapter import JSON, Adapter
    from ..architectures import Architecture
    from .format import Format, KnownBase, Parts

    FORMATS: tuple[Format, ...]

__all__ = [
    "FORMATS",
    "Format",
    "Parts",
    "by_name",
    "detect",
    "read",
    "read_manifest",
    "write",
]


@functools.cache
def _formats() -> tuple[Format, ...]:
    """Return FORMATS, the first of which that knows what lies at a path reads it."""
    from . import adapters, diffusers, gguf, kohya, mlx, native, peft, raw, vllm

    # A safetensors file is a native one unless its header says otherwise; a folder of MLX-LM has a document that is
    # called as those of the two others.
    return (
        diffusers.FORMAT,
        kohya.FORMAT,
        raw.FORMAT,
        native.FORMAT,
        mlx.FORMAT,
        adapters.FORMAT,
        peft.FORMAT,
        gguf.FORMAT,
        vllm.FORMAT,
    )


def __getattr__(name: str) -> Any:
    """Return the table, or a class of format.py, when it is first asked for."""
    if name == "FORMATS":
        return _formats()
    if name in ("Format", "Parts"):
        from .format import Format, Parts

        return {"Format": Format, "Parts": Parts}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    finite: bool = True,
    counted: bool = True,
    row: Architecture | None = None,
    base: KnownBase | None = None,
    options: Mapping[str, JSON] | None = None,
) -> Adapter:
    """Return the adapter that lies at a path.

    Args:
        path: a file or a folder.
        format: name of its format, or None to find it out.
        finite: refuse tensors that hold NaN or infinity.
        counted: refuse a native file whose tensors are not those of its configuration; for callers that hold them
            against the base model, which says more. Other formats are always counted.
        row: the model family that it is to meet; decides only where the format does not say the adapter's own.
        base: the base model that it is to meet, where a format leaves to it what its tensors mean.
        options: what the files do not say themselves, such as the alpha of a plain state dict; see Format.options.

    Raises:
        NotFoundError: there is nothing at the path.
        FormatError: what is there is malformed, incomplete or hostile; every fault is listed.
        UnsupportedError: it is an adapter that this version does not read.
        UsageError: no format has this name, an option is none of the format's, or one is missing.
    """
    from .values import check_finite

    source = Path(path)
    chosen = detect(source) if format is None else by_name(format)
    said = check(options or {}, chosen, "reads")
    adapter = chosen.decode(dataclasses.replace(chosen.read(source), row=row, base=base, options=said))
    if counted:
        chosen.account(adapter)
    if finite:
        check_finite(adapter.tensors, str(source))
    return adapter


def write(
    adapter: Adapter,
    path: str | os.PathLike[str],
    format: str = "native",  # noqa: A002
    force: bool = False,
    base: KnownBase | None = None,
    options: Mapping[str, JSON] | None = None,
) -> Path:
    """Write an adapter to a path and return it: a file or a folder, as the format has it.

    Args:
        adapter: the adapter.
        path: where to.
        format: name of the format.
        force: overwrite what is there.
        base: the base model, where a format can say what the adapter computes only in other numbers that depend on it.
        options: what the format wants to be told besides, as in read.

    Raises:
        StateError: something is there and force is not set, or it cannot be written.
        UnsupportedError: the format has no word for what the adapter computes.
        UsageError: no format has this name, or an option is none of the format's.
    """
    chosen = by_name(format)
    adapter = told(adapter, chosen.name, check(options or {}, chosen, "writes"))
    return chosen.write(chosen.encode(chosen.rewritten(adapter, base)), Path(path), force)


def by_name(name: str) -> Format:
    """Return the format called name.

    Raises:
        UsageError: there is none.
    """
    for row in _formats():
        if row.name == name:
            return row
    raise UsageError(f"no format is called {name!r}", hint=f"known are {', '.join(row.name for row in _formats())}")


def detect(path: str | os.PathLike[str]) -> Format:
    """Return the format of what lies at a path, by names and first bytes.

    Raises:
        NotFoundError: there is nothing at the path.
        UnsupportedError: it is a composition of adapters, or of another known kind that is no adapter.
        FormatError: it is of no known kind.
    """
    from ..composition_file import document_of
    from . import setup_folder

    source = Path(path)
    if not os.path.lexists(source):
        raise NotFoundError(f"there is no file or folder {source}", hint="check the path")
    for row in _formats():
        if row.detect(source):
            return row
    from . import files

    opened = files.opened(source)
    is_setup = opened is not None and setup_folder.DOCUMENT in opened.names()
    if is_setup or setup_folder.detect(source) or document_of(source) is not None:
        raise UnsupportedError(
            f"{source} holds a composition of several adapters",
            hint="`adapterhub run`, AdapterSet.load and `adapterhub convert` take it as it is",
        )
    raise FormatError(f"{source} holds no adapter of a known format", hint=_READS)


_READS = (
    "it reads native files (.safetensors) and folders of adapters or PEFT with adapter_config.json, or zips of them"
)
