"""The one place for what people and programs read: results, notes, colours and errors.

Data go to stdout, everything else to stderr. With `--json` stdout holds JSON and nothing else, errors too; with `-q`
it holds ids, one per line.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from ..errors import AdapterHubError, UsageError

INTERRUPTED = 130
BROKEN_PIPE = 141


class ReaderGone(Exception):  # noqa: N818 (not an error)
    """Whoever read stdout, such as `head`, has ended."""


class Output:
    """Where a command puts its result.

    Attributes:
        as_json: stdout is for a program: JSON.
        quiet: stdout holds ids only, and stderr holds errors only.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def result(self, data: Mapping[str, Any], *, ids: Iterable[str], text: Iterable[str]) -> None:
        """Print a result in the form that was asked for: the data with "ok": true, the ids, or the text for people."""
        if self.as_json:
            self.json_line({"ok": True, **data}, indent=2 if is_terminal(sys.stdout) else None)
        else:
            for line in ids if self.quiet else text:
                click.echo(line)

    def line(self, text: str) -> None:
        """Print one line of data at once, for results that come one after the other."""
        click.echo(text)

    def json_line(self, data: object, indent: int | None = None) -> None:
        """Print one JSON value."""
        click.echo(as_json_text(data, indent))

    def note(self, text: str) -> None:
        """Print a remark for people on stderr."""
        if not self.quiet:
            click.echo(text, err=True, color=has_colour(sys.stderr))

    def warning(self, text: str) -> None:
        """Print a warning for people on stderr."""
        if not self.quiet:
            print_warning(text)


def as_json_text(data: object, indent: int | None = None) -> str:
    """Return data as JSON text; characters of all scripts stay as they are."""
    import json

    return json.dumps(data, ensure_ascii=False, indent=indent)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person reads the stream."""
    return not stream.closed and stream.isatty()


def has_colour(stream: TextIO) -> bool:
    """Return whether colours may be used: on a capable terminal, and if NO_COLOR is not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, stream: TextIO, *, fg: str | None = None, bold: bool = False, dim: bool = False) -> str:
    """Return text in that style if the stream has colours, else text."""
    return click.style(text, fg=fg, bold=bold or None, dim=dim or None) if has_colour(stream) else text


def width(stream: TextIO) -> int | None:
    """Return how many columns a line may have, or None if nothing bounds it: the stream is a file or a pipe."""
    if not is_terminal(stream):
        return None
    import shutil

    return max(20, shutil.get_terminal_size().columns)


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the command line asks for JSON; needed where it is too wrong to be parsed.

    >>> wants_json(["run", "--json", "x"]), wants_json(["run", "--", "--json"])
    (True, False)
    """
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def make_streams_safe() -> None:
    """Let a character that the terminal's encoding lacks be printed as `?` instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")


def flush() -> None:
    """Write out stdout, so that a closed pipe shows here and not at the end of the interpreter."""
    if not sys.stdout.closed:
        sys.stdout.flush()


def broken_pipe() -> int:
    """Return the exit status after the reader of stdout went away; Python then has nothing left to complain about."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Print our own warnings as one line, and those of libraries only if ADAPTERHUB_DEBUG is set."""
    import warnings

    with warnings.catch_warnings():
        if not os.environ.get("ADAPTERHUB_DEBUG"):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module=r"adapterhub\b")
            warnings.showwarning = _print_warning
        yield


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning the way `warnings.showwarning` is called."""
    print_warning(str(message))


def print_warning(text: str) -> None:
    """Print a warning for people on stderr."""
    click.echo(f"{style('warning:', sys.stderr, fg='yellow', bold=True)} {text}", err=True)


def fail(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Print an error in one or two lines (or as JSON) and return its exit status."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not as_json:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    if debug:
        import traceback

        traceback.print_exception(error)
    code, message, hint, status = describe(error)
    if as_json:
        click.echo(as_json_text({"ok": False, "error": {"code": code, "message": message, "hint": hint}}))
    else:
        click.echo(f"{style('error:', sys.stderr, fg='red', bold=True)} {message}", err=True)
        if hint:
            click.echo(f"  {style('hint:', sys.stderr, bold=True)} {hint}", err=True)
    return status


def describe(error: BaseException) -> tuple[str, str, str, int]:
    """Return code, message, hint and exit status of an error."""
    if isinstance(error, AdapterHubError):
        return error.code, error.message, error.hint, error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "E_INTERRUPTED", "interrupted", "", INTERRUPTED
    if isinstance(error, click.ClickException):
        message, hint = _usage(error)
        return UsageError.code, message, hint, UsageError.exit_code
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fspath(error.filename)!r}: " if isinstance(error.filename, (str, os.PathLike)) else ""
        return AdapterHubError.code, f"{place}{error.strerror}", "", AdapterHubError.exit_code
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return "E_INTERNAL", f"internal error: {what}", "set ADAPTERHUB_DEBUG=1 to see where", AdapterHubError.exit_code


def sentence(text: str) -> str:
    """Return a message of click the way we write ours: one line, a small first letter, no full stop.

    >>> sentence("Missing argument 'ADAPTER'.")
    "missing argument 'ADAPTER'"
    """
    line = " ".join(text.split()).removesuffix(".")
    return line[:1].lower() + line[1:]


def _usage(error: click.ClickException) -> tuple[str, str]:
    """Return message and hint of an error in the command line."""
    if isinstance(error, (click.NoSuchOption, click.exceptions.NoSuchCommand)) and error.possibilities:
        return sentence(error.message), f"did you mean {' or '.join(error.possibilities)}?"
    context = error.ctx if isinstance(error, click.UsageError) else None
    return sentence(error.format_message()), f"see `{context.command_path} --help`" if context else ""
