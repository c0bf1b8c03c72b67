"""adapterhub list: the adapters of the registry."""

from __future__ import annotations

import click

from . import options
from .command import Documented
from .entries import print_entries
from .opening import open_place
from .output import Output


@click.command(
    cls=Documented,
    short_help="List the adapters of the registry.",
    epilog="""
    adapterhub list --base bert-base-uncased
    """,
)
@options.any_base
@options.limit
@options.registry
@options.with_output
def command(output: Output, base: str | None, limit: int | None, registry: str | None) -> None:
    """List the adapters of the registry, one per line.

    Each with its highest version that is not yanked, and the first base model of that version, or the one that was
    asked for; `+1` says that there is one more. `adapterhub show NAME` tells all, `adapterhub search` finds some.
    """
    opened = open_place(output, registry)
    names = opened.index.names() if base is None else opened.index.search(base=base)
    shown = print_entries(output, opened.index, names, limit, base)
    if not len(opened.index):
        output.note(f"the registry {opened.place} is empty")
    elif base is not None and not shown:
        output.note("no adapter fits")
