"""adapterhub index sign and verify: who vouches for an index, and that it is not an older one than before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .command import Documented
from .output import Output

if TYPE_CHECKING:
    from ..registry.snapshots import Snapshot


@click.command(
    cls=Documented,
    short_help="Sign an index, so that others can hold it to a key.",
    epilog="""
    adapterhub index sign --key acme.pem
    adapterhub index sign s3://bucket/prefix --key acme.pem
    """,
)
@click.argument("place", metavar="[PLACE]", required=False)
@click.option("--key", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The private key, in PEM.")
@options.offline
@options.with_output
def sign(output: Output, place: str | None, key: Path, offline: bool | None) -> None:
    """Sign the index at PLACE: a folder, a bucket, hf://… or a registry of the settings. Default: this folder.

    index.signed.json gets a snapshot of the index with the next number, which names those before it by digest, and a
    signature of it by OpenSSF model-signing. The index names every file by its digest, so that is signed too; of a
    sharded one all shards are. Sign again whenever the index has changed, or push and yank with --sign.
    """
    from ..registry import Settings, desks, signing

    desk = desks.desk_at(place or ".", Settings.load(offline=offline))
    snapshot, new = signing.sign(desk, key)
    said = "signed as" if new else "is signed already, as"
    text = f"{desk.place} {said} snapshot {snapshot.number}"
    output.result({**as_json(desk.place, snapshot), "new": new}, ids=[str(snapshot.number)], text=[text])


@click.command(
    cls=Documented,
    short_help="Check that an index is signed by a key.",
    epilog="""
    adapterhub index verify --key acme.pub
    adapterhub index verify https://adapters.example.org/hub --key acme.pub
    """,
)
@click.argument("place", metavar="[PLACE]", required=False)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The public key.  [default: as settings]")
@options.offline
@options.with_output
def verify(output: Output, place: str | None, key: Path | None, offline: bool | None) -> None:
    """Check that the index at PLACE is the one that was signed by a key, and none older than was seen here before.

    PLACE is a folder, a URL or a registry of the settings. Default: this folder. Of a sharded index all shards in a
    folder are checked; those on the network are when they are read. Under [trust] in the settings all
    commands check this of a registry: `"https://host/hub" = "acme.pub"`.
    """
    from ..registry import Settings, trust

    settings = Settings.load(offline=offline)
    where = settings.registries.get(place or "", place or ".")
    snapshot = trust.verify_place(where, settings, key)
    text = f"{where} is signed as snapshot {snapshot.number}, of {snapshot.time}"
    output.result(as_json(where, snapshot), ids=[str(snapshot.number)], text=[text])


def as_json(place: str, snapshot: Snapshot) -> dict[str, Any]:
    """Return everything for a program."""
    return {"place": place, "snapshot": snapshot.to_json(), "digest": snapshot.digest}
