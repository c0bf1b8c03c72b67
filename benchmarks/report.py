"""Row: one measured line with its bound; and the table that is printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "×": 1.0, "": 1.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        number: the row of the list of bounds.
        what: what was measured.
        ours: our figure: seconds for s, ms and µs, a ratio for ×, a count for "".
        unit: s, ms, µs, × or "".
        peers: name → the same figure of a peer or of the base, measured in the same run.
        value: what the bound is about.
        limit: the largest value that is good enough.
        bound: the bound in words.
    """

    number: int
    what: str
    ours: float
    unit: str
    peers: Mapping[str, float] = field(default_factory=dict)
    value: float
    limit: float
    bound: str

    @property
    def ok(self) -> bool:
        """Whether the bound is kept; a figure that is no number keeps none."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON."""
        ratios = {name: self.ours / peer for name, peer in self.peers.items() if peer}
        return {**dataclasses.asdict(self), "ratios": ratios, "ok": self.ok}

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row's line."""
        peers = " · ".join(f"{name} {self._shown(value)}" for name, value in self.peers.items())
        ratios = " · ".join(f"{self.ours / value:.3g}" if value else "-" for value in self.peers.values())
        verdict = "ok" if self.ok else "MISSED"
        return (str(self.number), self.what, self._shown(self.ours), peers, ratios, self.bound, verdict)

    def _shown(self, value: float) -> str:
        if self.unit == "":
            return f"{value:+,.0f}"
        return f"{value * UNITS[self.unit]:.3g} {self.unit}"


HEADER = ("row", "what", "ours", "peers in the same run", "ours / peer", "bound", "")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_line(cells, widths) for cells in (HEADER, rule, *lines[1:]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
