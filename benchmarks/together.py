"""Rows 12 to 14: several adapters at once, in one batch, in a fusion, in a stack."""

from __future__ import annotations

from collections.abc import Iterator

from .forward import count_rows, over, time_row, times
from .report import Row
from .session import Session

BATCH = 16
"""Rows of the batch."""

FEW = 4
"""Adapters of the smaller mixed batch, to see what depends on their number."""

FLAT = 1.15
"""What six adapters in a fusion may cost more than two: their own products, 1/8 of a square one each."""


def mixed(count: int) -> list[str]:
    """Return an adapter for each row of the batch, of so many."""
    return [f"lora-{row % count}" for row in range(BATCH)]


def mixed_methods(count: int) -> list[str | None]:
    """Return LoRA, a bottleneck and the base model in turn, of each method at most so many.

    >>> mixed_methods(2)[:5]
    ['lora-0', 'seq_bn-0', None, 'lora-1', 'seq_bn-1']
    """
    kinds = ("lora", "seq_bn", None)
    return [None if (kind := kinds[row % 3]) is None else f"{kind}-{row // 3 % count}" for row in range(BATCH)]


def batch_rows(session: Session) -> Iterator[Row]:
    """Yield row 12: a batch in which every row has its own adapter."""
    workers = {"PEFT": session.peft, "adapters": session.adapters}
    ours = session.ours.ask("counts", way="rows", names=mixed(BATCH))
    peers = {name: worker.ask("counts", way="rows", names=mixed(BATCH)) for name, worker in workers.items()}
    limit = peers["PEFT"]["operations"] / 20
    yield from count_rows(12, f"{BATCH} LoRA", ours, peers, {"operations": (limit, "≤ 1/20 of PEFT")})
    few = session.ours.ask("counts", way="rows", names=mixed(FEW))
    fewer = {name: worker.ask("counts", way="rows", names=mixed(FEW)) for name, worker in workers.items()}
    for kind, when in (("operations", ""), ("first", ", first pass, weights gathered")):
        more = {name: float(found[kind] - fewer[name][kind]) for name, found in peers.items()}
        ours_more = float(ours[kind] - few[kind])
        what = f"operations of {BATCH} less those of {FEW}{when}"
        yield Row(number=12, what=what, ours=ours_more, unit="", peers=more, value=ours_more, limit=0, bound="0")
    yield from batch_time_rows(session)
    yield methods_row(session)


def batch_time_rows(session: Session) -> Iterator[Row]:
    """Yield the times of row 12."""
    workers = {"ours": session.ours, "PEFT": session.peft, "adapters": session.adapters}
    found = times(session, workers, {"one": ("alone", ["lora-0"]), "rows": ("rows", mixed(BATCH))})
    yield time_row(12, f"{BATCH} LoRA, time / one LoRA", over(found, "rows", "one"), 1.1, "≤ 1.1 × one")


def methods_row(session: Session) -> Row:
    """Return what a batch of LoRA, seq_bn and base rows costs, against both methods alone; peers cannot do it."""
    ours, few = (session.ours.ask("counts", way="rows", names=mixed_methods(count)) for count in (BATCH, 2))
    alone = [session.ours.ask("counts", way="alone", names=[f"{method}-0"]) for method in ("lora", "seq_bn")]
    return Row(
        number=12,
        what="LoRA, seq_bn and base rows, extra operations",
        ours=ours["operations"],
        unit="",
        peers={"with 2 of each": few["operations"], "LoRA + seq_bn alone": sum(one["operations"] for one in alone)},
        value=ours["operations"],
        limit=few["operations"],
        bound="as with 2 of each",
    )


def fuse_rows(session: Session) -> Iterator[Row]:
    """Yield row 13: fusions of several adapters on a MiniLM."""
    workers = {"ours": session.ours, "adapters": session.adapters}
    setups = {f"{count}": ("fuse", [f"seq_bn-{number}" for number in range(count)]) for count in (2, 3, 6)}
    found = times(session, workers, setups, model="minilm")
    yield time_row(13, "Fuse of 3, time / base, MiniLM", over(found, "3", "base"), 1.35, "≤ 1.35 × base")
    for count in ("3", "6"):
        ratios = over(found, count, "2")
        yield time_row(13, f"Fuse of {count} / Fuse of 2, MiniLM", ratios, FLAT, f"≤ {FLAT}")


def stack_rows(session: Session) -> Iterator[Row]:
    """Yield row 14: two adapters, one upon the other."""
    names = ["seq_bn-0", "seq_bn-1"]
    ours = session.ours.ask("counts", way="stack", names=names)
    peers = {"adapters": session.adapters.ask("counts", way="stack", names=names)}
    bounds = {kind: (peers["adapters"][kind], "≤ adapters") for kind in ("operations", "calls")}
    yield from count_rows(14, "Stack of 2 seq_bn", ours, peers, bounds)
    workers = {"ours": session.ours, "adapters": session.adapters}
    ratios = over(times(session, workers, {"stack": ("stack", names)}, model="minilm"), "stack", "base")
    what = "Stack of 2 seq_bn, time / base, MiniLM"
    yield time_row(14, what, ratios, ratios["adapters"], "≤ adapters")
