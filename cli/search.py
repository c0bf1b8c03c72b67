"""adapterhub search: the adapters of the registry that fit words and filters."""

from __future__ import annotations

import click

from . import options
from .command import Documented
from .entries import print_entries
from .opening import open_place
from .output import Output


@click.command(
    cls=Documented,
    short_help="Find adapters by words, task, base model, method or licence.",
    epilog="""
    adapterhub search sentiment reviews
    adapterhub search --base bert-base-uncased --task sentiment
    """,
)
@click.argument("words", nargs=-1)
@click.option("--task", metavar="TASK", help="Task, such as sentiment or sentiment/sst-2.")
@options.any_base
@click.option("--method", metavar="METHOD", help="Method, such as double_seq_bn.")
@click.option("--license", "licence", metavar="SPDX", help="Licence of the adapter, such as Apache-2.0.")
@options.limit
@options.registry
@options.with_output
def command(
    output: Output,
    words: tuple[str, ...],
    task: str | None,
    base: str | None,
    method: str | None,
    licence: str | None,
    limit: int | None,
    registry: str | None,
) -> None:
    """Find adapters of the registry.

    Every word has to begin a word of what the index says of the adapter (`sst` finds SST-2, `double_seq` finds
    double_seq_bn), and every filter has to fit, those for base model and method in one file; capitals, accents and
    punctuation do not matter. Adapters with the words in their names and aliases come first, then those with all words
    in name, summary and task. That nothing is found is no error.
    """
    index = open_place(output, registry).index
    names = index.search(words, task=task, base=base, method=method, license=licence)
    if not print_entries(output, index, names, limit, base):
        output.note("no adapter fits")
