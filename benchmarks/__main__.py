"""Print ratios against `adapters` and PEFT, measured in the same run.

    make bench
.venv/bin/python -m adapterhub.benchmarks [--rows 1,7] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from . import converting, forward, loading, merging, recognition, startup, together
from .report import Row, table
from .session import Session

GROUPS: tuple[tuple[tuple[int, ...], Callable[[Session], Iterable[Row]]], ...] = (
    ((1,), startup.help_row),
    ((2,), startup.import_row),
    ((3,), startup.lookup_rows),
    ((4,), loading.lora_rows),
    ((5,), loading.load_rows),
    ((6,), loading.many_row),
    ((7,), loading.swap_rows),
    ((8,), loading.hot_swap_rows),
    ((9, 10), forward.rows),
    ((11,), forward.lora_rows),
    ((12,), together.batch_rows),
    ((13,), together.fuse_rows),
    ((14,), together.stack_rows),
    ((16,), converting.rows),
    ((18,), recognition.rows),
    ((19,), merging.rows),
)
"""Rows of the list of bounds → what measures them."""


def main() -> int:
    """Measure, print, and return 0; a bound that is missed is said, not punished."""
    options = _options()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="adapterhub-bench-") as folder,
        Session(Path(folder), options.rounds) as session,
    ):
        for numbers, measure in GROUPS:
            if not options.rows or options.rows & set(numbers):
                print(f"measuring row {', '.join(map(str, numbers))} …", file=sys.stderr)
                rows += measure(session)
    if options.json:
        print(json.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False))
    else:
        print(table(rows))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="adapterhub.benchmarks", description="Ratios against adapters and PEFT.")
    parser.add_argument("--rows", type=_numbers, default=frozenset(), help="only these, e.g. 1,7")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each figure")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
