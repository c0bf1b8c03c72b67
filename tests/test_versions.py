"""Versions and ranges: Semantic Versioning 2.0, and what a range admits."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterhub.errors import UsageError
from adapterhub.registry import Version, VersionRange

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that is no fault."""

NUMBERS = st.integers(0, 12)
IDENTIFIERS = st.from_regex(r"0|[1-9][0-9]{0,2}|[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,3}", fullmatch=True)
BUILDS = st.from_regex(r"[0-9A-Za-z-]{1,4}", fullmatch=True)
VERSIONS = st.builds(
    Version,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.lists(IDENTIFIERS, max_size=3).map(tuple),
    st.lists(BUILDS, max_size=2).map(tuple),
)
PARTS = st.sampled_from(
    ["1.2.3", "0.2.3", "0.0.3", "1.2", "0.1", "0.0", "1", "0", "1.2.3-rc.1", "1.2.3+b", "1.x", "1.2.*"]
)
CLAUSES = st.builds(str.__add__, st.sampled_from(["", "=", "^", "~", ">", ">=", "<", "<="]), PARTS) | st.just("*")
RANGES = st.lists(CLAUSES, min_size=1, max_size=3).map(",".join)


def version(text: str) -> Version:
    return Version.parse(text)


@STEADY
@given(VERSIONS)
def test_a_version_that_is_written_is_read_as_itself(a: Version) -> None:
    assert Version.parse(str(a)) == a


@STEADY
@given(RANGES)
def test_a_range_that_is_written_is_read_as_itself(text: str) -> None:
    parsed = VersionRange.parse(text)
    assert VersionRange.parse(str(parsed)) == parsed


@STEADY
@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_totally_ordered(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert a <= c or not (a <= b and b <= c)


def test_the_order_is_that_of_the_specification() -> None:
    texts = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
    ]
    texts += ["1.0.0", "1.0.0+build", "1.0.1", "1.2.0", "1.10.0", "2.0.0"]
    assert [str(v) for v in sorted(map(version, reversed(texts)))] == texts


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.02.3", "1.2.03", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3+", "1.2.3+a+b",
     " 1.2.3", "1.2.3\n", "1.2.-3", "a.b.c", "1.2.3-ä", "١.٢.٣", "1.2.3-" + "a" * 200],
)  # fmt: skip
def test_what_is_not_a_version_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a version; write three numbers"):
        Version.parse(text)


def test_a_v_in_front_is_refused_with_the_version_to_write() -> None:
    with pytest.raises(UsageError, match=r"'v1\.2\.3' is not a version; write 1\.2\.3$"):
        Version.parse("v1.2.3")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.2.3", "1.2.3", "1.2.2 1.2.4 1.2.3-rc.1"),
        ("=1.2.3", "1.2.3 1.2.3+b", "1.2.4"),
        ("1.2.3+b", "1.2.3+b", "1.2.3 1.2.3+c"),
        ("1.2.3-rc.1", "1.2.3-rc.1", "1.2.3 1.2.3-rc.2"),
        ("1.2", "1.2.0 1.2.9", "1.1.9 1.3.0 1.2.0-rc.1"),
        ("1.2.x", "1.2.0 1.2.9", "1.3.0"),
        ("1", "1.0.0 1.9.9", "0.9.9 2.0.0 2.0.0-a"),
        ("1.x.x", "1.0.0 1.9.9", "2.0.0"),
        ("*", "0.0.0 9.9.9", "1.0.0-a"),
        ("latest", "0.0.0 9.9.9", "1.0.0-a"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-a 1.3.0-a"),
        ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.0 0.9.0", "1.0.0"),
        ("^1.2", "1.2.0 1.9.0", "1.1.0 2.0.0"),
        ("^0.0.0", "0.0.0", "0.0.1"),
        ("^1.2.3-rc.1", "1.2.3-rc.1 1.2.3-rc.2 1.2.3 1.9.0", "1.2.3-beta 1.3.0-rc.2 2.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        (">1.2.3", "1.2.4 2.0.0", "1.2.3"),
        (">1.2", "1.3.0", "1.2.9"),
        (">1", "2.0.0", "1.9.9"),
        (">=1.2", "1.2.0 3.0.0", "1.1.9"),
        ("<1.2", "1.1.9", "1.2.0 1.2.0-rc.1"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<=1.2.3", "1.2.3 1.2.3+b", "1.2.4"),
        ("<1.2.0-b", "1.2.0-a 1.1.0", "1.2.0-c 1.1.0-a"),
        (">=1.2, <2", "1.2.0 1.9.9", "1.1.0 2.0.0"),
        (">=1, <2, *", "1.5.0", "2.0.0"),
    ],
)  # fmt: skip
def test_a_range_admits_what_it_says(text: str, inside: str, outside: str) -> None:
    parsed = VersionRange.parse(text)
    assert [v for v in inside.split() if not parsed.matches(version(v))] == []
    assert [v for v in outside.split() if parsed.matches(version(v))] == []


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3.4", "^", "^x", "x.1", "1.x.3", "1.2-rc", "1,", ",", "1||2", ">>1", "1 2", "v1"]
)
def test_what_is_not_a_range_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"write 1\.2\.3, \^1\.2"):
        VersionRange.parse(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("=1.2.3", "1.2.3"),
        ("1.2.x", "1.2"),
        ("1.X", "1"),
        ("latest", "*"),
        (" >= 1 , < 2 ", ">=1,<2"),
        ("*,1", "1"),
        ("x", "*"),
    ],
)
def test_a_range_has_one_way_to_be_written(text: str, canonical: str) -> None:
    assert str(VersionRange.parse(text)) == canonical


@STEADY
@given(RANGES, st.lists(VERSIONS, max_size=6))
def test_the_selection_is_what_is_admitted_highest_first(text: str, versions: list[Version]) -> None:
    parsed = VersionRange.parse(text)
    chosen = parsed.select(versions)
    assert chosen == sorted(filter(parsed.matches, versions), reverse=True)


@STEADY
@given(RANGES, VERSIONS)
def test_a_pre_release_needs_a_range_that_names_one_of_its_numbers(text: str, a: Version) -> None:
    parsed = VersionRange.parse(text)
    if a.prerelease and parsed.matches(a):
        assert any(clause.floor.prerelease and clause.floor.triple == a.triple for clause in parsed.clauses)


def test_only_a_full_version_pins() -> None:
    assert VersionRange.parse("1.2.3").exact == version("1.2.3")
    assert VersionRange.parse(">=1,=1.2.3").exact == version("1.2.3")
    assert [t for t in ("1.2", "*", "^1.2.3", ">=1.2.3") if VersionRange.parse(t).exact] == []
