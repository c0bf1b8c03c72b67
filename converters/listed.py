"""Adapters that an index lists, in whatever files: as a native file that says of itself what the index says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import BaseMismatchError


def write(source: Path, target: Path, *, name: str, version: str, base: str, family: str, of: str) -> None:
    """Write the adapter at source as a native file to target.

    Args:
        source: a file or folder of any format.
        target: where to.
        name: what the index calls it.
        version: its version there.
        base: id of the base model there.
        family: architecture of the base model there.
        of: digest of the source, for its provenance.

    Raises:
        FormatError, UnsupportedError: source cannot be read.
        BaseMismatchError: it is for another model family.
    """
    from ..architectures import by_name
    from . import read
    from . import write as write_adapter

    adapter = read(source, row=by_name(family))
    manifest = adapter.manifest
    if manifest.base.architecture != family:
        raise BaseMismatchError(
            f"{name}@{version} is for models of the family {manifest.base.architecture}, the index says {family}",
            hint="the index is wrong; with its format named, the files are given as they are",
        )
    said = replace(
        manifest,
        name=name,
        version=version,
        base=replace(manifest.base, id=base),
        provenance=manifest.provenance and replace(manifest.provenance, digest=of),
    )
    write_adapter(replace(adapter, manifest=said), target)
