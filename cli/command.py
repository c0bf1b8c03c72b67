"""How a command's help shows its examples."""

from __future__ import annotations

import inspect

import click


class Documented(click.Command):
    """A command whose epilog is its examples, one command line per line; they are printed as they stand."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section of examples."""
        write_examples(self.epilog or "", formatter)


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Write the section of examples."""
    with formatter.section("Examples"):
        for line in inspect.cleandoc(examples).splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
