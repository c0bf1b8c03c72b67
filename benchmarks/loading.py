"""Rows 4 to 8: loading adapters onto a BERT-base, and changing from one to another."""

from __future__ import annotations

from collections.abc import Iterator

from .processes import Worker
from .report import Row
from .session import Sample, Session

MANY = 50


def lora_rows(session: Session) -> Iterator[Row]:
    """Yield row 4: one load of a LoRA of rank 8."""
    asked: dict[str, Sample] = {
        "ours": lambda: session.ours.ask("load", method="lora"),
        "PEFT": lambda: session.peft.ask("load", method="lora"),
        "adapters": lambda: session.adapters.ask("load", method="lora"),
    }
    seconds = {name: found["seconds"] for name, found in session.medians(asked).items()}
    ours = seconds.pop("ours")
    for peer, part in (("PEFT", 8), ("adapters", 3)):
        yield Row(
            number=4,
            what=f"load LoRA, digest checked, against {peer}",
            ours=ours,
            unit="ms",
            peers={peer: seconds[peer]},
            value=ours / seconds[peer],
            limit=1 / part,
            bound=f"≤ 1/{part} of {peer}",
        )


def load_rows(session: Session) -> Iterator[Row]:
    """Yield row 5: one load, alone and with what has to happen to the model first."""
    asked: dict[str, Sample] = {
        "ours": lambda: session.ours.ask("load"),
        "adapters": lambda: session.adapters.ask("load"),
        "PEFT, LoRA": lambda: session.peft.ask("load"),
    }
    load = {name: found["seconds"] for name, found in session.medians(asked).items()}
    asked = {
        "ours": lambda: session.ours.ask("attach"),
        "adapters": lambda: session.adapters.ask("attach"),
        "PEFT, LoRA": lambda: session.peft.ask("attach"),
    }
    attach = {name: found["seconds"] for name, found in session.medians(asked).items()}
    both = {name: load[name] + attach[name] for name in load}
    for what, seconds, limit, words in (
        ("load seq_bn, digest checked", load, 1 / 3, "≤ 1/3 of adapters"),
        ("the same with attach / init", both, 1 / 20, "≤ 1/20 of adapters"),
    ):
        ours = seconds.pop("ours")
        ratio = ours / seconds["adapters"]
        yield Row(number=5, what=what, ours=ours, unit="ms", peers=seconds, value=ratio, limit=limit, bound=words)


def many_row(session: Session) -> Iterator[Row]:
    """Yield row 6: whether loading becomes slower the more is loaded."""
    asked: dict[str, Sample] = {
        "ours": lambda: session.ours.ask("load_many", count=MANY),
        "adapters": lambda: session.adapters.ask("load_many", count=MANY),
        "PEFT, LoRA": lambda: session.peft.ask("load_many", count=MANY),
    }
    ratios = {name: found["last"] / found["first"] for name, found in session.medians(asked).items()}
    ours = ratios.pop("ours")
    yield Row(
        number=6,
        what=f"load number {MANY} / number 1",
        ours=ours,
        unit="×",
        peers=ratios,
        value=ours,
        limit=1.2,
        bound="≤ 1.2",
    )


def swap_rows(session: Session) -> Iterator[Row]:
    """Yield row 7: one change of the active adapter; a change needs two."""
    for loaded in (2, MANY):
        asked = {
            "ours": swap(session, "ours", loaded, 1000),
            "adapters": swap(session, "adapters", loaded, 50),
            "PEFT, LoRA": swap(session, "peft", loaded, 20),
        }
        seconds = {name: found["seconds"] for name, found in session.medians(asked).items()}
        ours = seconds.pop("ours")
        yield Row(
            number=7,
            what=f"swap, {loaded} loaded",
            ours=ours,
            unit="µs",
            peers=seconds,
            value=ours,
            limit=20e-6,
            bound="≤ 20 µs",
        )


def swap(session: Session, worker: str, loaded: int, times: int) -> Sample:
    """Return what takes one sample of a worker's swap."""
    asked = {"ours": session.ours, "adapters": session.adapters, "peft": session.peft}[worker]
    return lambda: asked.ask("swap", loaded=loaded, times=times)


def hot_swap_rows(session: Session) -> Iterator[Row]:
    """Yield row 8: putting an adapter from disk in place of the active one."""
    for loaded in (1, MANY):
        asked = {
            "ours": hot_swap(session.ours, loaded),
            "PEFT hotswap": hot_swap(session.peft, loaded),
        }
        seconds = {name: found["seconds"] for name, found in session.medians(asked).items()}
        ours = seconds.pop("ours")
        yield Row(
            number=8,
            what=f"hot swap of LoRA from disk, {loaded} loaded",
            ours=ours,
            unit="ms",
            peers=seconds,
            value=ours / seconds["PEFT hotswap"],
            limit=1 / 3,
            bound="≤ 1/3 of PEFT",
        )


def hot_swap(worker: Worker, loaded: int) -> Sample:
    """Return what takes one sample of a worker's hot swap."""
    return lambda: worker.ask("hot_swap", loaded=loaded, method="lora")
