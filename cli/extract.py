"""adapterhub extract: a LoRA out of a fine-tuned model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import destination as where
from . import options
from .command import Documented
from .entries import size
from .output import Output, style, width
from .progress import ProgressLine
from .table import facts, table

if TYPE_CHECKING:
    from ..merging import Extracted


@click.command(
    cls=Documented,
    short_help="Take a LoRA out of a fine-tuned model.",
    epilog="""
    adapterhub extract --base ./base --tuned ./tuned --rank 16 --out learnt@1.0.0
    adapterhub extract --base bert-base-uncased --tuned ./tuned --energy 0.9 --without-head --out learnt
    """,
)
@click.option("--base", required=True, metavar="MODEL", help="Base model on this machine: a folder, or a Hub id.")
@click.option("--tuned", required=True, metavar="MODEL", help="The model that was made of it by training.")
@click.option("--rank", type=click.IntRange(1), metavar="R", help="Rank of the update of each linear map.")
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="E",
    help="In place of a rank: the part of the squared norm of each difference that is kept.",
)
@where.out
@click.option("--name", metavar="NAME", help="Name of the adapter.  [default: that of --out]")
@click.option("--base-id", metavar="ID", help="Hub id of the base model, where --base is a folder.")
@click.option("--without-head", is_flag=True, help="Leave out weights that only the tuned model has.")
@options.architecture
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@options.with_output
def command(
    output: Output,
    base: str,
    tuned: str,
    rank: int | None,
    energy: float | None,
    out: str,
    name: str | None,
    base_id: str | None,
    without_head: bool,
    architecture: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Take what a fine-tuned model has learnt out of it, as a LoRA of its base model.

    The difference of each linear map is brought to a rank, or to the smallest one that keeps a part of its squared
    norm, by singular values. Layer norms, biases, embeddings, weights that two modules share and all else that no LoRA
    holds are kept whole if they differ, and named with their sizes. Weights that only the tuned model has (a head) are
    refused by name, or left out with --without-head; so are buffers that differ, which no adapter holds. Both models
    must be there as safetensors; they are read one weight at a time.
    """
    from .. import hub
    from ..converters import native
    from ..hub.extracting import extract

    target = where.destination(out, name=name)
    target.check_free(force)
    with ProgressLine(output, "extracting", 1) as line:

        def report(done: int, total: int) -> None:
            line.total = total
            line.show(done)

        found = extract(
            base,
            tuned,
            name=target.name,
            version=target.version,
            rank=rank,
            energy=energy,
            without_head=without_head,
            base_id=base_id,
            architecture=None if architecture is None else hub.read_architecture(architecture),
            on_progress=report,
        )
    parts = native.encode(found.adapter)
    if not dry_run:
        native.write(parts, target.path, force)
    print_extracted(output, found, target.path, dry_run=dry_run)


def print_extracted(output: Output, found: Extracted, path: Path, *, dry_run: bool) -> None:
    """Print what was taken out."""
    from ..adapter import to_json
    from ..registry import digest

    identity = "" if dry_run else digest.of_file(path)
    data = {
        "name": found.adapter.manifest.name,
        "path": str(path),
        "written": not dry_run,
        "digest": identity or None,
        "sites": [
            {"path": one.path, "rank": one.rank, "kept": one.kept, "norm": one.exact, "error": one.error}
            for one in found.sites
        ],
        "kept_whole": [{"path": one.path, "values": one.values, "norm": one.norm} for one in found.kept],
        "same": found.same,
        "manifest": to_json(found.adapter.manifest),
    }
    output.result(data, ids=[str(path)], text=_text(found, path, identity))


def _text(found: Extracted, path: Path, identity: str) -> Iterator[str]:
    yield style(found.adapter.manifest.name, sys.stdout, bold=True)
    yield from facts(_facts(found, path, identity), width(sys.stdout))
    if found.sites:
        yield ""
        rows = [[one.path, str(one.rank), f"{one.exact or 0:.4g}", f"{one.kept:.2%}"] for one in found.sites]
        yield from table(["linear map", "rank", "norm", "energy kept"], rows, width(sys.stdout))
    if found.kept:
        yield ""
        wholes = [[one.path, f"{one.values:,}", f"{one.norm:.4g}"] for one in found.kept]
        yield from table(["no LoRA holds, kept whole", "values", "norm"], wholes, width(sys.stdout))


def _facts(found: Extracted, path: Path, identity: str) -> Iterator[tuple[str, str]]:
    where = f"{path} ({size(path.stat().st_size)})" if identity else f"{path} (not written: dry run)"
    yield "file", where
    yield "maps", f"{len(found.sites)} differ" if found.sites else "none differs"
    values = sum(one.values for one in found.kept)
    yield "kept whole", f"{len(found.kept)} parameters with {values:,} values" if found.kept else ""
    yield "the same", f"{found.same} parameters"
    yield "digest", identity
