"""A line on stderr that shows how far a long command is; nothing where nobody watches."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

import click

from .output import Output, is_terminal, width
from .table import cut

INTERVAL = 0.1
"""Seconds between two drawings."""

BAR = 24


class ProgressLine:
    """A progress bar, cleared at its end; hidden by -q, HF_HUB_DISABLE_PROGRESS_BARS, or where nobody watches.

    Args:
        what: what is being done, in front of the bar.
        total: how many steps there are, or None if that is not known.
        hidden: never draw it.
    """

    def __init__(self, output: Output, what: str, total: int | None, *, hidden: bool = False) -> None:
        self.what = what
        self.total = total
        self.shown = is_terminal(sys.stderr) and not (hidden or output.quiet or _switched_off())
        self.start = time.monotonic()
        self.drawn = 0.0

    def __enter__(self) -> Self:
        self.show(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, done: int, extra: str = "") -> None:
        """Draw the line, but not more often than the eye can follow."""
        now = time.monotonic()
        if not self.shown or (now - self.drawn < INTERVAL and done != self.total):
            return
        self.drawn = now
        columns = (width(sys.stderr) or 80) - 1
        click.echo("\r\x1b[K" + cut(self._line(done, now - self.start, extra), columns), err=True, nl=False, color=True)

    def clear(self) -> None:
        """Take the line away, so that what is printed next begins in an empty one."""
        if self.shown:
            click.echo("\r\x1b[K", err=True, nl=False, color=True)

    def _line(self, done: int, seconds: float, extra: str) -> str:
        parts = [self.what, bar(done, self.total), extra, remaining(done, self.total, seconds)]
        return "  ".join(part for part in parts if part)


def bar(done: int, total: int | None) -> str:
    """Return a bar with its count, or the count alone if the total is not known.

    >>> bar(12, 24)
    '████████████░░░░░░░░░░░░ 12/24'
    """
    if not total:
        return str(done or "")
    filled = BAR * done // total
    return "█" * filled + "░" * (BAR - filled) + f" {done}/{total}"


def remaining(done: int, total: int | None, seconds: float) -> str:
    """Return the time that is left if all goes on as it did.

    >>> remaining(10, 30, 60.0)
    '2m 00s left'
    """
    if not total or not done or done >= total:
        return ""
    return f"{duration(seconds / done * (total - done))} left"


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> duration(4.24), duration(75), duration(3700)
    ('4.2s', '1m 15s', '1h 01m')
    """
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def _switched_off() -> bool:
    return os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")
