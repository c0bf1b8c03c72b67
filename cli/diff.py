"""adapterhub diff: two adapters side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .command import Documented
from .output import Output, style, width
from .table import facts, table

if TYPE_CHECKING:
    from ..merging import Comparison, MapDifference, TensorDifference


@click.command(
    cls=Documented,
    short_help="Compare two adapters, place by place.",
    epilog="""
    adapterhub diff sst2-bert@1.0.0 sst2-bert@1.1.0
    adapterhub diff ./before ./after.safetensors --plot diff.png
    """,
)
@click.argument("first", metavar="ADAPTER", shell_complete=options.complete_name)
@click.argument("second", metavar="ADAPTER", shell_complete=options.complete_name)
@options.base
@options.architecture
@options.allow_base_mismatch
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw the table as a picture.")
@click.option("--force", is_flag=True, help="Replace --plot if it is there.")
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    first: str,
    second: str,
    base: str | None,
    architecture: Path | None,
    allow_base_mismatch: bool,
    plot: Path | None,
    force: bool,
    registry: str | None,
    offline: bool | None,
) -> None:
    """Compare two adapters: of each update of a linear map the norms, the cosine, and the directions both share.

    `shared` is the mean of the squared cosines of the principal angles: 1 where one update writes to (or reads from)
    directions of the other alone, 0 where they have none in common. All angles are in --json. What is no update of a
    linear map is compared tensor by tensor. Updates that depend on the base model's weights need --base.
    """
    from .. import hub
    from ..hub.merging import compared, source
    from .picture import draw

    row = None if architecture is None else hub.read_architecture(architecture)
    sources = [source(one, registry=registry, architecture=row, offline=offline) for one in (first, second)]
    found = compared(
        sources[0], sources[1], base=base, architecture=row, allow_base_mismatch=allow_base_mismatch, offline=offline
    )
    if plot is not None:
        draw(found, plot, force=force)
    output.result(as_json(found), ids=[one.path for one in found.maps if one.difference], text=_text(found))


def as_json(found: Comparison) -> dict[str, object]:
    """Return everything for a program."""
    return {
        "adapters": list(found.names),
        "same": found.same,
        "maps": [_map_json(one) for one in found.maps],
        "tensors": [_tensor_json(one) for one in found.tensors],
    }


def _map_json(one: MapDifference) -> dict[str, object]:
    return {
        "path": one.path,
        "ranks": list(one.ranks),
        "norms": list(one.norms),
        "difference": one.difference,
        "cosine": one.cosine,
        "angles": {"writes": list(one.writes), "reads": list(one.reads)},
    }


def _tensor_json(one: TensorDifference) -> dict[str, object]:
    return {"key": one.key, "norms": list(one.norms), "difference": one.difference, "cosine": one.cosine}


def _text(found: Comparison) -> Iterator[str]:
    yield style(" and ".join(found.names), sys.stdout, bold=True)
    yield from facts(_facts(found), width(sys.stdout))
    if found.maps:
        yield ""
        headers = ["linear map", "ranks", "norms", "difference", "cosine", "shared writes", "shared reads"]
        yield from table(headers, map(_map_row, found.maps), width(sys.stdout), spare=headers[:0:-1])
    if found.tensors:
        yield ""
        headers = ["tensor", "norms", "difference", "cosine"]
        yield from table(headers, map(_tensor_row, found.tensors), width(sys.stdout), spare=headers[:0:-1])


def _facts(found: Comparison) -> Iterator[tuple[str, str]]:
    yield "same", "yes, every value" if found.same else "no"
    changed = sum(one.difference > 0 for one in found.maps)
    yield "linear maps", f"{len(found.maps)}, {changed} with another update" if found.maps else ""
    others = sum(one.difference != 0 for one in found.tensors)
    yield "tensors", f"{len(found.tensors)} others, {others} that differ" if found.tensors else ""


def _map_row(one: MapDifference) -> list[str]:
    return [
        one.path,
        f"{one.ranks[0]}, {one.ranks[1]}",
        f"{one.norms[0]:.4g}, {one.norms[1]:.4g}",
        f"{one.difference:.4g}",
        _cosine(one.cosine),
        _cosine(one.shared_writes),
        _cosine(one.shared_reads),
    ]


def _tensor_row(one: TensorDifference) -> list[str]:
    norms = ", ".join("none" if norm is None else f"{norm:.4g}" for norm in one.norms)
    return [one.key, norms, "" if one.difference is None else f"{one.difference:.4g}", _cosine(one.cosine)]


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
