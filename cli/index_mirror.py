"""adapterhub index mirror: all adapters of a registry into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .command import Documented
from .entries import size
from .opening import open_place
from .output import Output
from .progress import ProgressLine
from .words import counted

if TYPE_CHECKING:
    from ..errors import AdapterHubError
    from ..registry.mirroring import Copied
    from ..registry.tasks import Report

SHOWN = 20
"""So many errors are told in full."""


@click.command(
    cls=Documented,
    short_help="Copy all adapters of a registry into a folder.",
    epilog="""
    adapterhub index mirror https://adapters.example.org/hub ./hub
    adapterhub index mirror hf://acme/adapters ./hub --jobs 16 --dry-run
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@options.jobs
@click.option("--keep-urls", is_flag=True, help="Copy only the registry's own files; other URLs stay as they are.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and write nothing.")
@options.offline
@options.with_output
def command(
    output: Output, source: str, folder: Path, jobs: int, keep_urls: bool, dry_run: bool, offline: bool | None
) -> None:
    """Copy the adapters of a registry, all versions and files of them, into a folder, which becomes a registry too.

    Each adapter is a task of its own: what cannot be had is told at the end, and the others are there. Stopped or
    killed, and typed again, it goes on; when the registry has grown, what is new is copied. Every file is held against
    its digest. Versions never change in the folder, and nothing is removed from it. FROM has to be a registry that can
    be listed.
    """
    from ..registry import Settings
    from ..registry.mirroring import Mirror

    settings = Settings.load(offline=offline)
    opened = open_place(output, settings.registries.get(source, source), settings)
    mirror = Mirror(opened, folder, keep_urls=keep_urls, offline=settings.offline)
    with ProgressLine(output, "mirroring", None) as line:

        def show(done: int, total: int) -> None:
            line.total = total
            line.show(done, size(mirror.fetched))

        report = mirror.plan() if dry_run else mirror.run(jobs, show)
    summary = _summary(report, opened.place, folder, dry_run=dry_run)
    if report.failed:
        output.note(summary)
        raise _failure(report)
    ids = [name for name, copied in report.done.items() if copied.artifacts]
    output.result(as_json(report, opened.place, folder, dry_run=dry_run), ids=ids, text=[summary])


def as_json(report: Report[Copied], source: str, folder: Path, *, dry_run: bool) -> dict[str, Any]:
    """Return everything for a program."""
    new = {name: copied for name, copied in report.done.items() if copied.artifacts}
    copied = [{"name": name, "artifacts": one.artifacts, "size": one.size} for name, one in new.items()]
    return {
        "source": source,
        "registry": str(folder),
        "dry_run": dry_run,
        "adapters": len(report.done),
        "size": sum(one.size for one in new.values()),
        "copied": copied,
    }


def _summary(report: Report[Copied], source: str, folder: Path, *, dry_run: bool) -> str:
    """Return one line about all tasks."""
    new = [copied for copied in report.done.values() if copied.artifacts]
    verb = "would be copied" if dry_run else "copied"
    parts = [f"{counted(len(new), 'adapter')} {verb} ({size(sum(copied.size for copied in new))})"]
    parts += [f"{len(report.done) - len(new):,} there already"] if len(report.done) > len(new) else []
    parts += [f"{len(report.failed):,} failed"] if report.failed else []
    return f"{source} → {folder}: {', '.join(parts)}"


def _failure(report: Report[Copied]) -> AdapterHubError:
    """Return one error for all that failed, of the gravest kind among them; it names the first of them."""
    from ..registry.closure import together

    errors = [together(name, [error]) for name, error in report.failed.items()]
    if len(errors) == 1:
        return errors[0]
    found = together(f"{len(errors):,} adapters were not copied", errors)
    lines = found.message.splitlines()
    more = [f"  … {len(errors) - SHOWN:,} more"] if len(errors) > SHOWN else []
    return type(found)("\n".join([*lines[: SHOWN + 1], *more]), hint="run it again: what is there is not copied again")
