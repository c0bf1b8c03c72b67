"""What the commands share that do the same for all adapters of a registry: one report, and one exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import (
    AdapterHubError,
    AuthenticationError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    UnsupportedError,
)
from .output import Output, describe

if TYPE_CHECKING:
    from ..registry.tasks import Report

SHOWN = 20
"""So many errors are told in full."""

AGAIN = "run it again: what is done is not done again"

_GRAVEST: tuple[type[AdapterHubError], ...] = (
    IntegrityError,
    UnsupportedError,
    NotFoundError,
    AuthenticationError,
    OfflineError,
)


def conclude(
    output: Output, report: Report[Any], what: str, *, data: Mapping[str, Any], ids: Iterable[str], summary: str
) -> int:
    """Print what came of all tasks, and return the exit status: 0, or that of the gravest error.

    Args:
        output: where to.
        report: what came of them.
        what: what did not happen to those that failed: `adapters were not copied`.
        data: the report for programs, which gets the skipped and the failed ones.
        ids: the names of those that were done.
        summary: one line about all.

    Raises:
        AdapterHubError: tasks failed, and people are to read it.
    """
    failed = [{"name": name, **_told(error)} for name, error in report.failed.items()]
    everything = {**data, "skipped": list(report.skipped), "failed": failed}
    if not failed:
        output.result(everything, ids=ids, text=[summary])
        return 0
    error = failure(report.failed, what)
    if output.as_json:
        output.json_line({"ok": False, "error": _told(error), **everything})
        return error.exit_code
    if output.quiet:
        output.result(everything, ids=ids, text=())
    output.note(summary)
    raise error


def failure(failed: Mapping[str, AdapterHubError], what: str) -> AdapterHubError:
    """Return one error for all, of the gravest kind among them: wrong bytes before missing ones; it names the first."""
    lines = [f"{name}: {error}" for name, error in failed.items()]
    kind = next((kind for kind in _GRAVEST if any(isinstance(e, kind) for e in failed.values())), AdapterHubError)
    if len(lines) == 1:
        return kind(lines[0], hint=AGAIN)
    more = [f"  … {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    shown = [f"  {line}" for line in lines[:SHOWN]]
    return kind("\n".join([f"{len(lines):,} {what} ({len(lines):,} faults):", *shown, *more]), hint=AGAIN)


def summed(done: str, report: Report[Any], before: str) -> str:
    """Return one line about all tasks: what was done, how many were done before, and how many failed."""
    skipped = [f"{len(report.skipped):,} {before}"] if report.skipped else []
    failed = [f"{len(report.failed):,} failed"] if report.failed else []
    return ", ".join([done, *skipped, *failed])


def _told(error: AdapterHubError) -> dict[str, str]:
    code, message, hint, _ = describe(error)
    return {"code": code, "message": message, "hint": hint}
