"""adapterhub index verify-all: whether every adapter of a registry is what it claims to be."""

from __future__ import annotations

import click

from . import bulk, options
from .command import Documented
from .opening import open_place
from .output import Output
from .progress import ProgressLine
from .words import counted


@click.command(
    cls=Documented,
    short_help="Check every adapter of a registry as `verify` does.",
    epilog="""
    adapterhub index verify-all ./hub
    adapterhub index verify-all https://adapters.example.org/hub --jobs 4 --json
    adapterhub index verify-all /shared/hub --ray 10.0.0.1:6379
    """,
)
@click.argument("place", metavar="[REGISTRY]", required=False)
@click.option(
    "--run", is_flag=True, help="Also load the base models, compare their fingerprints and replay the probes."
)
@click.option("--afresh", is_flag=True, help="Look at everything, also where an earlier run was not finished.")
@options.jobs
@options.ray
@options.offline
@options.with_output
def command(
    output: Output,
    place: str | None,
    run: bool,
    afresh: bool,
    jobs: int | None,
    ray: str | None,
    offline: bool | None,
) -> int:
    """Check every file of a registry, all versions: its digest, its format, and its tensors, as `verify` does for one.

    The files are fetched for that, wherever they lie, and not kept. Each is a task of its own: what is wrong is told at
    the end, with the exit code of the gravest fault. Stopped or killed, and typed again, it goes on; after a run with
    faults only these are looked at again. REGISTRY is a folder, a URL or a registry of the settings, and has to be one
    that can be listed.
    """
    from ..hub.bulk_verifying import verify_all
    from ..registry import Settings
    from ..registry.runners import runner

    settings = Settings.load(offline=offline)
    where = settings.registries.get(place or "", place or settings.registry)
    opened = open_place(output, where, settings)
    with ProgressLine(output, "verifying", None) as line:

        def show(done: int, total: int) -> None:
            line.total = total
            line.show(done)

        does = runner(jobs, ray, waiting=False)
        report = verify_all(opened, where, does, run=run, afresh=afresh, settings=settings, progress=show)
    verified = [{"name": name, "checks": [check.to_json() for check in checks]} for name, checks in report.done.items()]
    done = f"{counted(len(verified), 'artifact')} verified"
    return bulk.conclude(
        output,
        report,
        "artifacts are not what they should be",
        data={"registry": opened.place, "verified": verified},
        ids=list(report.done),
        summary=f"{opened.place}: {bulk.summed(done, report, 'verified before')}",
    )
