"""Conditions: whether a store heeds them is found out before anything is published.

Some write whatever a condition says, and of two who publish at once would lose one without a word.
"""

from __future__ import annotations

import contextlib
import os

from ..errors import AdapterHubError, AuthenticationError, UnsupportedError
from .bucket import NEW, Location, Store
from .contention import Stale

TRIAL = ".adapterhub-trial-"
"""How the objects begin that this is tried with; they hold one byte."""

LEFTOVER_SECONDS = 3600.0


def refuse_unheeded(store: Store, home: Location) -> None:
    """Raise where a store writes whatever a condition says.

    Raises:
        UnsupportedError: it does.
        AuthenticationError, OfflineError, AdapterHubError: it cannot be written.
    """
    _sweep(store, home)
    trial = home / f"{TRIAL}{os.urandom(8).hex()}"
    try:
        heeds = _heeds(store, trial)
    finally:
        # What cannot be removed now goes later.
        with contextlib.suppress(AdapterHubError):
            store.remove([trial])
    if not heeds:
        raise UnsupportedError(
            f"{home} does not heed the conditions of a request to write: of two who publish at once, one is lost",
            hint="publish to a folder, and copy it there",
        )


def _heeds(store: Store, trial: Location) -> bool:
    """Return whether conditions that do not hold keep an object from being written, and those that hold do not."""
    try:
        tag = store.put(trial, b"1", match=NEW)
    except Stale:
        return False
    refuses = _is_refused(store, trial, NEW) and _is_refused(store, trial, store.OTHER)
    return refuses and not _is_refused(store, trial, tag)


def _is_refused(store: Store, trial: Location, match: str) -> bool:
    """Return whether an object is not written, because the condition does not hold."""
    try:
        store.put(trial, b"2", match=match)
    except Stale:
        return True
    return False


def _sweep(store: Store, home: Location) -> None:
    """Remove the trials of those who died in the middle of one; who may publish need not be allowed to."""
    with contextlib.suppress(AuthenticationError):
        store.remove(store.listed(home / TRIAL, older=LEFTOVER_SECONDS))
