"""adapterhub convert: an adapter from one format into another."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import format_options, options
from .entries import size
from .format_options import FormatCommand
from .output import Output, width
from .table import facts, table

if TYPE_CHECKING:
    from ..adapter import JSON
    from ..converters.report import Report

MOST_SHOWN = 8
"""So many names of a list are shown to people; JSON has them all."""


@click.command(
    cls=FormatCommand,
    short_help="Convert an adapter into another format, exactly or not at all.",
    epilog="""
    adapterhub convert ./lora-folder --to peft --out ./for-peft
    adapterhub convert sst2-bert --to adapters --out ./sst2 --verify
    adapterhub convert ./loha --to peft --out ./lora --approximate lora --energy 0.99
    adapterhub convert ./new --to peft --peft-version 0.9 --out ./for-an-old-server
    adapterhub convert my-stack@1.0.0 --to adapters --out ./setup-folder
    adapterhub convert ./loralib.pt --alpha 16 --to native --out ./mine.safetensors
    """,
)
@options.reference
@click.option("--to", "to", required=True, metavar="FORMAT", help="Format to write: native, adapters, peft, …")
@click.option(
    "--out", "destination", required=True, type=click.Path(path_type=Path), metavar="PATH", help="Where to write it."
)
@click.option("--from", "from_", metavar="FORMAT", help="Format of the source, where it is not to be found out.")
@click.option(
    "--base",
    metavar="MODEL",
    help="Base model, a folder or Hub id: some adapters can be said only in numbers that depend on it.",
)
@options.architecture
@click.option("--name", metavar="NAME", help="What the adapter is called in the target.")
@click.option("--approximate", type=click.Choice(["lora"]), help="Make a LoRA of it, as good as rank or energy allow.")
@click.option("--rank", type=click.IntRange(1), metavar="R", help="Rank of every update of the approximation.")
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="E",
    help="Share of the squared singular values that every update keeps, in place of a rank.",
)
@click.option("--verify", is_flag=True, help="Also run both sides on the base model and compare their outputs.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@options.registry
@options.offline
@format_options.told
@options.with_output
def command(
    output: Output,
    reference: str,
    to: str,
    destination: Path,
    from_: str | None,
    base: str | None,
    architecture: Path | None,
    name: str | None,
    approximate: str | None,
    rank: int | None,
    energy: float | None,
    verify: bool,
    dry_run: bool,
    force: bool,
    registry: str | None,
    offline: bool | None,
    told: dict[str, JSON],
) -> None:
    """Convert an adapter into another format, and tell what became of every tensor and field.

    The target computes what the source does, but for rounding; what its format cannot say is refused with every reason
    (exit code 6), unless --approximate asks for less. --verify runs both sides: on --base, else on the adapter's own
    base model if it is on this machine, else on a tiny random one. The source is never changed.

    A composition, or a setup folder of the library adapters, becomes the other one of these, with all its adapters.
    """
    from .. import hub

    report = hub.convert(
        reference,
        destination,
        to=to,
        from_=from_,
        base=base,
        name=name,
        approximate=approximate,
        rank=rank,
        energy=energy,
        verify=verify,
        dry_run=dry_run,
        force=force,
        registry=registry,
        offline=offline,
        architecture=None if architecture is None else hub.read_architecture(architecture),
        options=told,
    )
    output.result(report.to_json(), ids=[report.target.path], text=_text(report))


def _text(report: Report) -> Iterator[str]:
    """Yield what people read."""
    yield from facts(_facts(report), width(sys.stdout))
    if report.layers:
        yield ""
        rows = [
            [layer.path, str(layer.rank), f"{layer.norm:.3g}", f"{layer.error:.2%}"]
            for layer in sorted(report.layers, key=lambda layer: -layer.error)[:MOST_SHOWN]
        ]
        yield from table(["linear map", "rank", "norm", "error"], rows, width(sys.stdout))
        if report.layers[MOST_SHOWN:]:
            yield f"… and {len(report.layers) - MOST_SHOWN} more that are better"


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    tensors, fields = report.tensors, report.fields
    yield "adapter", f"{report.adapter}: {' + '.join(report.methods)} for {report.architecture}"
    yield "composition", report.composition
    yield "source", f"{report.source.format}, {report.source.path}"
    sizes = sum(report.target.files.values())
    would = "" if report.written else " (not written: dry run)"
    yield "target", f"{report.target.format}, {report.target.path}{f', {size(sizes)}' if sizes else ''}{would}"
    counts = {
        "carried": tensors.carried,
        "renamed": len(tensors.renamed),
        "transformed": len(tensors.transformed),
    }
    done = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    yield "tensors", f"{tensors.read} read, {tensors.written} written: {done or 'none'}"
    yield "in extra", _shown([field.partition(": ")[2] for field in fields.kept])
    yield "beside", _shown(fields.beside)
    yield "exact", _exactness(report)
    yield "verified", _verification(report)
    yield "serve with", " ".join(report.advice)


def _exactness(report: Report) -> str:
    if report.exact:
        return "yes"
    worst = max((layer.error for layer in report.layers), default=None)
    return "no" if worst is None else f"no: up to {worst:.2%} of the change of a weight are missing"


def _verification(report: Report) -> str:
    found = report.verified
    if found is None:
        return ""
    effect = "" if found.effect is None else f"; the adapter itself changes it by {found.effect:.2g}"
    return f"{found.output} differs by {found.difference:.2g} on {found.base}{effect}"


def _shown(names: Sequence[str]) -> str:
    more = f", … {len(names) - MOST_SHOWN} more" if names[MOST_SHOWN:] else ""
    return ", ".join(names[:MOST_SHOWN]) + more
