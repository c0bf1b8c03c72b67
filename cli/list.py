"""adapterhub list: the adapters of the registry."""

from __future__ import annotations

import click

from . import options
from .entries import print_entries
from .opening import open_place
from .output import Output


@click.command(short_help="List the adapters of the registry.")
@options.limit
@options.registry
@options.with_output
def command(output: Output, limit: int | None, registry: str | None) -> None:
    """List the adapters of the registry, one per line.

    Each with its highest version that is not yanked, and the first base model of that version; `+1` says that there is
    one more. `adapterhub show NAME` tells all.
    """
    opened = open_place(output, registry)
    print_entries(output, opened.index, opened.index.names(), limit)
    if not len(opened.index):
        output.note(f"the registry {opened.place} is empty")
