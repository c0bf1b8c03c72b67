"""adapterhub run: what an adapter says of texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from . import options
from .command import Documented
from .opening import open_lock
from .output import Output, is_terminal, style, width
from .progress import ProgressLine
from .table import cut, one_line, pad

if TYPE_CHECKING:
    from ..hub import Verdict

DIGITS = 6
"""Decimals of a probability; it is computed in single precision."""


@click.command(
    cls=Documented,
    short_help="Classify texts with an adapter.",
    epilog="""
    adapterhub run sst2-bert "A gorgeous, witty, seductive movie."
    adapterhub run sst2-bert --file reviews.txt --json > verdicts.jsonl
    adapterhub run "average(tweets-bert, editorials-bert)" --head tweets-bert "What a day!"
    head -100 reviews.txt | adapterhub run ./mine.safetensors -q | sort | uniq -c
    """,
)
@options.reference
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--file", "file", type=click.Path(path_type=Path), metavar="FILE", help="Read the texts from a file, one per line."
)
@options.base
@options.architecture
@options.allow_base_mismatch
@options.head
@options.batch_size
@options.registry
@options.frozen
@options.offline
@options.with_output
def command(
    output: Output,
    reference: str,
    texts: tuple[str, ...],
    file: Path | None,
    base: str | None,
    architecture: Path | None,
    allow_base_mismatch: bool,
    head: str | None,
    batch_size: int,
    registry: str | None,
    frozen: bool,
    offline: bool | None,
) -> None:
    """Classify texts with an adapter, or a composition of adapters, on its base model.

    ADAPTER is a name or a path as in `pull`, or a composition that was not saved, such as "stack(a, b)".

    The texts stand on the command line, in a file, or come from standard input, one per line. For each, a line with
    the label, its probability and the text is printed; with --json an object with all probabilities; with -q the
    label. Lines come out in the order of the texts. With --batch-size 1 each text is answered before the next is read.
    """
    from .. import hub

    source, total = _texts(texts, file)
    with ProgressLine(output, "loading", None):
        opened = hub.open_adapter(
            reference,
            base=base,
            registry=open_lock(registry) if frozen else registry,
            allow_base_mismatch=allow_base_mismatch,
            offline=offline,
            architecture=None if architecture is None else hub.read_architecture(architecture),
            head=head,
        )
    if total is None and is_terminal(sys.stdin):
        output.note("one text per line; end with Ctrl-D")
        batch_size = 1
    labels = opened.manifest.labels
    verdicts = hub.classify(source, base=opened.base, labels=labels, batch_size=batch_size)
    cut_off = print_verdicts(output, verdicts, labels, total)
    if cut_off:
        output.warning(f"{cut_off} of the texts reach the length that the model can read; what is beyond was ignored")


def print_verdicts(output: Output, verdicts: Iterable[Verdict], labels: Iterable[str], total: int | None) -> int:
    """Print the verdicts as they come, and return how many texts were perhaps cut."""
    column = max((len(label) for label in labels), default=1)
    cut_off = 0
    # On a terminal the lines themselves show how far it is.
    with ProgressLine(output, "running", total, hidden=is_terminal(sys.stdout)) as progress:
        for done, verdict in enumerate(verdicts, 1):
            cut_off += verdict.cut
            print_verdict(output, verdict, column)
            progress.show(done)
    return cut_off


def print_verdict(output: Output, verdict: Verdict, column: int) -> None:
    """Print one verdict in the form that was asked for."""
    if output.as_json:
        scores = {label: round(score, DIGITS) for label, score in verdict.scores.items()}
        output.json_line({"text": verdict.text, "label": verdict.label, "scores": scores})
        return
    if output.quiet:
        output.line(verdict.label)
        return
    columns = width(sys.stdout)
    label = style(pad(verdict.label, column), sys.stdout, bold=True)
    text = one_line(verdict.text)
    text = text if columns is None else cut(text, max(8, columns - column - 9))
    output.line(f"{label}  {verdict.scores[verdict.label]:5.3f}  {text}")


def _texts(texts: tuple[str, ...], file: Path | None) -> tuple[Iterable[str], int | None]:
    """Return the texts and, if it is known, how many they are."""
    if texts and file:
        raise UsageError("texts and --file are given", hint="give one of them")
    if texts:
        return texts, len(texts)
    if file and str(file) != "-":
        from ..loader.data import read_lines

        return read_lines(file), sum(1 for _ in read_lines(file))
    return _lines(), None


def _lines() -> Iterator[str]:
    """Yield the lines of standard input that hold more than blanks."""
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
