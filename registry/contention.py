"""Contention: several publish to one place at once, and each replaces an index only if it is the one that it read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StateError

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""So long it is tried to come between the others."""

_LONGEST_WAIT_SECONDS = 3.0


class Stale(Exception):  # noqa: N818 (it is tried again)
    """Somebody else has been faster; nothing was changed."""


def between_others(attempt: Callable[[], T], place: str) -> T:
    """Return what attempt returns; where it raises Stale, it is called again, for a while.

    Raises:
        StateError: others never let it come between.
    """
    end, tries = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            return attempt()
        except Stale as error:
            if time.monotonic() > end:
                raise StateError(f"others keep publishing to {place}", hint="try again later") from error
        tries += 1
        time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, 0.1 * 2**tries)))  # noqa: S311 (spreads clients)
