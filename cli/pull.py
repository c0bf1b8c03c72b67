"""adapterhub pull: an adapter onto this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .entries import size
from .opening import open_for, receiving
from .output import Output

if TYPE_CHECKING:
    from ..registry import Artifact, Pulled


@click.command(short_help="Fetch an adapter and print the path of its file.")
@options.reference
@options.base
@click.option("--format", "format_", metavar="FORMAT", help="File format, where a version has several.")
@options.registry
@options.frozen
@options.offline
@options.with_output
def command(
    output: Output,
    reference: str,
    base: str | None,
    format_: str | None,
    registry: str | None,
    frozen: bool,
    offline: bool | None,
) -> None:
    """Fetch an adapter, check its digest, and print the path of its file or folder.

    ADAPTER is a name with or without a version (`sst2-bert`, `sst2-bert@1.0.0`, `sst2-bert@^1`), a repository on the
    Hugging Face Hub (`hf://user/repo@revision`), or a path that begins with ./ or /. All adapters of a composition are
    fetched with it. What was fetched once is there offline. `adapterhub help references` tells all forms.
    """
    from ..registry import Reference, pull

    parsed = Reference.parse(reference)
    opened = open_for(output, parsed, registry, offline=offline, frozen=frozen)
    with receiving(output) as progress:
        pulled = pull(parsed, registry=opened, base=base, format=format_, offline=offline, progress=progress)
    what = f"{pulled.name}@{pulled.version}" if pulled.version else str(parsed)
    artifact, content = pulled.artifact, pulled.artifact or pulled.content
    if content is not None:
        known = "already here" if pulled.cached else f"{size(content.total_size)} fetched"
        output.note(f"{what}{_for(artifact)}: {known}, {content.identity} checked")
    for leaf, part in pulled.parts.items():
        known = "already here" if part.cached else f"{size(_size(part))} fetched"
        output.note(f"  {leaf}: {known}, digest checked")
    data = {
        "name": pulled.name,
        "version": pulled.version,
        "path": str(pulled.path),
        "cached": pulled.cached,
        "digest": pulled.digest,
        "base": artifact.base.id if artifact else None,
        "format": artifact.format if artifact else None,
        **({"adapters": {leaf: str(part.path) for leaf, part in pulled.parts.items()}} if pulled.parts else {}),
    }
    output.result(data, ids=[str(pulled.path)], text=[str(pulled.path)])


def _for(artifact: Artifact | None) -> str:
    return f" for {artifact.base.id}" if artifact else ""


def _size(pulled: Pulled) -> int:
    content = pulled.artifact or pulled.content
    return content.total_size if content is not None else pulled.path.stat().st_size
