"""adapterhub search: the adapters of the registry that fit words and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import Documented
from .entries import bases, print_entries
from .output import Output

if TYPE_CHECKING:
    from ..registry import Artifact, Entry


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
@click.option("--base", metavar="MODEL", help="Base model: its Hub id, what follows the slash, or its architecture.")
@click.option("--method", metavar="METHOD", help="Method, such as double_seq_bn.")
@click.option("--license", "licence", metavar="SPDX", help="Licence of the adapter, such as Apache-2.0.")
@options.registry
@options.with_output
def command(
    output: Output,
    words: tuple[str, ...],
    task: str | None,
    base: str | None,
    method: str | None,
    licence: str | None,
    registry: str | None,
) -> None:
    """Find adapters of the registry.

    Every word has to occur somewhere in what the index says of the adapter, and every filter has to fit; capitals do
    not matter. Adapters with a word in their name come first. That nothing is found is no error.
    """
    from ..registry import open_registry

    index = open_registry(registry).index
    wanted = [word.casefold() for word in words]
    found = [
        (name, entry)
        for name, entry in index.adapters.items()
        if all(word in text_of(name, entry) for word in wanted)
        and (task is None or fits_task(entry, task))
        and (licence is None or entry.license.casefold() == licence.casefold())
        and any(fits(artifact, base, method) for release in entry.versions.values() for artifact in release.artifacts)
    ]
    found.sort(key=lambda pair: (not any(word in pair[0].casefold() for word in wanted), pair[0]))
    print_entries(output, found)
    if not found:
        output.note("no adapter fits")


def text_of(name: str, entry: Entry) -> str:
    """Return everything that words are looked up in."""
    artifacts = [artifact for release in entry.versions.values() for artifact in release.artifacts]
    parts = [name, entry.summary, entry.task, entry.license, *entry.aliases, *entry.language]
    return "\n".join([*parts, *bases(artifacts), *(artifact.method for artifact in artifacts)]).casefold()


def fits_task(entry: Entry, task: str) -> bool:
    """Return whether the entry's task is this one or one of its kind."""
    return f"{entry.task.casefold()}/".startswith(f"{task.casefold().rstrip('/')}/")


def fits(artifact: Artifact, base: str | None, method: str | None) -> bool:
    """Return whether an artifact is for the base model and of the method; None fits all."""
    parts = [part.partition("[")[0] for part in artifact.method.casefold().split("+")]
    return (base is None or base.casefold() in bases([artifact])) and (
        method is None or method.casefold() in (*parts, artifact.method.casefold())
    )
