"""adapterhub cache: what was fetched onto this machine."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ..errors import IntegrityError
from . import options
from .command import Documented
from .entries import size
from .output import Output, width
from .progress import ProgressLine
from .table import table
from .words import counted

if TYPE_CHECKING:
    from ..registry.cache import Kept, Pruned

DAYS = 30
MIB = 1 << 20


@click.group(short_help="See, check and clean what was fetched.")
def command() -> None:
    """See, check and clean the cache: what was fetched onto this machine, for all projects.

    It lies in $ADAPTERHUB_CACHE, where the settings say, or in ~/.cache/adapterhub.
    """


@command.command(short_help="List what was fetched.")
@options.with_output
def ls(output: Output) -> None:
    """List the adapters in the cache: size, when each was used last, and what refers to it.

    That are the locks of projects that were written or synced here, and compositions in the cache.
    """
    from ..registry import Settings, cache

    root = Settings.load().cache
    found = cache.listed(root)
    total = cache.sizes(root)
    data = {"cache": str(root), "sizes": total, "artifacts": [as_json(one) for one in found]}
    rows = [
        (one.name, size(one.size), ago(time.time() - one.used), ", ".join(one.needed_by), one.identity[7:19])
        for one in found
    ]
    headers = ("file", "size", "used", "needed by", "digest")
    text = table(headers, rows, width(sys.stdout), spare=("digest", "used")) if rows else ()
    output.result(data, ids=[one.identity for one in found], text=text)
    parts = ", ".join(f"{name} {size(count)}" for name, count in total.items() if count)
    output.note(f"{root}: {parts or 'empty'}")


@command.command(
    cls=Documented,
    short_help="Remove what was not used for long.",
    epilog="""
    adapterhub cache prune --dry-run
    adapterhub cache prune --unused 0 --indexes
    """,
)
@click.option(
    "--unused", type=click.FloatRange(0), default=DAYS, show_default=True, metavar="DAYS", help="Not used for so long."
)
@click.option("--locked", is_flag=True, help="Also what the lock of a project names.")
@click.option("--indexes", is_flag=True, help="Also what is known of registries; it is fetched again when needed.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@options.with_output
def prune(output: Output, unused: float, locked: bool, indexes: bool, dry_run: bool) -> None:
    """Remove adapters that were not used for some days, and what was left of broken downloads.

    What the lock of a project names stays, so do the adapters of compositions that stay, and what was used in the last
    minute. A lock that cannot be read ends this before anything is removed.
    """
    from ..registry import Settings, cache

    root = Settings.load().cache
    gone = cache.prune(root, unused_days=unused, locked=locked, indexes=indexes, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    known = {"cache": str(root), "dry_run": dry_run, "freed": gone.size}
    folders = {"objects": list(gone.objects), "folders": [str(path) for path in gone.folders]}
    data = {**known, "artifacts": [as_json(one) for one in gone.artifacts], **folders}
    text = [f"{verb} {one.name} ({size(one.size)})" for one in gone.artifacts]
    ids = [one.identity for one in gone.artifacts]
    output.result(data, ids=ids, text=[*text, f"{verb} {_summary(gone)}"])


@command.command(short_help="Hash everything again.")
@click.option("--remove", is_flag=True, help="Remove what is damaged; it is fetched again when it is needed.")
@options.with_output
def verify(output: Output, remove: bool) -> None:
    """Hash every file in the cache and compare it with its digest; a damaged one ends with status 5."""
    from ..registry import Settings, cache

    root = Settings.load().cache
    with ProgressLine(output, "hashing", None) as line:

        def show(done: int, total: int) -> None:
            line.total = total // MIB
            line.show(done // MIB, "MiB")

        found = list(cache.faults(root, show))
    if remove:
        cache.discard(root, found)
    if found:
        verb = "was removed" if remove else "is damaged"
        raise IntegrityError(
            "\n  ".join(
                [f"{counted(len(found), 'file')} in {root}:", *(f"{path} {fault}" for _, path, fault in found)]
            ),
            hint=f"what {verb} is fetched again when it is needed" if remove else "--remove removes what is damaged",
        )
    count = len(cache.listed(root))
    text = f"{root}: {counted(count, 'adapter')}, all files are what their digests say"
    output.result({"cache": str(root), "artifacts": count}, ids=(), text=[text])


def as_json(one: Kept) -> dict[str, Any]:
    """Return an artifact for a program."""
    return {
        "digest": one.identity,
        "name": one.name,
        "path": str(one.path),
        "size": one.size,
        "used": datetime.fromtimestamp(one.used, UTC).isoformat(timespec="seconds"),
        "needed_by": list(one.needed_by),
    }


def ago(seconds: float) -> str:
    """Return how long ago something was, for people.

    >>> ago(30), ago(7200), ago(3 * 86400)
    ('just now', '2 hours ago', '3 days ago')
    """
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


def _summary(gone: Pruned) -> str:
    others = len(gone.folders)
    extra = f", {counted(others, 'other thing')}" if others else ""
    return f"{counted(len(gone.artifacts), 'adapter')}{extra}: {size(gone.size)}"
