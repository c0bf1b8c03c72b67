"""adapterhub push: an adapter into a registry, or onto the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..registry.schemes import IN_BUCKETS
from . import options
from .command import Documented
from .entries import size
from .output import Output

if TYPE_CHECKING:
    from ..hub import Pushed


@click.command(
    cls=Documented,
    short_help="Publish an adapter to a registry or the Hugging Face Hub.",
    epilog="""
    adapterhub push ./mine.safetensors --as me/sst2@1.0.0 --to ./registry
    adapterhub push ./folder --as sst2@1.0.0 --to hf://me/sst2-bert --license apache-2.0 --dry-run
    """,
)
@click.argument("source", metavar="ADAPTER", shell_complete=options.complete_name)
@click.option(
    "--to",
    "place",
    required=True,
    metavar="PLACE",
    help=f"A folder, {IN_BUCKETS}, oci://host/name, hf://user/repo (a registry or this adapter's), or a name in the "
    "settings.",
)
@click.option(
    "--as", "name", metavar="NAME@VERSION", help="Name and version to publish as.  [default: those in the adapter]"
)
@click.option(
    "--formats",
    metavar="LIST",
    help="Of native, peft and adapters, with commas.  [default: native; on the Hub all that can say it exactly]",
)
@click.option(
    "--base", metavar="MODEL", help="Base model to load for fingerprint and probe.  [default: its own, if it is here]"
)
@click.option("--base-id", metavar="ID", help="Id of the base model on the Hub, if the adapter does not name it.")
@options.architecture
@click.option("--license", "license_", metavar="SPDX", help="Licence of the adapter, if it does not name it.")
@click.option("--create", is_flag=True, help="Make a registry at PLACE, if there is none.")
@click.option("--private", is_flag=True, help="A repository that is made on the Hub is private.")
@options.sign
@click.option("--dry-run", is_flag=True, help="Print files, sizes and the model card, and write nothing.")
@options.offline
@options.with_output
def command(
    output: Output,
    source: str,
    place: str,
    name: str | None,
    formats: str | None,
    base: str | None,
    base_id: str | None,
    architecture: Path | None,
    license_: str | None,
    create: bool,
    private: bool,
    sign: Path | None,
    dry_run: bool,
    offline: bool | None,
) -> None:
    """Publish an adapter or a composition: into a registry, or as a repository of its own on the Hugging Face Hub.

    The adapter is read strictly, converted to the formats, and each of these read back. Its manifest gets name,
    version and licence, and fingerprint and probe if the base model is on this machine. A version is published in one
    step or not at all, and never changes afterwards.

    A saved composition, or a setup folder of the library adapters, goes to the same places, under its own name or
    another; adapters that the registry there does not offer go with it.

    A repository of its own has the files of PEFT at its root, those of the library adapters at the root or in the
    folder adapters, a native file, a model card that keeps what was written there, and a tag for each version.
    """
    from .. import hub

    wanted = hub.Wanted(
        name=name,
        formats=None if formats is None else [part.strip() for part in formats.split(",")],
        base=base,
        base_id=base_id,
        license=license_,
        architecture=None if architecture is None else hub.read_architecture(architecture),
    )
    pushed = hub.pushing.push(
        source, place, wanted=wanted, create=create, private=private, sign=sign, dry_run=dry_run, offline=offline
    )
    for format_, reason in pushed.left_out.items():
        output.note(f"not in the format {format_}: {reason}")
    for remark in pushed.remarks:
        output.warning(remark)
    output.result(
        as_json(pushed, dry_run=dry_run),
        ids=[f"{pushed.name}@{pushed.version}"],
        text=lines(pushed, dry_run=dry_run),
    )


def as_json(pushed: Pushed, *, dry_run: bool) -> dict[str, Any]:
    """Return everything for a program."""
    outcome = pushed.outcome
    return {
        "name": pushed.name,
        "version": pushed.version,
        "place": outcome.place,
        "dry_run": dry_run,
        "new": outcome.new,
        "commit": outcome.commit or None,
        "formats": list(pushed.formats),
        "left_out": dict(pushed.left_out),
        "remarks": list(pushed.remarks),
        "artifacts": [artifact.to_json() for artifact in outcome.artifacts],
        "files": dict(outcome.files),
        "removed": list(outcome.removed),
        "card": outcome.card or None,
    }


def lines(pushed: Pushed, *, dry_run: bool) -> Iterator[str]:
    """Yield what people read."""
    outcome, title = pushed.outcome, f"{pushed.name}@{pushed.version}"
    if not outcome.new:
        yield f"{outcome.place} has {title} already, with the same bytes"
        return
    commit = f", commit {outcome.commit[:12]}" if outcome.commit else ""
    formats = ", ".join(pushed.formats)
    yield f"{'would publish' if dry_run else 'published'} {title} to {outcome.place} ({formats}{commit})"
    width = max(map(len, outcome.files), default=0)
    for path, count in outcome.files.items():
        yield f"  {path.ljust(width)}  {size(count)}"
    yield from (f"  {path.ljust(width)}  removed" for path in outcome.removed)
    if dry_run and outcome.card:
        yield from ("", *outcome.card.splitlines())
