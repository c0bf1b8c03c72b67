"""The command line: `adapterhub`, one file per command, each imported only when it is used."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line on the arguments of this process and return its exit status."""
    from .application import run

    return run(sys.argv[1:])
