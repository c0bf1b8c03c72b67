"""Row 18: recognising a base model."""

from __future__ import annotations

from collections.abc import Iterator

from .report import Row
from .session import Session


def rows(session: Session) -> Iterator[Row]:
    """Yield the rows of the fingerprint, against MD5 of all weights, which OpenDelta takes."""
    found = session.medians({"ours": lambda: session.ours.ask("fingerprint")})["ours"]
    for verb in ("make", "check"):
        yield Row(
            number=18,
            what=f"{verb} a fingerprint, 110 M",
            ours=found[verb],
            unit="ms",
            peers={"MD5 of all weights": found["md5"]},
            value=found[verb],
            limit=0.050,
            bound="≤ 50 ms",
        )
