"""Rows 9 to 11: what a forward pass costs more than the base model's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .processes import Worker
from .report import Row
from .session import Sample, Session

TIMED_ROUNDS = 3
"""So many times the usual number of rounds: differences of a few per cent drown otherwise."""

BOTTLENECKS = {"seq_bn": (75, 250), "double_seq_bn": (100, 400)}
"""Method → bounds of the extra operations and calls."""

NONE_ACTIVE = [f"{method}-0" for method in BOTTLENECKS]
"""What is loaded while nothing is active; PEFT has a LoRA instead."""

Counts = Mapping[str, Any]


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of one adapter's forward pass, or none's."""
    yield from inactive_rows(session)
    for method, limits in BOTTLENECKS.items():
        yield from bottleneck_rows(session, method, limits)


def inactive_rows(session: Session) -> Iterator[Row]:
    """Yield row 9: adapters loaded, none active."""
    ours = session.ours.ask("counts", way="none", names=NONE_ACTIVE)
    peers = {
        "adapters": session.adapters.ask("counts", way="none", names=NONE_ACTIVE),
        "PEFT": session.peft.ask("counts", way="none", names=["lora-0"]),
    }
    yield from count_rows(9, "none active", ours, peers, {"operations": (0, "≤ 0"), "calls": (0, "≤ 0")})
    same = 0 if ours["identical"] else 1
    others = {name: float(not found["identical"]) for name, found in peers.items()}
    what = "none active, outputs that differ"
    yield Row(number=9, what=what, ours=same, unit="", peers=others, value=same, limit=0, bound="bit-identical")
    workers = {"ours": session.ours, "adapters": session.adapters}
    ratios = times(session, workers, {"with": ("none", NONE_ACTIVE)})
    yield time_row(9, "none active, time / base", over(ratios, "with", "base"), 1.05, "≤ 1.05 (noise)")


def bottleneck_rows(session: Session, method: str, limits: tuple[int, int]) -> Iterator[Row]:
    """Yield row 10 for one method."""
    names = [f"{method}-0"]
    ours = session.ours.ask("counts", way="alone", names=names)
    peers = {"adapters": session.adapters.ask("counts", way="alone", names=names)}
    bounds = {kind: (float(n), f"≤ {n}") for kind, n in zip(("operations", "calls"), limits, strict=True)}
    yield from count_rows(10, method, ours, peers, bounds)
    ratios = times(session, {"ours": session.ours, "adapters": session.adapters}, {"with": ("alone", names)})
    yield time_row(10, f"{method}, time / base", over(ratios, "with", "base"), 1.25, "≤ 1.25 × base")


def lora_rows(session: Session) -> Iterator[Row]:
    """Yield row 11: LoRA on query and value."""
    names = ["lora-0"]
    workers = {"PEFT": session.peft, "adapters": session.adapters}
    ours = session.ours.ask("counts", way="alone", names=names)
    peers = {name: worker.ask("counts", way="alone", names=names) for name, worker in workers.items()}
    bounds = {
        "operations": (peers["PEFT"]["operations"] / 2, "≤ 1/2 of PEFT"),
        "calls": (peers["PEFT"]["calls"] / 2, "≤ 1/2 of PEFT"),
    }
    yield from count_rows(11, "LoRA", ours, peers, bounds)
    ratios = times(session, {"ours": session.ours, **workers}, {"with": ("alone", names)})
    yield time_row(11, "LoRA, time / base", over(ratios, "with", "base"), 1.2, "≤ 1.2 × base")


def count_rows(
    number: int,
    what: str,
    ours: Counts,
    peers: Mapping[str, Counts],
    bounds: Mapping[str, tuple[float, str]],
) -> Iterator[Row]:
    """Yield a row for each kind of count that has a bound, a number and words."""
    for kind, (limit, bound) in bounds.items():
        yield Row(
            number=number,
            what=f"{what}, extra {kind}",
            ours=ours[kind],
            unit="",
            peers={name: found[kind] for name, found in peers.items()},
            value=ours[kind],
            limit=limit,
            bound=bound,
        )


def times(
    session: Session,
    workers: Mapping[str, Worker],
    arrangements: Mapping[str, tuple[str, list[str]]],
    model: str = "overhead",
) -> dict[str, dict[str, float]]:
    """Return worker → `base` or key of an arrangement → median time of a forward."""

    def sample(worker: Worker) -> Sample:
        return lambda: worker.ask("times", arrangements=arrangements, model=model)

    asked = {name: sample(worker) for name, worker in workers.items()}
    return session.medians(asked, rounds=TIMED_ROUNDS * session.rounds)


def over(found: Mapping[str, Mapping[str, float]], key: str, other: str) -> dict[str, float]:
    """Return worker → ratio of two of its times."""
    return {name: figures[key] / figures[other] for name, figures in found.items()}


def time_row(number: int, what: str, ratios: Mapping[str, float], limit: float, bound: str) -> Row:
    """Return the row of a ratio of times, whose bound is about our own."""
    peers = {name: ratio for name, ratio in ratios.items() if name != "ours"}
    ours = ratios["ours"]
    return Row(number=number, what=what, ours=ours, unit="×", peers=peers, value=ours, limit=limit, bound=bound)
