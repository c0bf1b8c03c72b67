"""The documents are true: links lead somewhere, Python compiles, help texts are those of the program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_there_are_pages_to_check() -> None:
    assert {"README.md", "docs/architecture.md", "docs/adr/README.md"} <= {name_of(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title: here\n[a](#a-title-here) [b](page.md#nowhere) [c](gone.md) [d](https://example.org)\n")
    assert broken_links(page) == ["page.md#nowhere", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_a_page_compiles(page: Path) -> None:
    for language, code in FENCE.findall(text_of(page)):
        if language in {"python", "py"}:
            compile(code, name_of(page), "exec")


def test_the_help_texts_in_the_documents_are_those_of_the_program() -> None:
    check = [sys.executable, str(ROOT / "docs" / "make_cli.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make docs`:\n{done.stdout}{done.stderr}"


def test_the_page_of_the_types_of_peft_is_their_table() -> None:
    check = [sys.executable, str(ROOT / "docs" / "make_peft_types.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_only_commands_that_exist(page: Path) -> None:
    from adapterhub.cli.application import COMMANDS

    named = {
        command
        for _, code in FENCE.findall(text_of(page))
        for command in re.findall(r"^(?:\$ )?adapterhub ([a-z][a-z-]*)", code, flags=re.MULTILINE)
    }
    assert named <= set(COMMANDS)


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(re.findall(r"\]\((\d{4}-[^)]*\.md)\)", text_of(folder / "README.md")))
    assert listed == {path.name for path in folder.glob("[0-9]*.md")}


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [requirement for group in groups for requirement in group]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted} - {"adapterhub"}
    page = text_of(ROOT / "docs" / "dependencies.md")
    documented = set(re.findall(r"^\| (?:\w+ \| )?([\w-]+) \|", page, flags=re.MULTILINE))
    assert names <= documented


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", text_of(page))
    lost = [
        (file, name)
        for file, name in named
        if not (ROOT / file).is_file() or (name and f"\ndef {name}(" not in text_of(ROOT / file))
    ]
    assert lost == []


def test_every_answer_names_what_holds_it_and_commands_that_exist() -> None:
    from adapterhub.cli.application import COMMANDS

    section = text_of(ROOT / "docs" / "conversions.md").partition("## Answers\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert [row[0] for row in rows[1:] if len(row) != 3 or "`tests/" not in row[-1]] == []
    assert set(re.findall(r"`adapterhub ([a-z]+)", section)) <= set(COMMANDS)
