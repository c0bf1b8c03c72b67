"""The flags of formats: what FORMATS lists as their options, made into options of a command.

    adapterhub convert x.safetensors --to native --out ./x --alpha 16

Nothing here knows a format. The table is read when the command is run or explains itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError
from .command import Documented

if TYPE_CHECKING:
    from ..adapter import JSON
    from ..converters.options import Option

R = TypeVar("R")

SECTION = "Options of formats"
KEPT = "adapterhub.options"
"""Where the values wait for the command, in click's context."""


class FormatCommand(Documented):
    """A command with a flag for every option of a format."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters, and the flags of the formats."""
        return [*super().get_params(ctx), *self._flags(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags of the formats in a section of their own."""
        flags = self._flags(ctx)
        own = [one for one in super().get_params(ctx) if isinstance(one, click.Option)]
        for title, options in (("Options", own), (SECTION, flags)):
            records = [one.get_help_record(ctx) for one in options]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])

    def _flags(self, ctx: click.Context) -> list[click.Option]:
        return ctx.meta.setdefault(f"{KEPT}.flags", _flags())  # type: ignore[no-any-return]


def told(function: Callable[..., R]) -> Callable[..., R]:
    """Hand the values of the flags to a command as `told`: name → value."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> R:
        return function(*args, told=click.get_current_context().meta.get(KEPT, {}), **kwargs)

    return wrapped


def _flags() -> list[click.Option]:
    from ..converters import FORMATS

    formats: dict[str, list[str]] = {}
    options: dict[str, Option] = {}
    for row in FORMATS:
        for name, option in row.options.items():
            formats.setdefault(name, []).append(row.name)
            options[name] = option
    return [_flag(name, option, formats[name]) for name, option in options.items()]


def _flag(name: str, option: Option, formats: list[str]) -> click.Option:
    """Return the flag of an option, the value of which goes where `told` finds it."""

    def keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta.setdefault(KEPT, {})[name] = _parsed(ctx, parameter, option, value)

    return click.Option(
        [f"--{name.replace('_', '-')}", f"told_{name}"],
        metavar=option.kind.upper(),
        expose_value=False,
        callback=keep,
        help=f"{', '.join(formats)}: {option.meaning}.",
    )


def _parsed(ctx: click.Context, parameter: click.Parameter, option: Option, text: str) -> JSON:
    try:
        return option.parsed(text)
    except UsageError as error:
        raise click.BadParameter(error.message, ctx=ctx, param=parameter) from None
