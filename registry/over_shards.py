"""Look-ups over a sharded index: in a folder or on the network, as it is or as it is signed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from . import copies, editing, packed, shard_database, shards, signed_shards
from .copies import Place
from .index import Index
from .lookup import Lookup, Progress
from .settings import Settings
from .sharded import Sharded
from .signed_shards import SignedShards
from .snapshots import SIGNED
from .trust import Trusted


def in_folder(folder: Path, settings: Settings, progress: Progress | None, trusted: Trusted | None) -> Lookup:
    """Return the look-up over the shards in a folder; trusted is how they are signed where they have to be."""
    read, where = editing.reader(folder), str(folder)
    if trusted is None:
        whole = partial(shard_database.look_up, folder / shards.FOLDER, settings.cache, progress)
        return Sharded(read, whole, where)
    signed = SignedShards(trusted.shards, trusted.renew, read, where)
    every = partial(signed_shards.everything, signed, folder)
    whole = partial(signed_shards.look_up, signed, every, folder / SIGNED, settings.cache, progress)
    return Sharded(signed.read, whole, where)


def on_network(
    place: Place, home: str, settings: Settings, progress: Progress | None, trusted: Trusted | None
) -> Lookup:
    """Return the look-up over shards on the network; see in_folder."""
    read = partial(copies.part_of, place, home=home, cache=settings.cache, offline=settings.offline)
    if trusted is None:
        return Sharded(read, partial(packed.look_up, place, home, settings, progress), place.url)
    known = partial(copies.known_part, place, cache=settings.cache)
    signed = SignedShards(trusted.shards, trusted.renew, read, place.url, known=known, offline=settings.offline)

    def every() -> Index:
        return signed_shards.of_packed(signed, Index.load(packed.copy_of(place, home, settings)))

    mark = copies.part_file(place, SIGNED, settings.cache)
    return Sharded(
        signed.read, partial(signed_shards.look_up, signed, every, mark, settings.cache, progress), place.url
    )
