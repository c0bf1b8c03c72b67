"""adapterhub index shard and pack: how an index is kept."""

from __future__ import annotations

import click

from . import options
from .command import Documented
from .entries import size
from .output import Output
from .words import counted


@click.command(
    cls=Documented,
    short_help="Keep an index in one file per name.",
    epilog="""
    adapterhub index shard ./hub
    """,
)
@click.argument("place", metavar="REGISTRY")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@options.offline
@options.with_output
def shard(output: Output, place: str, dry_run: bool, offline: bool | None) -> None:
    """Keep the index of a registry in one small file per name, for registries with very many adapters.

    A publish then writes one of them, and who looks a name up reads one, over the network too. REGISTRY is a folder or
    hf://user/repo; where there is none, an empty one is made. Nothing takes this back; what reads and publishes is used
    as before.
    """
    from ..registry import Settings, sharding

    count = sharding.shard_at(place, Settings.load(offline=offline), dry_run=dry_run)
    verb = "would keep" if dry_run else "keeps"
    text = f"{place} {verb} its index in {counted(count, 'file')}" if count is not None else f"{place} does so already"
    output.result({"registry": place, "shards": count, "dry_run": dry_run}, ids=[place], text=[text])


@click.command(
    cls=Documented,
    short_help="Put all entries into one file that can be searched over the network.",
    epilog="""
    adapterhub index pack ./hub
    adapterhub index pack hf://acme/adapters
    """,
)
@click.argument("place", metavar="REGISTRY")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@options.offline
@options.with_output
def pack(output: Output, place: str, dry_run: bool, offline: bool | None) -> None:
    """Write index/all.json.gz: all entries of an index of one file per name.

    The files of a web server cannot be listed, so that `list` and `search` read this one over the network. They find
    what there was when it was written; names are looked up as they are now. A folder on this machine needs none, but
    those who read a copy of it at a web server do. REGISTRY is a folder, a bucket or hf://user/repo.
    """
    from ..registry import Settings, sharding

    count, length = sharding.pack_at(place, Settings.load(offline=offline), dry_run=dry_run)
    text = f"{place}: {counted(count, 'adapter')} {'would be ' if dry_run else ''}in {size(length)}"
    data = {"registry": place, "adapters": count, "size": length, "dry_run": dry_run}
    output.result(data, ids=[place], text=[text])
