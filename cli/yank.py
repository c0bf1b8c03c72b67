"""adapterhub yank: a published version taken back."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from . import options
from .command import Documented
from .output import Output


@click.command(
    cls=Documented,
    short_help="Take a published version back, or put it back.",
    epilog="""
    adapterhub yank sst2-bert@1.0.0 --registry ./hub --reason "labels are swapped"
    adapterhub yank acme::sst2-bert@1.0.0 --undo
    """,
)
@click.argument("reference", metavar="NAME@VERSION")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who still ask for it.")
@click.option("--undo", is_flag=True, help="Put the version back.")
@options.sign
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    reference: str,
    reason: str,
    undo: bool,
    sign: Path | None,
    dry_run: bool,
    registry: str | None,
    offline: bool | None,
) -> None:
    """Take a version back: it is never chosen again, and found by whoever asks for exactly this version.

    Locks and compositions that pin it go on; a warning with the reason is shown. No file is removed: published
    versions never change. The registry is a folder, a repository on the Hub, or a name in the settings.
    """
    from ..registry import Reference, Settings, Yank, publisher_at, trusted_keys
    from ..registry.signing import Seal

    asked = Reference.parse(reference)
    version = asked.versions.exact
    if asked.scheme != "name" or version is None:
        raise UsageError(f"{reference} is not one version of an adapter", hint="write it with a version: name@1.0.0")
    if undo and reason:
        raise UsageError("--reason is for yanking", hint="leave it out with --undo")
    settings = Settings.load(offline=offline)
    place = registry if registry is not None else settings.location(asked.registry)
    change = Yank(name=asked.name, version=str(version), yanked=not undo, reason=reason)
    seal = None if sign is None else Seal.of(sign)
    outcome = publisher_at(place, settings=settings).publish(change, dry_run=dry_run, seal=seal)
    for remark in trusted_keys.stale(place, settings, changed=outcome.new and seal is None and not dry_run):
        output.warning(remark)
    known = {"name": asked.name, "version": str(version), "yanked": not undo, "place": outcome.place}
    data = {**known, "new": outcome.new, "dry_run": dry_run, "commit": outcome.commit or None}
    state = "put back" if undo else "yanked"
    done = f"would be {state}" if dry_run else f"is {state}"
    text = f"{change.title} {done} in {outcome.place}" if outcome.new else f"{change.title} is {state} already"
    output.result(data, ids=[change.title], text=[text])
