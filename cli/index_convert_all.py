"""adapterhub index convert-all: all adapters of a registry into one format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import bulk, format_options, options
from .entries import size
from .format_options import FormatCommand
from .opening import open_place
from .output import Output
from .progress import ProgressLine
from .words import counted

if TYPE_CHECKING:
    from ..adapter import JSON
    from ..hub.listed_conversion import Converted


@click.command(
    cls=FormatCommand,
    short_help="Convert all adapters of a registry into one format.",
    epilog="""
    adapterhub index convert-all https://adapters.example.org/hub ./for-peft --to peft
    adapterhub index convert-all ./hub ./hub --to peft --dry-run
    adapterhub index convert-all /shared/hub /shared/native --to native --ray 10.0.0.1:6379
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.option("--to", "to", required=True, metavar="FORMAT", help="Format to write: native, adapters, peft, …")
@options.jobs
@options.ray
@click.option("--dry-run", is_flag=True, help="Convert everything, and keep nothing.")
@options.offline
@format_options.told
@options.with_output
def command(
    output: Output,
    source: str,
    folder: Path,
    to: str,
    jobs: int | None,
    ray: str | None,
    dry_run: bool,
    offline: bool | None,
    told: dict[str, JSON],
) -> int:
    """Convert the adapters of a registry, all versions for each base model, into a folder that becomes a registry too.

    Names and versions are those of FROM, which may be FOLDER itself: its versions get another format then. Each is
    converted exactly or refused, as `convert` does, and read back; what is in the format already is copied. Each is a
    task of its own: what cannot be converted is told at the end with its reason, and the others are there. Stopped or
    killed, and typed again, it goes on; when FROM has grown, what is new is converted. With --ray, FOLDER is one that
    all machines of the cluster share.
    """
    from ..hub.bulk_converting import convert_all
    from ..registry import Settings
    from ..registry.runners import runner

    settings = Settings.load(offline=offline)
    where = settings.registries.get(source, source)
    opened = open_place(output, where, settings)
    with ProgressLine(output, "converting", None) as line:

        def show(done: int, total: int) -> None:
            line.total = total
            line.show(done)

        report = convert_all(
            opened,
            where,
            folder,
            runner(jobs, ray, waiting=False),
            to=to,
            options=told,
            offline=settings.offline,
            dry_run=dry_run,
            progress=show,
        )
    sizes = sum(one.artifact.total_size or 0 for one in report.done.values())
    verb = "would be converted" if dry_run else "converted"
    done = f"{counted(len(report.done), 'artifact')} {verb} to {to} ({size(sizes)})"
    converted = [_as_json(name, one) for name, one in report.done.items()]
    return bulk.conclude(
        output,
        report,
        f"artifacts were not converted to {to}",
        data={
            "source": opened.place,
            "registry": str(folder),
            "format": to,
            "dry_run": dry_run,
            "size": sizes,
            "converted": converted,
        },
        ids=list(report.done),
        summary=f"{opened.place} → {folder}: {bulk.summed(done, report, 'there already')}",
    )


def _as_json(name: str, one: Converted) -> dict[str, Any]:
    artifact = one.artifact
    return {
        "name": name,
        "path": artifact.url,
        "digest": artifact.identity,
        "size": artifact.total_size,
        "exact": one.exact,
    }
