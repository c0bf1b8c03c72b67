"""adapterhub verify: whether an adapter is what it claims to be."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import options
from .command import Documented
from .output import Output, style, width
from .table import facts


@click.command(
    cls=Documented,
    short_help="Check that an adapter is what it claims to be.",
    epilog="""
    adapterhub verify sst2-bert --run
    adapterhub verify ./mine.safetensors --digest sha256:9f86d0…
    """,
)
@options.reference
@click.option(
    "--run", "run", is_flag=True, help="Also load the base model, compare its fingerprint and replay the probe."
)
@click.option("--digest", metavar="DIGEST", help="The digest that the file is expected to have.")
@options.base
@options.architecture
@options.allow_base_mismatch
@options.registry
@options.offline
@options.with_output
def command(
    output: Output,
    reference: str,
    run: bool,
    digest: str | None,
    base: str | None,
    architecture: Path | None,
    allow_base_mismatch: bool,
    registry: str | None,
    offline: bool | None,
) -> None:
    """Check an adapter: its digest, its format and schema, and that no tensor is missing, left over or misshapen.

    With --run the base model is loaded, recognised by its fingerprint, and the probe is replayed: a few inputs whose
    answers are stored in the adapter. What could not be checked is marked with a dash and says why. The first fault
    ends the command with exit code 5.
    """
    from .. import hub

    found = []
    for check in hub.verify(
        reference,
        run=run,
        base=base,
        digest=digest,
        registry=registry,
        allow_base_mismatch=allow_base_mismatch,
        offline=offline,
        architecture=None if architecture is None else hub.read_architecture(architecture),
    ):
        found.append(check)
        if not output.as_json and not output.quiet:
            mark = style("ok", sys.stdout, fg="green") if check.passed else "- "
            for number, line in enumerate(facts([(check.name.ljust(10), check.detail)], _room())):
                output.line(f"{mark if number == 0 else '  '}  {line}")
    output.result({"checks": [check.to_json() for check in found]}, ids=[reference], text=())


def _room() -> int | None:
    columns = width(sys.stdout)
    return None if columns is None else columns - 4
