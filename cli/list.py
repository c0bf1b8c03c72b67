"""adapterhub list: the adapters of the registry."""

from __future__ import annotations

import click

from . import options
from .entries import print_entries
from .output import Output


@click.command(short_help="List the adapters of the registry.")
@options.registry
@options.with_output
def command(output: Output, registry: str | None) -> None:
    """List the adapters of the registry, one per line.

    Each with its highest version that is not yanked, and the first base model of that version; `+1` says that there is
    one more. `adapterhub show NAME` tells all.
    """
    from ..registry import open_registry

    opened = open_registry(registry)
    print_entries(output, [(name, opened.index.adapters[name]) for name in sorted(opened.index.adapters)])
    if not len(opened.index.adapters):
        output.note(f"the registry {opened.location} is empty")
