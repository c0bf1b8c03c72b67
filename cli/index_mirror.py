"""adapterhub index mirror: all adapters of a registry into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import bulk, options
from .command import Documented
from .entries import size
from .opening import open_place
from .output import Output
from .progress import ProgressLine
from .words import counted

if TYPE_CHECKING:
    from ..registry.mirroring import Copied
    from ..registry.tasks import Report


@click.command(
    cls=Documented,
    short_help="Copy all adapters of a registry into a folder.",
    epilog="""
    adapterhub index mirror https://adapters.example.org/hub ./hub
    adapterhub index mirror hf://acme/adapters ./hub --jobs 16 --dry-run
    adapterhub index mirror s3://bucket/hub /shared/hub --ray 10.0.0.1:6379
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@options.jobs
@options.ray
@click.option("--keep-urls", is_flag=True, help="Copy only the registry's own files; other URLs stay as they are.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and write nothing.")
@options.offline
@options.with_output
def command(
    output: Output,
    source: str,
    folder: Path,
    jobs: int | None,
    ray: str | None,
    keep_urls: bool,
    dry_run: bool,
    offline: bool | None,
) -> int:
    """Copy the adapters of a registry, all versions and files of them, into a folder, which becomes a registry too.

    Each adapter is a task of its own: what cannot be had is told at the end, and the others are there. Stopped or
    killed, and typed again, it goes on; when the registry has grown, what is new is copied. Every file is held against
    its digest. Versions never change in the folder, and nothing is removed from it. FROM has to be a registry that can
    be listed. With --ray, FOLDER is one that all machines of the cluster share.
    """
    from ..registry import Settings
    from ..registry.mirroring import Mirror
    from ..registry.runners import runner

    settings = Settings.load(offline=offline)
    opened = open_place(output, settings.registries.get(source, source), settings)
    mirror = Mirror(opened, folder, keep_urls=keep_urls, offline=settings.offline)
    with ProgressLine(output, "mirroring", None) as line:

        def show(done: int, total: int) -> None:
            line.total = total
            line.show(done, size(mirror.fetched))

        report = mirror.plan() if dry_run else mirror.run(runner(jobs, ray, waiting=True), show)
    new = {name: copied for name, copied in report.done.items() if copied.artifacts}
    return bulk.conclude(
        output,
        report,
        "adapters were not copied",
        data=as_json(report, new, opened.place, folder, dry_run=dry_run),
        ids=list(new),
        summary=_summary(report, new, opened.place, folder, dry_run=dry_run),
    )


def as_json(
    report: Report[Copied], new: dict[str, Copied], source: str, folder: Path, *, dry_run: bool
) -> dict[str, Any]:
    """Return what was done, for a program."""
    return {
        "source": source,
        "registry": str(folder),
        "dry_run": dry_run,
        "adapters": len(report.done) + len(report.skipped),
        "size": sum(copied.size for copied in new.values()),
        "copied": [{"name": name, "artifacts": one.artifacts, "size": one.size} for name, one in new.items()],
    }


def _summary(report: Report[Copied], new: dict[str, Copied], source: str, folder: Path, *, dry_run: bool) -> str:
    """Return one line about all tasks."""
    verb = "would be copied" if dry_run else "copied"
    done = f"{counted(len(new), 'adapter')} {verb} ({size(sum(copied.size for copied in new.values()))})"
    changed = len(report.done) - len(new)
    also = f", {changed:,} updated" if changed else ""
    return f"{source} → {folder}: {bulk.summed(done + also, report, 'there already')}"
