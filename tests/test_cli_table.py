"""Tables and lists of facts fit the terminal, whatever they hold."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from adapterhub.cli.table import cut, display_width, facts, one_line, pad, table

HEADERS = ("name", "task", "summary")
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
rows = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5)


def longest_word(*texts: str) -> int:
    return max((display_width(word) for text in texts for word in text.split()), default=0)


@given(rows, st.integers(20, 200))
@example([("0" * 21, "", "")], 20)
@example([("0" * 18 + " ⺀", "", "")], 20)
def test_no_line_of_a_table_is_wider_than_the_terminal(body: list[tuple[str, str, str]], width: int) -> None:
    lines = list(table(HEADERS, body, width, spare=("task",)))
    if lines[0].startswith("NAME"):
        assert max(map(display_width, lines)) <= width
        assert len(lines) == len(body) + 1
    else:
        # Each row is a block: only a word that cannot be broken stands out, alone on its line.
        assert all(display_width(line) <= width or len(line.split()) == 1 for line in lines)


@given(rows)
def test_without_a_terminal_nothing_is_cut(body: list[tuple[str, str, str]]) -> None:
    lines = list(table(HEADERS, body, None))
    for line, row in zip(lines[1:], body, strict=True):
        assert all(one_line(cell).strip() in line for cell in row)


@given(cells)
def test_no_cell_can_steer_the_terminal(text: str) -> None:
    assert one_line(f"{text}\x1b[31m\r\n\x07").isprintable()


@given(cells.map(one_line), st.integers(1, 80))
def test_a_cut_text_has_its_width(text: str, size: int) -> None:
    assert display_width(cut(text, size)) <= size
    assert display_width(pad(cut(text, size), size)) == size


def test_columns_are_aligned_and_the_widest_is_cut() -> None:
    body = [("a", "sentiment/sst-2", "x" * 60), ("bcd", "", "short")]
    assert list(table(HEADERS, body, 40)) == [
        "NAME  TASK             SUMMARY",
        "a     sentiment/sst-2  xxxxxxxxxxxxxxxx…",
        "bcd                    short",
    ]


def test_a_narrow_terminal_goes_without_the_spare_columns() -> None:
    body = [("a" * 12, "sentiment/sst-2", "words " * 5)]
    assert list(table(HEADERS, body, 30, spare=("task",))) == [
        "NAME          SUMMARY",
        "aaaaaaaaaaaa  words words wor…",
    ]


def test_a_very_narrow_terminal_gets_blocks() -> None:
    body = [("a" * 20, "sentiment/sst-2", "some words for the summary")]
    assert list(table(HEADERS, body, 30)) == [
        "a" * 20,
        "  task     sentiment/sst-2",
        "  summary  some words for the",
        "           summary",
    ]


def test_wide_characters_take_two_columns() -> None:
    assert list(table(("name", "x"), [("日本", "1"), ("abc", "2")], None)) == ["NAME  X", "日本  1", "abc   2"]
    assert cut("日本語", 4) == "日…"


def test_facts_go_on_below_themselves_and_empty_ones_are_left_out() -> None:
    lines = list(facts([("name", "sst2"), ("nothing", ""), ("summary", "a b c d e f g h i j k l")], 32))
    assert lines == ["name     sst2", "summary  a b c d e f g h i j k l"]
    assert list(facts([("summary", "one two three four five six seven")], 30)) == [
        "summary  one two three four",
        "         five six seven",
    ]


def test_a_digest_stays_whole() -> None:
    digest = f"sha256:{'0' * 64}"
    assert list(facts([("digest", digest)], 80)) == [f"digest  {digest}"]
    assert list(facts([("digest", digest)], 75)) == ["digest", f"  {digest}"]
    assert digest in "\n".join(facts([("digest", digest)], 40))
