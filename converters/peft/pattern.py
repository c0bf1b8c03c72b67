"""Regular expressions of PEFT's configurations, matched in time that is bounded by pattern × path.

A pattern from a stranger can keep Python's `re` busy for ever. Patterns here become a program whose threads run side by
side over the path (Pike's machine), so no pattern takes longer than its length times the path's. What such a machine
cannot do (looking around, back references) is refused by name.

Source: Cox 2009, Regular Expression Matching: the Virtual Machine Approach.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from ...errors import FormatError, UnsupportedError

MOST_STEPS = 20_000
"""Steps of a program; a pattern of PEFT has some fifty."""

LONGEST = 4_000
"""Characters of a pattern."""

DEEPEST = 50
"""Groups inside groups."""

Accepts = Callable[[str], bool]
Holds = Callable[[str, int], bool]
Program = list[tuple[str, object]]
"""Steps: ("take", Accepts), ("check", Holds), ("split", (a, b)) and ("jump", a) with places relative to the step."""


class Fuel:
    """How many steps all matching for one document may take."""

    def __init__(self, steps: int = 1_000_000) -> None:
        self.steps = steps

    def burn(self, steps: int) -> None:
        """Take away so many steps.

        Raises:
            UnsupportedError: there are not as many left.
        """
        self.steps -= steps
        if self.steps < 0:
            raise UnsupportedError(
                "the regular expressions of adapter_config.json take too long to match",
                hint="name the modules by their paths",
            )


def matches(pattern: str, text: str, fuel: Fuel | None = None) -> bool:
    r"""Return what `re.fullmatch(pattern, text) is not None` is.

    >>> matches(r".*layer\.[01]\.(query|value)", "encoder.layer.1.value")
    True

    Raises:
        FormatError: it is no regular expression.
        UnsupportedError: it looks around, refers back, or is too large.
    """
    return _runs(_compiled(pattern), text, (0,), fuel or Fuel())


def ends(pattern: str, path: str, fuel: Fuel | None = None) -> bool:
    r"""Return whether PEFT takes pattern for the end of a module path: `re.match(rf"(.*\.)?({pattern})$", path)`.

    >>> ends("self.query", "layer.0.self.query"), ends("query", "layer.0.subquery")
    (True, False)

    Raises:
        FormatError, UnsupportedError: as matches.
    """
    starts = (0, *(place + 1 for place, letter in enumerate(path) if letter == "."))
    return _runs(_compiled(pattern), path, starts, fuel or Fuel())


_PLAIN = re.compile(r"[\w.-]+")


class Ends:
    """Patterns for the ends of module paths, the first of which that matches a path counts.

    Names and whole paths, which have nothing special but dots, are found by their last word; only other patterns run.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self._fuel = Fuel()
        self._special = [(i, p) for i, p in enumerate(self._patterns) if not _PLAIN.fullmatch(p)]
        self._plain: dict[str, list[tuple[int, str]]] = {}
        for i, pattern in enumerate(self._patterns):
            if _PLAIN.fullmatch(pattern):
                self._plain.setdefault(pattern.rpartition(".")[2], []).append((i, pattern))

    def first(self, path: str) -> str | None:
        """Return the first pattern that matches the end of a path.

        Raises:
            FormatError, UnsupportedError: as matches, of those in front of it.
        """
        last = path.rpartition(".")[2]
        # A dot stands for any letter, so that the last word of a pattern may be the end of a longer one.
        found = [pair for k in range(len(last) + 1) for pair in self._plain.get(last[k:], ()) if _is_end(pair[1], path)]
        place = min((i for i, _ in found), default=len(self._patterns))
        for i, pattern in self._special:
            if i > place:
                break
            if ends(pattern, path, self._fuel):
                return pattern
        return self._patterns[place] if found else None


def _is_end(pattern: str, path: str) -> bool:
    """Return whether a pattern with nothing special but dots matches the end of a path, behind a dot or the whole."""
    before = len(path) - len(pattern)
    if before < 0 or (before and path[before - 1] != "."):
        return False
    return all(a in (".", b) for a, b in zip(pattern, path[before:], strict=True))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Program:
    if len(pattern) > LONGEST:
        raise UnsupportedError(f"a pattern of {len(pattern)} characters is longer than {LONGEST}")
    reader = _Reader(pattern)
    program = reader.alternatives()
    if reader.place < len(pattern):
        raise reader.wrong("an unexpected )")
    return program


def _runs(program: Program, text: str, starts: Iterable[int], fuel: Fuel) -> bool:
    """Return whether some thread that begins at one of the starts is through the program at the end of the text."""
    begin = set(starts)
    threads: set[int] = set()
    fuel.burn(len(program))
    for place in range(len(text)):
        waiting = _waiting(program, threads | ({0} if place in begin else set()), text, place)
        fuel.burn(1 + len(waiting))
        threads = {step + 1 for step in waiting if step < len(program) and program[step][1](text[place])}  # type: ignore[operator]
    return len(program) in _waiting(program, threads | ({0} if len(text) in begin else set()), text, len(text))


def _waiting(program: Program, threads: set[int], text: str, place: int) -> set[int]:
    """Return where threads come to without taking a letter: in front of a "take", or behind the program."""
    pending, seen, found = list(threads), set[int](), set[int]()
    while pending:
        step = pending.pop()
        if step in seen:
            continue
        seen.add(step)
        kind, what = program[step] if step < len(program) else ("take", None)
        if kind == "take":
            found.add(step)
        elif kind == "split":
            pending += [step + what[0], step + what[1]]  # type: ignore[index]
        elif kind == "jump":
            pending.append(step + what)  # type: ignore[operator]
        elif what(text, place):  # type: ignore[operator]
            pending.append(step + 1)
    return found


_CLASSES: dict[str, Accepts] = {
    "d": lambda letter: letter.isdecimal(),
    "w": lambda letter: letter.isalnum() or letter == "_",
    "s": lambda letter: letter.isspace(),
}
_CHECKS: dict[str, Holds] = {
    "^": lambda text, place: place == 0,
    "$": lambda text, place: place == len(text),
    "A": lambda text, place: place == 0,
    "Z": lambda text, place: place == len(text),
}
_TIMES = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")


class _Reader:
    """Reads a pattern from left to right and returns programs."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.place = 0
        self.depth = 0

    def alternatives(self) -> Program:
        branches = [self._sequence()]
        while self._next("|"):
            branches.append(self._sequence())
        program = branches.pop()
        for branch in reversed(branches):
            program = [("split", (1, len(branch) + 2)), *branch, ("jump", len(program) + 1), *program]
        return self._bounded(program)

    def wrong(self, what: str) -> FormatError:
        return FormatError(f"the pattern {self.pattern[:80]!r} is no regular expression: {what}")

    def _sequence(self) -> Program:
        program: Program = []
        while self.place < len(self.pattern) and self.pattern[self.place] not in "|)":
            program += self._repeated(self._atom())
        return self._bounded(program)

    def _repeated(self, atom: Program) -> Program:
        times = self._times()
        if times is None:
            return atom
        if self._times() is not None:
            raise self.wrong("nothing to repeat")
        if len(atom) == 1 and atom[0][0] == "check":
            raise self._beyond("repeats a position")
        least, most = times
        if (len(atom) + 1) * max(least, most or 0, 1) > MOST_STEPS:
            raise self._too_large()
        program = atom * least
        if most is None:
            return [*program, ("split", (1, len(atom) + 2)), *atom, ("jump", -len(atom) - 1)]
        for left in range(most - least, 0, -1):
            program += [("split", (1, left * (len(atom) + 1))), *atom]
        return program

    def _times(self) -> tuple[int, int | None] | None:
        """Return how often what stands in front is repeated, at least and at most, or None if it is not."""
        for sign, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._next(sign):
                return self._greedy(times)
        match = _TIMES.match(self.pattern, self.place)
        if match is None or match[0] == "{}":
            return None
        self.place = match.end()
        if max(len(match[1]), len(match[3])) > 6:
            raise self._too_large()
        least = int(match[1] or 0)
        most = int(match[3]) if match[3] else (None if match[2] else least)
        if most is not None and most < least:
            raise self.wrong("it repeats at least more often than at most")
        return self._greedy((least, most))

    def _greedy(self, times: tuple[int, int | None]) -> tuple[int, int | None]:
        """Return times; a lazy repetition matches the same texts, a possessive one does not."""
        if self._next("+"):
            raise self._beyond("repeats possessively")
        self._next("?")
        return times

    def _atom(self) -> Program:
        letter = self.pattern[self.place]
        self.place += 1
        if letter == "(":
            return self._group()
        if letter == "[":
            return [("take", self._set())]
        if letter == "\\":
            return self._escaped()
        times = _TIMES.match(self.pattern, self.place - 1) if letter == "{" else None
        if letter in "*+?" or (times and times[0] != "{}"):
            raise self.wrong("nothing to repeat")
        if letter in "^$":
            return [("check", _CHECKS[letter])]
        if letter == ".":
            return [("take", lambda other: other != "\n")]
        return [("take", letter.__eq__)]

    def _group(self) -> Program:
        if self._next("?"):
            match = re.compile(r":|P<[A-Za-z_][A-Za-z0-9_]*>").match(self.pattern, self.place)
            if match is None:
                raise self._beyond("looks around or sets flags")
            self.place = match.end()
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._too_large()
        program = self.alternatives()
        self.depth -= 1
        if not self._next(")"):
            raise self.wrong("a missing )")
        return program

    def _escaped(self) -> Program:
        letter = self._letter()
        if letter in "AZ":
            return [("check", _CHECKS[letter])]
        return [("take", self._class(letter))]

    def _class(self, letter: str) -> Accepts:
        """Return what an escaped letter stands for."""
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter.lower() in _CLASSES:
            other = _CLASSES[letter.lower()]
            return lambda found: not other(found)
        if letter.isalnum():
            raise self._beyond(f"uses \\{letter}")
        return letter.__eq__

    def _set(self) -> Accepts:
        inverted = self._next("^")
        members: list[Accepts] = []
        first = True
        while first or self.pattern[self.place : self.place + 1] != "]":
            first = False
            low = self._letter()
            if low == "\\":
                escaped = self._letter()
                if escaped.lower() in _CLASSES:
                    members.append(self._class(escaped))
                    continue
                if escaped.isalnum():
                    raise self._beyond(f"uses \\{escaped}")
                low = escaped
            high = low
            if (
                self.pattern[self.place : self.place + 1] == "-"
                and self.pattern[self.place + 1 : self.place + 2] != "]"
            ):
                self.place += 1
                high = self._letter()
                high = self._letter() if high == "\\" else high
                if high < low:
                    raise self.wrong(f"a range from {low!r} to {high!r}")
            members.append(lambda found, low=low, high=high: low <= found <= high)  # type: ignore[misc]
        self.place += 1
        return lambda found: any(member(found) for member in members) is not inverted

    def _letter(self) -> str:
        if self.place >= len(self.pattern):
            raise self.wrong("it ends too early")
        self.place += 1
        return self.pattern[self.place - 1]

    def _next(self, sign: str) -> bool:
        """Return whether the pattern goes on with sign, and step over it."""
        found = self.pattern.startswith(sign, self.place)
        self.place += found
        return found

    def _bounded(self, program: Program) -> Program:
        if len(program) > MOST_STEPS:
            raise self._too_large()
        return program

    def _too_large(self) -> UnsupportedError:
        return UnsupportedError(f"the pattern {self.pattern[:80]!r} is too large")

    def _beyond(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"the pattern {self.pattern[:80]!r} {what}, which this version does not evaluate",
            hint="name the modules one by one in adapter_config.json",
        )
