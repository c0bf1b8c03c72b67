"""adapterhub merge: several adapters into one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ..errors import UsageError
from . import destination as where
from . import options
from .command import Documented
from .entries import size
from .options import collected
from .output import Output, style, width
from .progress import ProgressLine
from .table import facts, table

if TYPE_CHECKING:
    from ..merging import Merged, Request


@dataclass(frozen=True, slots=True)
class Wish:
    """The options that say how to merge."""

    method: str
    weights: str | None
    rank: int | None
    energy: float | None
    density: float | None
    seed: int | None
    majority: Literal["total", "frequency"]
    normalize: bool | None
    head: str | None
    compat: Literal["adapters", "peft"] | None
    allow_base_mismatch: bool
    report: bool

    def request(self) -> Request:
        """Return what is asked for.

        Raises:
            UsageError: the weights are no numbers.
        """
        from ..merging import Request

        return Request(
            method=self.method,
            weights=None if self.weights is None else numbers(self.weights),
            rank=self.rank,
            energy=self.energy,
            density=self.density,
            seed=self.seed,
            majority=self.majority,
            normalise=self.normalize,
            head=self.head,
            compat=self.compat,
            allow_base_mismatch=self.allow_base_mismatch,
            report=self.report,
        )


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers in a text, with commas between them.

    Raises:
        UsageError: one is none.

    >>> numbers("0.7, -0.3")
    (0.7, -0.3)
    """
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text!r} are no numbers", hint="write them with commas: 0.7,0.3") from None


wish = collected(
    "wish",
    Wish,
    click.option(
        "--method",
        default="linear",
        show_default=True,
        metavar="METHOD",
        help="linear, task_arithmetic, cat, svd, ties, dare_linear, dare_ties, magnitude_prune, slerp, …_svd.",
    ),
    click.option("--weights", metavar="W,W,…", help="One for each adapter.  [default: 1 over their number]"),
    click.option("--rank", type=click.IntRange(1), metavar="R", help="Rank of the result."),
    click.option(
        "--energy",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="E",
        help="In place of a rank: the part of the squared norm that is kept at each map.",
    ),
    click.option(
        "--density",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="D",
        help="Part of the entries that ties, dare_… and magnitude_prune keep.",
    ),
    click.option("--seed", type=click.IntRange(0), metavar="N", help="Of what dare_… drops.  [default: drawn]"),
    click.option(
        "--majority",
        type=click.Choice(["total", "frequency"]),
        default="total",
        show_default=True,
        help="Whether ties elects signs by sums or by numbers.",
    ),
    click.option("--normalize/--no-normalize", default=None, help="Divide the weights by their sum, or do not."),
    click.option("--head", metavar="NAME", help="mean, none, or the adapter whose head the result gets."),
    click.option(
        "--compat", type=click.Choice(["adapters", "peft"]), help="Compute what average_adapter or PEFT computes."
    ),
    options.allow_base_mismatch,
    click.option("--report", is_flag=True, help="Print the distance to the exact sum for every linear map."),
)


@click.command(
    cls=Documented,
    short_help="Merge several adapters into one.",
    epilog="""
    adapterhub merge sst2-bert imdb-bert --weights 0.7,0.3 --head sst2-bert --out sentiment@1.0.0
    adapterhub merge ./a ./b ./c --method ties --density 0.3 --rank 16 --out merged --report
    adapterhub merge ./dora-a ./dora-b --base ./model --out both.safetensors
    """,
)
@click.argument("references", nargs=-1, required=True, metavar="ADAPTER...", shell_complete=options.complete_name)
@where.out
@wish
@options.base
@options.architecture
@click.option("--name", metavar="NAME", help="Name of the result.  [default: that of --out]")
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    references: tuple[str, ...],
    out: str,
    wish: Wish,
    base: str | None,
    architecture: Path | None,
    name: str | None,
    force: bool,
    dry_run: bool,
    registry: str | None,
    offline: bool | None,
) -> None:
    """Merge several adapters into one, and write it as a native file.

    The updates of linear maps are merged as they are, in float64: adapters of different methods, ranks and places are
    added up exactly, and methods such as ties act on whole updates. The result is a LoRA; --rank or --energy bounds
    its size. What is no update of weights (bottlenecks, prefixes, layer norms, …) is averaged tensor by tensor, if all
    adapters have it alike. What cannot be merged is refused with every reason (exit code 6). Updates that depend on the
    base model's weights, such as DoRA's, need --base. docs/merging.md has the methods with their equations.
    """
    from .. import hub
    from ..converters import native
    from ..converters.spool import Spool
    from ..hub.merging import merged, source

    target = where.destination(out, name=name)
    target.check_free(force)
    row = None if architecture is None else hub.read_architecture(architecture)
    request = wish.request()
    with Spool(None if dry_run else target.path.parent) as spool:
        with ProgressLine(output, "merging", None):
            sources = [source(one, registry=registry, architecture=row, offline=offline) for one in references]
            made = merged(
                sources,
                request,
                name=target.name,
                version=target.version,
                base=base,
                architecture=row,
                offline=offline,
                keeper=spool,
            )
        parts = native.encode(made.adapter)
        if not dry_run:
            native.write(parts, target.path, force)
    print_merged(output, made, target.path, dry_run=dry_run, report=wish.report)


def print_merged(output: Output, merged: Merged, path: Path, *, dry_run: bool, report: bool) -> None:
    """Print what was made."""
    from ..adapter import to_json
    from ..registry import digest

    found = "" if dry_run else digest.of_file(path)
    data = {
        "name": merged.adapter.manifest.name,
        "path": str(path),
        "written": not dry_run,
        "digest": found or None,
        "parameters": _parameters(merged),
        "weights": list(merged.weights),
        "seed": merged.seed,
        "head": merged.head,
        "tensors": list(merged.tensors),
        "sites": [
            {"path": one.path, "rank": one.rank, "kept": one.kept, "norm": one.exact, "error": one.error}
            for one in merged.sites
        ],
        "manifest": to_json(merged.adapter.manifest),
    }
    output.result(data, ids=[str(path)], text=_text(merged, path, found, report=report))


def _parameters(merged: Merged) -> int:
    return sum(tensor.numel() for tensor in merged.adapter.tensors.values())


def _text(merged: Merged, path: Path, digest: str, *, report: bool) -> Iterator[str]:
    yield style(merged.adapter.manifest.name, sys.stdout, bold=True)
    yield from facts(_facts(merged, path, digest), width(sys.stdout))
    if report and merged.sites:
        yield ""
        rows = [
            [one.path, str(one.rank), _number(one.exact), _percent(one.error), f"{one.kept:.2%}"]
            for one in merged.sites
        ]
        yield from table(["linear map", "rank", "norm", "error", "kept"], rows, width(sys.stdout))


def _facts(merged: Merged, path: Path, digest: str) -> Iterator[tuple[str, str]]:
    from ..methods import describe

    origin = merged.adapter.manifest.provenance
    where = f"{path} ({size(path.stat().st_size)})" if digest else f"{path} (not written: dry run)"
    yield "file", where
    if origin is not None:
        yield "method", origin.method + "".join(f", {key} {value}" for key, value in origin.settings.items())
        yield "parents", ", ".join(f"{parent.weight:g} × {parent.name}" for parent in origin.parents)
    yield "computes", describe(merged.adapter.config)
    yield "maps", _maps(merged)
    yield "tensors", f"averaged one by one: {', '.join(merged.tensors)}" if merged.tensors else ""
    yield "head", merged.head if merged.head != "none" else ""
    yield "parameters", f"{_parameters(merged):,}"
    yield "digest", digest


def _maps(merged: Merged) -> str:
    """Return a line on the linear maps."""
    if not merged.sites:
        return ""
    ranks = sorted({one.rank for one in merged.sites})
    rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    kept = min(one.kept for one in merged.sites)
    text = f"{len(merged.sites)} of rank {rank}"
    if kept < 1 - 1e-9:
        text += f"; the least exact keeps {kept:.2%} of its squared norm"
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.3%}"
