"""adapterhub compose: several adapters into one arrangement that has a name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..registry.schemes import IN_BUCKETS
from . import options
from .command import Documented
from .entries import size
from .output import Output, style, width
from .progress import ProgressLine
from .table import facts
from .tree import tree

if TYPE_CHECKING:
    from ..adapter import Manifest
    from ..hub import Composed
    from ..registry import Outcome


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of the composition."""

    summary: str
    task: str
    licence: str
    language: tuple[str, ...]

    def manifest(self, name: str) -> Manifest:
        """Return it as a manifest."""
        from ..adapter import Base, Manifest

        return Manifest(
            name=name,
            base=Base(architecture=""),
            summary=self.summary,
            task=self.task,
            license=self.licence,
            language=self.language,
        )


card = options.collected(
    "card",
    Card,
    click.option("--summary", metavar="TEXT", default="", help="One line that says what it is."),
    click.option("--task", metavar="TASK", default="", help="Task, such as sentiment/reviews."),
    click.option("--license", "licence", metavar="SPDX", default="", help="Licence, such as Apache-2.0."),
    click.option(
        "--language", metavar="CODE", multiple=True, help="Language of the texts, such as en; may be repeated."
    ),
)


@click.command(
    cls=Documented,
    short_help="Put adapters together under one name.",
    epilog="""
    adapterhub compose moods@1.0.0 "average(tweets-bert, editorials-bert)" --head tweets-bert
    adapterhub compose moods@1.0.0 "fuse(tweets-bert@^1, sst2-bert, name=./fused.safetensors)" --push ./hub
    adapterhub compose moods@1.0.0 moods.toml --push hf://me/moods --license apache-2.0
    adapterhub compose theirs@1.0.0 ./setup-folder --base ./model
    adapterhub compose pair "stack(./language, ./task)" --format adapters --out ./setup-folder
    """,
)
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument("composition", metavar="COMPOSITION")
@options.base
@options.architecture
@options.head
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="PATH", help="Where to write it.  [default: NAME-VERSION]"
)
@click.option(
    "--push", metavar="PLACE", help=f"Publish it: to a folder, {IN_BUCKETS}, oci://host/name, hf://user/repo."
)
@click.option("--create", is_flag=True, help="Make a registry at --push, if there is none.")
@click.option("--private", is_flag=True, help="A repository that is made on the Hub is private.")
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    default="native",
    show_default=True,
    help="Or adapters: a setup folder for that library.",
)
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@click.option("--dry-run", is_flag=True, help="Check all, and write nothing.")
@card
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    name: str,
    composition: str,
    base: str | None,
    architecture: Path | None,
    head: str | None,
    out: Path | None,
    push: str | None,
    create: bool,
    private: bool,
    format_: str,
    force: bool,
    dry_run: bool,
    registry: str | None,
    offline: bool | None,
    card: Card,
) -> None:
    """Put adapters together, check them on their base model, and write the arrangement as one artifact.

    COMPOSITION is text: stack(a, b), fuse(a, b, name=LAYER), average(a, b, weights=[0.3, 0.7]), split(a, b,
    splits=[64, 64]), batch_split(a, b, batch_sizes=[2, 6]), parallel(a, b) or multi_task(a, b), nested; each word is an
    adapter as in `pull`, a path, or another composition, whose adapters are put in its place. Or it is a JSON or TOML
    file with `composition`, and `adapters` (name: reference); or a setup folder of the library adapters.

    Every adapter is pinned by version and digest. Adapters that are files go beside the composition, which is then a
    folder. The artifact holds a fingerprint of the base model and a probe, and is pulled, run and verified like an
    adapter. Nothing is written before all is checked.
    """
    from .. import hub

    with ProgressLine(output, "checking", None):
        made = hub.compose(
            name,
            composition,
            base=base,
            head=head,
            manifest=card.manifest(name.partition("@")[0]),
            out=out,
            push=push,
            registry=registry,
            offline=offline,
            architecture=None if architecture is None else hub.read_architecture(architecture),
            format=format_,
            force=force,
            create=create,
            private=private,
            dry_run=dry_run,
        )
    whole = made.arrangement
    data = {
        "name": whole.name,
        "version": whole.version or None,
        "paths": [str(path) for path in made.paths],
        "published": made.outcome.place if made.outcome and not dry_run else None,
        "commit": (made.outcome.commit or None) if made.outcome else None,
        "digest": made.digest or None,
        "size": made.size,
        "dry_run": dry_run,
        "composition": whole.to_json(),
    }
    places = [] if made.outcome is None or dry_run else [made.outcome.place]
    output.result(data, ids=[str(path) for path in made.paths] or places or [made.digest], text=_facts(made, dry_run))


def _published(outcome: Outcome) -> str:
    return f"{outcome.place}{'' if outcome.new else ', which had it already'}"


def _facts(made: Composed, dry_run: bool) -> Iterator[str]:
    whole = made.arrangement
    yield style(f"{whole.name} {whole.version}".rstrip(), sys.stdout, bold=True)
    pins = [f"{name}: {pin.reference or pin.digest}" for name, pin in whole.adapters.items()]
    pairs = [
        ("composition", "\n".join(tree(whole.composition, whole.head))),
        ("adapters", "\n".join(pins)),
        ("base model", "" if whole.base is None else whole.base.id or whole.base.architecture),
        ("labels", ", ".join(whole.labels)),
        ("written", "nothing, as asked" if dry_run else "\n".join(map(str, made.paths))),
        ("published", "" if made.outcome is None or dry_run else _published(made.outcome)),
        ("size", size(made.size)),
        ("digest", made.digest),
    ]
    yield from facts(pairs, width(sys.stdout))
