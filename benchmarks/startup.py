"""Rows 1 to 3: what starting, importing and looking up cost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import synthetic
from .processes import command_seconds
from .report import Row
from .session import Sample, Session

ENTRIES = 100_000
VALIDATED = 10_000

LIGHT_ROUNDS = 5
"""So many times the usual number of rounds where the difference is smaller than the noise of a few samples."""


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of starting and importing."""
    yield from help_row(session)
    yield from import_row(session)


def lookup_rows(session: Session) -> Iterator[Row]:
    """Yield the rows of looking up names in a large index, and of validating one."""
    yield from show_rows(session)
    yield from validation_row(session)


def help_row(session: Session) -> Iterator[Row]:
    """Yield row 1: `adapterhub --help`."""
    commands = {
        "ours": [program(session.python, "adapterhub"), "--help"],
        "import click": [session.python, "-c", "import click"],
        "hf --help": [program(session.peft_python, "hf"), "--help"],
    }
    seconds = timed(session, commands)
    ours = seconds.pop("ours")
    yield Row(
        number=1,
        what="adapterhub --help",
        ours=ours,
        unit="ms",
        peers=seconds,
        value=ours / seconds["import click"],
        limit=1.5,
        bound="≤ 1.5 × import click",
    )


def import_row(session: Session) -> Iterator[Row]:
    """Yield row 2: what an import adds to a bare interpreter."""
    commands = {
        "bare": [session.python, "-c", "pass"],
        "ours": [session.python, "-c", "import adapterhub"],
        "bare adapters": [session.adapters_python, "-c", "pass"],
        "adapters": [session.adapters_python, "-c", "import adapters"],
        "bare PEFT": [session.peft_python, "-c", "pass"],
        "PEFT": [session.peft_python, "-c", "import peft"],
    }
    light = {name: commands.pop(name) for name in ("bare", "ours")}
    seconds = timed(session, commands) | timed(session, light, rounds=LIGHT_ROUNDS * session.rounds)
    ours = max(0.0, seconds["ours"] - seconds["bare"])
    yield Row(
        number=2,
        what="import, over bare python",
        ours=ours,
        unit="ms",
        peers={name: seconds[name] - seconds[f"bare {name}"] for name in ("adapters", "PEFT")},
        value=ours,
        limit=0.010,
        bound="≤ 10 ms",
    )


def show_rows(session: Session) -> Iterator[Row]:
    """Yield row 3: what is looked up in an index of 100,000 entries, once its database is made; and making it."""
    folder = session.folder / "large"
    synthetic.write(folder / "index.json", ENTRIES, Path(session.ours.ask("artifact")["path"]))
    environment = {"ADAPTERHUB_REGISTRY": str(folder), "ADAPTERHUB_CACHE": str(folder / "cache")}
    ours = program(session.python, "adapterhub")
    there, base = synthetic.name(ENTRIES // 2), synthetic.BASES[0]
    commands = {
        "show": [ours, "show", there],
        "pull": [ours, "pull", there],
        "search": [ours, "search", synthetic.WORD],
        "search with filters": [ours, "search", synthetic.WORD, "--task", "nli", "--base", base, "--method", "seq_bn"],
        "list --limit 20": [ours, "list", "--limit", "20"],
        "a name that is not there": [ours, "show", there.replace("-", "_")],
        "import click": [session.python, "-c", "import click"],
    }
    seconds = timed(session, commands, environment, statuses={"a name that is not there": 3})
    click = seconds.pop("import click")
    for what, ours_seconds in seconds.items():
        yield Row(
            number=3,
            what=f"{what} in {ENTRIES:,} entries",
            ours=ours_seconds,
            unit="ms",
            peers={"import click": click},
            value=ours_seconds / click,
            limit=2.0,
            bound="≤ 2 × import click",
        )
    yield _making_row(session, folder, commands["search"], environment)


def _making_row(session: Session, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> Row:
    """Return the row of the first look-up after a change, against reading and checking the index as a whole."""

    def first() -> Mapping[str, float]:
        shutil.rmtree(folder / "cache")
        return {"seconds": command_seconds(command, environment)}

    def whole() -> Mapping[str, float]:
        nowhere = str(folder / "index.json" / "no-cache")
        return {"seconds": command_seconds(command, {**environment, "ADAPTERHUB_CACHE": nowhere})}

    found = session.medians({"ours": first, "whole": whole}, rounds=1)
    return Row(
        number=3,
        what="the first look-up after a change",
        ours=found["ours"]["seconds"],
        unit="s",
        peers={"without a database": found["whole"]["seconds"]},
        value=found["ours"]["seconds"],
        limit=10.0,
        bound="≤ 10 s",
    )


def validation_row(session: Session) -> Iterator[Row]:
    """Yield row 3, second half: an index of 10,000 entries against its schema."""
    path = session.folder / "validated.json"
    synthetic.write(path, VALIDATED)
    asked: dict[str, Sample] = {
        "ours": lambda: session.ours.ask("validate", path=str(path)),
        "jsonschema": lambda: session.ours.ask("validate_slowly", path=str(path)),
    }
    seconds = {name: found["seconds"] for name, found in session.medians(asked, rounds=3).items()}
    ours = seconds.pop("ours")
    yield Row(
        number=3,
        what=f"validate {VALIDATED:,} entries",
        ours=ours,
        unit="ms",
        peers=seconds,
        value=ours,
        limit=0.200,
        bound="≤ 200 ms",
    )


def timed(
    session: Session,
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str] | None = None,
    rounds: int | None = None,
    statuses: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Return name → median CPU time of a command; statuses are the exit statuses of those that do not end with 0."""

    def sample(name: str) -> Sample:
        status = (statuses or {}).get(name, 0)
        return lambda: {"seconds": command_seconds(commands[name], environment, status)}

    found = session.medians({name: sample(name) for name in commands}, rounds)
    return {name: figures["seconds"] for name, figures in found.items()}


def program(python: str, name: str) -> str:
    """Return a command of the environment that an interpreter belongs to."""
    return os.fspath(Path(python).with_name(name))
