"""Write what the program says about itself into docs/cli.md; with --check, only say whether it is there.

The prose of the page is written by hand. A block that begins with `$ adapterhub … --help` or `$ adapterhub help …` is
replaced by what that command prints now; a command or topic without a block gets one at the end.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from adapterhub.cli.application import PROGRAM, application
from adapterhub.cli.help import TOPICS

PAGE = Path(__file__).parent / "cli.md"
BLOCK = re.compile(rf"^```console\n\$ {PROGRAM} (?P<call>(?:[a-z -]+ )?--help|help [a-z-]+)\n.*?^```$", re.M | re.S)
WIDTH = 100


def calls(group: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the arguments that make each command explain itself: ("--help",), ("index", "add", "--help"), …."""
    yield (*words, "--help")
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield from calls(command, (*words, name))


def block(call: tuple[str, ...]) -> str:
    """Return the fenced block of one call."""
    runner = CliRunner(env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    result = runner.invoke(application, list(call), prog_name=PROGRAM, terminal_width=WIDTH)
    if result.exit_code != 0:
        raise SystemExit(f"{PROGRAM} {' '.join(call)} failed: {result.exception!r}")
    return f"```console\n$ {PROGRAM} {' '.join(call)}\n{result.stdout.rstrip()}\n```"


def refreshed(page: str) -> str:
    """Return the page with the texts of now; refreshed(refreshed(page)) == refreshed(page)."""
    known = {" ".join(call): block(call) for call in [*calls(application), *(("help", topic) for topic in TOPICS)]}
    found = {match["call"] for match in BLOCK.finditer(page)}
    page = BLOCK.sub(lambda match: known.get(match["call"], ""), page).rstrip() + "\n"
    for call, text in known.items():
        if call not in found:
            page += f"\n## {PROGRAM} {call.removesuffix(' --help')}\n\n{text}\n"
    return page


def main() -> int:
    """Return 0 if the page is (now) up to date."""
    old = PAGE.read_text("utf-8") if PAGE.exists() else "# The command line\n"
    new = refreshed(old)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, "utf-8")
        return 0
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), "docs/cli.md", "what it should be")
    sys.stdout.writelines(lines)
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
