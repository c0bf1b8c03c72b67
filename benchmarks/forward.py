"""Rows 9 to 11: what a forward pass costs more than the base model's."""

from __future__ import annotations

from collections.abc import Iterator

from .report import Row
from .session import Session

TIMED_ROUNDS = 3
"""So many times the usual number of rounds: differences of a few per cent drown otherwise."""

ACTIVE = {"seq_bn": (75, 250), "double_seq_bn": (100, 400)}
"""Method → bounds of the extra operations and calls."""


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of the forward pass."""
    yield from inactive_rows(session)
    for method, (operations, calls) in ACTIVE.items():
        yield from active_rows(session, method, operations, calls)


def lora_rows(session: Session) -> Iterator[Row]:
    """Yield row 11: LoRA on query and value."""
    ours = session.ours.ask("counts", method="lora")
    peers = {
        "adapters": session.adapters.ask("counts", method="lora"),
        "PEFT": session.peft.ask("counts", method="lora"),
    }
    yield Row(
        number=11,
        what="LoRA, extra operations",
        ours=ours["operations"],
        unit="",
        peers={name: found["operations"] for name, found in peers.items()},
        value=ours["operations"] / peers["PEFT"]["operations"],
        limit=0.5,
        bound="≤ 0.5 × PEFT",
    )


def inactive_rows(session: Session) -> Iterator[Row]:
    """Yield row 9: adapters loaded, none active."""
    ours = session.ours.ask("counts", method=None)
    peers = {"adapters": session.adapters.ask("counts", method=None), "PEFT": session.peft.ask("counts", method=None)}
    yield from count_rows(9, "none active", ours, peers, (0, 0))
    same = 0 if ours["identical"] else 1
    others = {name: float(not found["identical"]) for name, found in peers.items()}
    what = "none active, outputs that differ"
    yield Row(number=9, what=what, ours=same, unit="", peers=others, value=same, limit=0, bound="bit-identical")
    yield time_row(session, 9, None, 1.05, "≤ 1.05 (noise)")


def active_rows(session: Session, method: str, operations: int, calls: int) -> Iterator[Row]:
    """Yield row 10 for one method."""
    ours = session.ours.ask("counts", method=method)
    peers = {"adapters": session.adapters.ask("counts", method=method)}
    yield from count_rows(10, method, ours, peers, (operations, calls))
    yield time_row(session, 10, method, 1.25, "≤ 1.25 × base")


def count_rows(
    number: int, what: str, ours: dict[str, float], peers: dict[str, dict[str, float]], limits: tuple[int, int]
) -> Iterator[Row]:
    """Yield the rows of extra operations and of extra Python calls."""
    for kind, limit in zip(("operations", "calls"), limits, strict=True):
        yield Row(
            number=number,
            what=f"{what}, extra {kind}",
            ours=ours[kind],
            unit="",
            peers={name: found[kind] for name, found in peers.items()},
            value=ours[kind],
            limit=limit,
            bound=f"≤ {limit}",
        )


def time_row(session: Session, number: int, method: str | None, limit: float, bound: str) -> Row:
    """Return the row of the time against the base, on the overhead model."""
    found = session.medians(
        {
            "ours": lambda: session.ours.ask("times", method=method),
            "adapters": lambda: session.adapters.ask("times", method=method),
        },
        rounds=TIMED_ROUNDS * session.rounds,
    )
    ratios = {name: figures["with"] / figures["base"] for name, figures in found.items()}
    ours = ratios.pop("ours")
    what = f"{method or 'none active'}, time / base"
    return Row(number=number, what=what, ours=ours, unit="×", peers=ratios, value=ours, limit=limit, bound=bound)
