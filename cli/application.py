"""The group of commands, and the one way in which a command runs: errors become a line and an exit status."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import click

from . import output
from .command import write_examples

PROGRAM = "adapterhub"

SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Find and use adapters",
        (
            ("list", "List the adapters of the registry."),
            ("search", "Find adapters by words, task, base model, method or licence."),
            ("show", "Show what is known about an adapter, or a base model."),
            ("pull", "Fetch an adapter and print the path of its file."),
            ("run", "Classify texts with an adapter."),
            ("verify", "Check that an adapter is what it claims to be."),
            ("convert", "Convert an adapter into another format, exactly or not at all."),
            ("diff", "Compare two adapters, place by place."),
        ),
    ),
    (
        "Keep a project and this machine in order",
        (
            ("lock", "Pin the adapters of a project by digest."),
            ("sync", "Fetch what the lock of a project pins."),
            ("cache", "See, check and clean what was fetched."),
        ),
    ),
    (
        "Make and publish adapters",
        (
            ("train", "Train an adapter on labelled texts."),
            ("push", "Publish an adapter to a registry or the Hugging Face Hub."),
            ("yank", "Take a published version back, or put it back."),
            ("merge", "Merge several adapters into one."),
            ("extract", "Take a LoRA out of a fine-tuned model."),
            ("compose", "Put adapters together under one name."),
            ("index", "Add adapters to an index and check it."),
        ),
    ),
    (
        "Help",
        (
            ("completion", "Print the completion script for your shell."),
            ("help", "Explain a command, or exit-codes, references, environment."),
        ),
    ),
)
"""The commands with their short helps, so that `--help` needs to import none of them."""

COMMANDS = {name: text for _, commands in SECTIONS for name, text in commands}


class Application(click.Group):
    """The commands of COMMANDS; each lies in the module of its name, as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of their sections."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f".{cmd_name}", __package__).command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return name, command and its arguments; an unknown name is an error that proposes the nearest ones."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; click would end the process itself where the reader of stdout has gone."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise output.ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section of examples."""
        write_examples(self.epilog or "", formatter)


def print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the version and end."""
    if not value or ctx.resilient_parsing:
        return
    from .. import __version__

    click.echo(f"{PROGRAM} {__version__}")
    ctx.exit()


@click.group(
    cls=Application,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
    adapterhub run sst2-bert "A gorgeous, witty, seductive movie."
    adapterhub search sentiment --json
    """,
)
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="Show the version."
)
def application() -> None:
    """The hub for adapters of transformer models: find, pull, run, check and train them.

    Data go to standard output, remarks and errors to standard error. Every command knows --json.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    output.make_streams_safe()
    as_json = output.wants_json(arguments)
    try:
        with output.quiet_libraries():
            status = application.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
        output.flush()
    except (BrokenPipeError, output.ReaderGone):
        return output.broken_pipe()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the one place where errors end)
        return output.fail(error, as_json=as_json, debug=bool(os.environ.get("ADAPTERHUB_DEBUG")))
    return status if isinstance(status, int) else 0
