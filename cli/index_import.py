"""adapterhub index import: the adapters of another hub into an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .command import Documented
from .output import Output

if TYPE_CHECKING:
    from ..registry import Index


@click.command(
    cls=Documented,
    short_help="Add all adapters of the archived AdapterHub to an index.",
    epilog="""
    git clone https://github.com/Adapter-Hub/Hub archive
    adapterhub index import adapterhub-archive ./archive --index hub/index.json
    """,
)
@click.argument("kind", metavar="adapterhub-archive", type=click.Choice(["adapterhub-archive"]))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--index",
    "place",
    type=click.Path(path_type=Path),
    default=Path("index.json"),
    show_default=True,
    help="The index.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be added, and write nothing.")
@options.with_output
def command(output: Output, kind: str, folder: Path, place: Path, dry_run: bool) -> None:
    """Add the adapters of the archived AdapterHub to an index, which is made if it is not there.

    FOLDER is a copy of its repository. Every card becomes an entry with all its versions, their digests and where they
    lie; nothing is fetched. Names that its library knew (`sentiment/sst-2@ukp`, `@ukp/…`) become aliases. Once more,
    nothing changes.
    """
    from ..hub.importing import Import, Imported
    from ..registry import editing

    archive, made = Import.of(folder), list[Imported]()

    def change(index: Index) -> Index:
        made.append(archive.into(index))
        return made[-1].index

    if dry_run:
        change(editing.view(place, archive.spellings, create=True))
    else:
        editing.edit(place, archive.spellings, change, create=True)
    imported = made[-1]
    data = {
        "index": str(place),
        "adapters": len(imported.names),
        "files": imported.files,
        "added": list(imported.added),
        "dry_run": dry_run,
    }
    verb, new = "would be" if dry_run else "are", len(imported.added)
    text = f"{len(imported.names)} adapters with {imported.files} files {verb} in {place}, {new} of them new"
    output.result(data, ids=imported.added, text=[text])
