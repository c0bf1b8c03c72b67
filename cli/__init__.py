"""The command line: `adapterhub`, one file per command, each imported only when it is used."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line on the arguments of this process and return its exit status."""
    from .application import run

    status = run(sys.argv[1:])
    import gc

    # What is alive now dies with the process; the collector need not go through all of it before that.
    gc.freeze()
    return status
