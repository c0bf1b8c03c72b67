"""adapterhub pull: an adapter onto this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .entries import size
from .opening import open_for, receiving
from .output import Output

if TYPE_CHECKING:
    from ..registry import Artifact, Pulled, Reference, Registry
    from ..registry.receiving import Progress


@click.command(short_help="Fetch an adapter and print the path of its file.")
@options.reference
@options.base
@click.option("--format", "format_", metavar="FORMAT", help="File format, where a version has several.")
@click.option("--method", metavar="METHOD", help="Method, where several adapters have the name, such as houlsby.")
@options.registry
@options.frozen
@options.offline
@options.with_output
def command(
    output: Output,
    reference: str,
    base: str | None,
    format_: str | None,
    method: str | None,
    registry: str | None,
    frozen: bool,
    offline: bool | None,
) -> None:
    """Fetch an adapter, check its digest, and print the path of its file or folder.

    ADAPTER is a name with or without a version (`sst2-bert`, `sst2-bert@1.0.0`, `sst2-bert@^1`), a repository on the
    Hugging Face Hub (`hf://user/repo@revision`), or a path that begins with ./ or /. All adapters of a composition are
    fetched with it. What was fetched once is there offline. `adapterhub help references` tells all forms.

    An adapter of the archived AdapterHub is converted into a native file; `--format adapters` gives the archive itself.
    Names that its library knew, such as `sentiment/sst-2@ukp`, go with --base, and --method where that matters.
    """
    from ..registry import Reference

    parsed = Reference.parse(reference)
    opened = open_for(output, parsed, registry, offline=offline, frozen=frozen)
    with receiving(output) as progress:
        pulled = _pulled(parsed, opened, base, format_, method, offline, progress)
    what = f"{pulled.name}@{pulled.version}" if pulled.version else str(parsed)
    artifact, content = pulled.artifact, pulled.content or pulled.artifact
    if content is not None:
        known = "already here" if pulled.cached else f"{size(_size(pulled))} fetched"
        output.note(f"{what}{_for(artifact)}: {known}, {content.identity} checked")
    if artifact is not None and pulled.content is not None:
        output.note(f"it came from {pulled.content.url}, of which the index has no digest; the one shown is the Hub's")
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


def _pulled(
    reference: Reference,
    registry: Registry | None,
    base: str | None,
    format_: str | None,
    method: str | None,
    offline: bool | None,
    progress: Progress,
) -> Pulled:
    """Return what was pulled; what converts adapters is loaded only where it is needed."""
    from ..registry import Store, pull

    if format_ == "native" or method is not None:
        from ..hub.fetching import fetch

        return fetch(
            reference,
            registry=registry,
            base=base,
            format=format_,
            method=method,
            offline=offline,
            progress=progress,
        )
    pulled = pull(reference, registry=registry, base=base, format=format_, offline=offline, progress=progress)
    if format_ is not None or not pulled.packed:
        return pulled
    from ..converters import listed
    from ..converters.identity import own_version
    from ..registry.native_copies import native

    return native(pulled, Store(), listed.write, by=own_version())


def _for(artifact: Artifact | None) -> str:
    return f" for {artifact.base.id}" if artifact else ""


def _size(pulled: Pulled) -> int:
    content = pulled.content or pulled.artifact
    known = content.total_size if content is not None else None
    return pulled.path.stat().st_size if known is None else known
