"""adapterhub sync: what the lock of a project pins, onto this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..errors import OfflineError
from . import options
from .command import Documented
from .entries import size
from .opening import receiving
from .output import Output, width
from .table import table
from .words import counted

if TYPE_CHECKING:
    from ..registry import Content, Lock


@click.command(
    cls=Documented,
    short_help="Fetch what the lock of a project pins.",
    epilog="""
    adapterhub sync
    adapterhub sync --frozen --offline
    adapterhub sync --frozen --bases
    """,
)
@click.option("--frozen", is_flag=True, help="Take the lock as it is; a stale one is an error.")
@click.option("--bases", is_flag=True, help="Also the base models, at their pinned commits, from the Hugging Face Hub.")
@options.offline
@options.with_output
def command(output: Output, frozen: bool, bases: bool, offline: bool | None) -> None:
    """Fetch all adapters of the project's adapterhub.lock, and check their digests.

    What adapterhub.toml asks for and the lock does not pin is pinned first, as by `adapterhub lock`. With --frozen the
    lock is not changed: if it is missing the status is 3, if it is not what is asked for 1. No registry is asked what
    there is: the bytes are those of the lock, or there are none.
    """
    from ..registry import Settings, Store, cache_roots, locking
    from ..registry.frozen import frozen as frozen_registry
    from ..registry.project import Project

    settings = Settings.load(offline=offline)
    store = Store(settings.cache)
    if not frozen:
        project = Project.load(settings)
        made = locking.locked(project, settings=settings, store=store)
        if made.changes or not project.path.is_file():
            made.lock.write(project.path)
            output.note(f"{project.path}: {counted(len(made.changes), 'pin')} changed")
    registry = frozen_registry(settings)
    cache_roots.remember(settings.cache, registry.location)
    with receiving(output) as progress:
        found = list(locking.sync(registry, store=store, offline=settings.offline, progress=progress))
    rows = [(one.name, one.pin.title, "already here" if one.cached else _fetched(one.bytes)) for one in found]
    adapters = [
        {
            "name": one.name,
            "adapter": one.pin.title,
            "digest": one.bytes.identity,
            "path": str(one.path),
            "cached": one.cached,
        }
        for one in found
    ]
    text = table(("name", "adapter", "digest checked"), rows, width(sys.stdout)) if rows else ["nothing is asked for"]
    models = _bases(output, registry.lock, offline=settings.offline) if bases else []
    data = {"lock": str(registry.location), "adapters": adapters, **({"bases": models} if bases else {})}
    output.result(data, ids=[str(one.path) for one in found], text=text)


def _bases(output: Output, lock: Lock, *, offline: bool) -> list[dict[str, str]]:
    """Fetch the base models that are pinned, and return where they are.

    Raises:
        OfflineError: the network is switched off.
    """
    from ..registry import hf_client

    found = []
    for name, base in lock.bases.items():
        if base.revision is None:
            output.note(f"{name} is not pinned, and not fetched")
            continue
        if offline:
            raise OfflineError(f"{name} needs the network, which is switched off", hint="leave --bases out")
        folder = hf_client.base_model(name, base.revision)
        output.note(f"{name} @ {base.revision}: {folder}")
        found.append({"id": name, "revision": base.revision, "path": str(folder)})
    return found


def _fetched(content: Content) -> str:
    return "fetched" if content.total_size is None else f"{size(content.total_size)} fetched"
