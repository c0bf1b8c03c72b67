"""Version and VersionRange: Semantic Versioning 2.0, and the ranges that a reference may ask for.

Source: https://semver.org/spec/v2.0.0.html; the ranges follow cargo and npm, except that a bare full version is exact.

    1.2.3  =1.2.3       exactly that version
    1.2  1.2.x  1.x  *  any version that begins so
    ^1.2.3              the same first number that is not 0
    ~1.2.3              the same first two numbers
    >=1.2,<2            all comparisons hold

A pre-release is chosen only by a range that names a pre-release of the same three numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import UsageError

Operator: TypeAlias = Literal["=", "^", "~", ">", ">=", "<", "<="]

_MAX_LENGTH = 128
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_TAIL = rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
_VERSION = re.compile(rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER}){_TAIL}", re.ASCII)
_PART = rf"(?:{_NUMBER}|[xX*])"
_CLAUSE = re.compile(
    rf"(?P<op>\^|~|>=|<=|>|<|=|)\s*(?P<major>{_PART})(?:\.(?P<minor>{_PART})(?:\.(?P<patch>{_PART}){_TAIL})?)?",
    re.ASCII,
)


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """One version; ordered by SemVer precedence, and by the build text where that is equal.

    Law: Version.parse(str(v)) == v.

    >>> sorted(map(Version.parse, ["1.0.0", "1.0.0-rc.2", "1.0.0-rc.10", "0.9.9"]))[0].major
    0
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version:
        """Return the version that text writes.

        Raises:
            UsageError: text is not a version of SemVer 2.0.
        """
        match = _VERSION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise UsageError(f"{_shown(text)} is not a version", hint=_version_hint(text))
        return cls(
            int(match["major"]),
            int(match["minor"]),
            int(match["patch"]),
            _dotted(match["pre"]),
            _dotted(match["build"]),
        )

    @property
    def triple(self) -> tuple[int, int, int]:
        """The three numbers."""
        return self.major, self.minor, self.patch

    @property
    def precedence(self) -> tuple[object, ...]:
        """The sort key of SemVer 2.0, clause 11; a release sorts after its pre-releases."""
        return (*self.triple, not self.prerelease, tuple(_identifier_key(part) for part in self.prerelease))

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return (self.precedence, self.build) < (other.precedence, other.build)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        text += f"-{'.'.join(self.prerelease)}" if self.prerelease else ""
        return text + (f"+{'.'.join(self.build)}" if self.build else "")


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a range; minor and patch are None where the text leaves them open.

    Attributes:
        operator: how versions are compared; "=" with open parts is an x-range.
        floor: the written version, open parts filled with 0.
        given: how many of the three numbers are written; 0 is `*`.
    """

    operator: Operator
    floor: Version
    given: int = 3

    def matches(self, version: Version) -> bool:
        """Return whether version lies within this comparison, pre-releases not treated specially."""
        lower, upper = self._bounds()
        key = version.precedence
        if self.operator == "=" and self.given == 3:
            return key == self.floor.precedence and self.floor.build in ((), version.build)
        if self.operator == ">" and self.given == 3:
            return key > self.floor.precedence
        if self.operator == "<=" and self.given == 3:
            return key <= self.floor.precedence
        return (lower is None or key >= lower.precedence) and (upper is None or key < upper.precedence)

    def _bounds(self) -> tuple[Version | None, Version | None]:
        """Return the first version inside and the first one above; None where there is no such end."""
        if self.given == 0:
            return None, None
        after = self._after(self._fixed_numbers())
        match self.operator:
            case "=" | "^" | "~":
                return self.floor, after
            case ">":
                return after, None
            case ">=":
                return self.floor, None
            case "<":
                return None, self.floor
            case "<=":
                return None, after

    def _fixed_numbers(self) -> int:
        """Return how many of the leading numbers a matching version must share."""
        if self.operator == "~":
            return min(self.given, 2)
        if self.operator != "^":
            return self.given
        leading = next((i for i, number in enumerate(self.floor.triple) if number), 2)
        return min(self.given, leading + 1)

    def _after(self, fixed: int) -> Version:
        """Return the first version above all that share the first `fixed` numbers of the floor."""
        major, minor, patch = self.floor.triple
        match fixed:
            case 1:
                return Version(major + 1, 0, 0)
            case 2:
                return Version(major, minor + 1, 0)
            case _:
                return Version(major, minor, patch + 1)

    def __str__(self) -> str:
        if self.given == 0:
            return "*"
        operator = "" if self.operator == "=" else self.operator
        if self.given == 3:
            return f"{operator}{self.floor}"
        return operator + ".".join(str(number) for number in self.floor.triple[: self.given])


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A set of versions: those that all clauses admit; no clause at all admits every release.

    Law: VersionRange.parse(str(r)) == r.

    >>> VersionRange.parse("^1.2, <1.9").matches(Version.parse("1.4.0"))
    True
    >>> str(VersionRange.parse("1.x"))
    '1'
    """

    clauses: tuple[Clause, ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Return the range that text writes; `latest` and `*` are every release.

        Raises:
            UsageError: text is not a range.
        """
        if text.strip() in {"latest", "*"}:
            return cls()
        if len(text) > _MAX_LENGTH:
            raise UsageError(f"{_shown(text)} is not a version or range", hint=_RANGE_HINT)
        clauses = tuple(_parse_clause(part.strip(), text) for part in text.split(","))
        return cls(tuple(clause for clause in clauses if clause.given or clause.operator != "="))

    @property
    def exact(self) -> Version | None:
        """The one version that this range pins, or None where it leaves a choice."""
        for clause in self.clauses:
            if clause.operator == "=" and clause.given == 3:
                return clause.floor
        return None

    def matches(self, version: Version) -> bool:
        """Return whether the range admits version."""
        if version.prerelease and not any(_names_prerelease_of(clause, version) for clause in self.clauses):
            return False
        return all(clause.matches(version) for clause in self.clauses)

    def select(self, versions: Iterable[Version]) -> list[Version]:
        """Return the admitted versions, highest first."""
        return sorted((version for version in versions if self.matches(version)), reverse=True)

    def __str__(self) -> str:
        return ",".join(map(str, self.clauses)) or "*"


ANY = VersionRange()
"""Every release."""

_RANGE_HINT = "write 1.2.3, ^1.2, ~1.2, 1.x, * or comparisons joined by commas such as >=1.2,<2"


def _parse_clause(text: str, whole: str) -> Clause:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise UsageError(f"{_shown(whole)} is not a version or range", hint=_RANGE_HINT)
    parts = [match["major"], match["minor"], match["patch"]]
    given = next((i for i, part in enumerate(parts) if part is None or part in "xX*"), 3)
    if any(part is not None and part not in "xX*" for part in parts[given:]) or (
        given < 3 and (match["pre"] or match["build"])
    ):
        raise UsageError(f"{_shown(whole)} has a number after an open part", hint=_RANGE_HINT)
    if given == 0 and match["op"] not in {"", "="}:
        raise UsageError(f"{_shown(whole)} compares with an open version", hint=_RANGE_HINT)
    major, minor, patch = (int(part or 0) if i < given else 0 for i, part in enumerate(parts))
    floor = Version(major, minor, patch, _dotted(match["pre"]), _dotted(match["build"]))
    return Clause(_operator(match["op"]), floor, given)


def _operator(text: str) -> Operator:
    match text:
        case "^" | "~" | ">" | ">=" | "<" | "<=":
            return text
        case _:
            return "="


def _names_prerelease_of(clause: Clause, version: Version) -> bool:
    return bool(clause.floor.prerelease) and clause.floor.triple == version.triple


def _identifier_key(part: str) -> tuple[int, int, str]:
    """Return the sort key of a pre-release identifier: numbers by value and before words."""
    return (0, int(part), "") if part.isdecimal() else (1, 0, part)


def _dotted(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _version_hint(text: str) -> str:
    if text[:1] in {"v", "V"} and _VERSION.fullmatch(text[1:]):
        return f"write {text[1:]}"
    return "write three numbers, such as 1.2.3 or 1.2.3-rc.1"


def _shown(text: str) -> str:
    """Return text quoted, cut to a length that fits on a line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
