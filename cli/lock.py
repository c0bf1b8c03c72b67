"""adapterhub lock: what a project asks for, pinned by digest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from . import options
from .command import Documented
from .output import Output
from .words import counted

if TYPE_CHECKING:
    from ..registry.lock import LockedAdapter
    from ..registry.locking import Locked


@click.command(
    cls=Documented,
    short_help="Pin the adapters of a project by digest.",
    epilog="""
    adapterhub lock
    adapterhub lock --upgrade reviews
    adapterhub lock --check
    """,
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--upgrade", is_flag=True, help="Resolve the pins of NAME..., or all, anew.")
@click.option("--check", is_flag=True, help="Write nothing; end with status 1 if the lock is stale.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@options.offline
@options.with_output
def command(
    output: Output, names: tuple[str, ...], upgrade: bool, check: bool, dry_run: bool, offline: bool | None
) -> None:
    """Write adapterhub.lock: the adapters that adapterhub.toml asks for, by version and digest.

    \b
      [adapters]
      reviews = "sst2-bert@^1"
      moods = { reference = "acme::moods", base = "bert-base-uncased" }

    Pins that still are what is asked for stay, whatever was published since; --upgrade resolves them anew. Of
    compositions all adapters are pinned, and of base models the commit, where it is known. `adapterhub sync` fetches
    what the lock says.
    """  # noqa: D301 (click wants the character itself)
    from ..registry import Settings, Store, cache_roots, locking
    from ..registry.project import Project

    if names and not upgrade:
        raise UsageError("names are given without --upgrade", hint="`adapterhub lock --upgrade NAME`")
    settings = Settings.load(offline=offline)
    project = Project.load(settings)
    if check:
        found = project.locked()
        text = f"{project.path} is what is asked for"
        data = {"lock": str(project.path), "adapters": len(found.adapters)}
        output.result(data, ids=sorted(found.adapters), text=[text])
        return
    wanted = (set(names) or None) if upgrade else ()
    made = locking.locked(project, settings=settings, store=Store(settings.cache), upgrade=wanted)
    for remark in made.remarks:
        output.note(remark)
    if not dry_run:
        made.lock.write(project.path)
        cache_roots.remember(settings.cache, project.path)
    known = {"lock": str(project.path), "dry_run": dry_run, "adapters": len(made.lock.adapters)}
    output.result(
        {**known, "changes": as_json(made)},
        ids=list(made.changes),
        text=lines(made, str(project.path), dry_run=dry_run),
    )


def as_json(made: Locked) -> list[dict[str, Any]]:
    """Return what changes for a program."""
    return [
        {"name": name, "before": before and before.title, "after": after and after.title, "digest": _digest(after)}
        for name, (before, after) in made.changes.items()
    ]


def lines(made: Locked, place: str, *, dry_run: bool) -> Iterator[str]:
    """Yield what people read."""
    rows = [(_verb(*pair), name, _what(*pair)) for name, pair in made.changes.items()]
    width = max((len(name) for _, name, _ in rows), default=0)
    yield from (f"{verb:8}  {name.ljust(width)}  {what}" for verb, name, what in rows)
    count = f"{counted(len(made.lock.adapters), 'adapter')}, {counted(len(made.lock.bases), 'base model')}"
    yield f"{place}: {count}{'' if rows else ', nothing changed'}{', not written' if dry_run and rows else ''}"


def _verb(before: LockedAdapter | None, after: LockedAdapter | None) -> str:
    return "removed" if after is None else "added" if before is None else "changed"


def _what(before: LockedAdapter | None, after: LockedAdapter | None) -> str:
    """Return what was pinned and is."""
    titles = [pin.title for pin in (before, after) if pin is not None]
    return " → ".join(dict.fromkeys(titles))


def _digest(pin: LockedAdapter | None) -> str | None:
    return None if pin is None else pin.bytes.identity
