"""Options: what a caller says of files because they do not say it themselves, or of how they are to be written.

A format lists its options by name (Format.options). The command line makes a flag of each, `convert` and `read` and
`write` take them as a mapping, and a format finds them in Parts.options when it reads, and in
`manifest.extra[format]["options"]` when it writes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import UsageError

if TYPE_CHECKING:
    from ..adapter import JSON, Adapter
    from .format import Format

Kind = Literal["text", "number", "whole", "flag", "names"]

WORDS: Mapping[Kind, str] = {
    "text": "a text",
    "number": "a number",
    "whole": "a whole number",
    "flag": "true or false",
    "names": "names with commas between them",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a format.

    Attributes:
        meaning: what it says, for people.
        kind: what its value is.
        reads: whether it is asked for when files are read.
        writes: whether it is asked for when they are written.
    """

    meaning: str
    kind: Kind = "text"
    reads: bool = True
    writes: bool = False

    def parsed(self, text: str) -> JSON:
        """Return the value that a text on a command line means.

        >>> Option("alpha", "number").parsed("16"), Option("targets", "names").parsed("query,value")
        (16, ['query', 'value'])

        Raises:
            UsageError: it means none.
        """
        found = _READ[self.kind](text)
        if found is None:
            raise UsageError(f"{text!r} is not {WORDS[self.kind]}")
        return found


def shared(options: Mapping[str, JSON], source: Format, target: Format) -> tuple[dict[str, JSON], dict[str, JSON]]:
    """Return the options for reading, and those for writing.

    Raises:
        UsageError: one is of neither.
    """
    reading = {name: value for name, value in options.items() if name in _of(source, "reads")}
    writing = {name: value for name, value in options.items() if name in _of(target, "writes")}
    odd = sorted(options.keys() - reading.keys() - writing.keys())
    if odd:
        known = ", ".join(dict.fromkeys([*_of(source, "reads"), *_of(target, "writes")])) or "none"
        raise UsageError(
            f"from {source.name} to {target.name} there is no option {', '.join(odd)}", hint=f"its options are {known}"
        )
    return reading, writing


def check(options: Mapping[str, JSON], chosen: Format, side: Literal["reads", "writes"]) -> Mapping[str, JSON]:
    """Return the options, all of which the format has on this side.

    Raises:
        UsageError: it has not.
    """
    known = _of(chosen, side)
    odd = sorted(options.keys() - known.keys())
    if odd:
        raise UsageError(
            f"the format {chosen.name} has no option {', '.join(odd)}",
            hint=f"its options are {', '.join(known) or 'none'}",
        )
    return options


def told(adapter: Adapter, target: str, options: Mapping[str, JSON]) -> Adapter:
    """Return an adapter that carries the options for writing it; target: name of the format."""
    if not options:
        return adapter
    own = adapter.manifest.extra.get(target, {})
    extra = {**adapter.manifest.extra, target: {**own, "options": {**own.get("options", {}), **options}}}
    return dataclasses.replace(adapter, manifest=dataclasses.replace(adapter.manifest, extra=extra))


def _of(chosen: Format, side: Literal["reads", "writes"]) -> dict[str, Option]:
    return {
        name: option for name, option in chosen.options.items() if (option.reads if side == "reads" else option.writes)
    }


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if not math.isfinite(found):
        return None
    return int(found) if found.is_integer() else found


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _flag(text: str) -> bool | None:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())


def _names(text: str) -> list[str] | None:
    found = [name.strip() for name in text.split(",")]
    return found if all(found) else None


_READ: Mapping[Kind, Callable[[str], JSON]] = {
    "text": str,
    "number": _number,
    "whole": _whole,
    "flag": _flag,
    "names": _names,
}
