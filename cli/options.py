"""The options and arguments that commands share, as decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from ..errors import AdapterHubError
from ..registry.schemes import IN_BUCKETS
from .output import Output

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

P = ParamSpec("P")
R = TypeVar("R")


def with_output(function: Callable[Concatenate[Output, P], R]) -> Callable[..., R]:
    """Add --json and -q, and give the function an Output as its first argument."""

    @click.option("-q", "--quiet", is_flag=True, help="Print ids only, one per line, and no remarks.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, errors too.")
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        output = Output(as_json=bool(kwargs.pop("as_json")), quiet=bool(kwargs.pop("quiet")))
        return function(output, *args, **kwargs)

    return wrapped


def complete_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the adapters of the registry whose names begin so, for the shell; none where it cannot be read."""
    from click.shell_completion import CompletionItem

    from ..registry import open_registry

    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    try:
        index = open_registry(ctx.params.get("registry")).index
        return [CompletionItem(name, help=index.entry(name).summary) for name in index.names(incomplete)]
    except AdapterHubError:
        return []


reference = click.argument("reference", metavar="ADAPTER", shell_complete=complete_name)

registry = click.option(
    "--registry",
    metavar="PLACE",
    is_eager=True,
    help=f"The registry: a folder, https://…, hf://user/repo, {IN_BUCKETS} or oci://host/name. "
    "Default: $ADAPTERHUB_REGISTRY, the settings, or the one included.",
)

limit = click.option("--limit", type=click.IntRange(1), metavar="N", help="Show only the first N.")

jobs = click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Adapters done at a time.  [default: 8; what computes, as many as there are processors at most]",
)

ray = click.option(
    "--ray",
    metavar="HOST:PORT",
    help="Do it on the Ray cluster that this machine belongs to; the address is that of its head.",
)

offline = click.option(
    "--offline/--online", default=None, help="Forbid or allow the network. Default: $ADAPTERHUB_OFFLINE, the settings."
)

sign = click.option(
    "--sign",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign the index with this private key, in the same step.",
)

frozen = click.option(
    "--frozen", is_flag=True, help="Take only what adapterhub.lock pins; no registry is asked what there is."
)

any_base = click.option(
    "--base", metavar="MODEL", help="Base model: its Hub id, what follows the slash, or its architecture."
)

base = click.option(
    "--base",
    metavar="MODEL",
    help="Base model: a folder, or an id of the Hugging Face Hub. Default: the adapter's own.",
)

architecture = click.option(
    "--architecture",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file that describes the base model, if its family is not known; `show --base --json` prints such.",
)

allow_base_mismatch = click.option(
    "--allow-base-mismatch", is_flag=True, help="Use the adapter on another base model than its own, if it fits."
)

head = click.option(
    "--head",
    metavar="ADAPTER",
    help="Of a composition: the adapter in it whose head answers.  [default: as it says itself]",
)

batch_size = click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Texts computed at once."
)


def collected(
    name: str, make: Callable[..., object], *parameters: Callable[[Callable[..., R]], Callable[..., R]]
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return a decorator that adds options and hands their values to the function as one value: name=make(…).

    For commands with many options: the function gets a few records and not dozens of arguments.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        own = inspect.signature(make).parameters

        @functools.wraps(function)
        def wrapped(*args: object, **kwargs: object) -> R:
            kwargs[name] = make(**{key: kwargs.pop(key) for key in own})
            return function(*args, **kwargs)

        decorated: Callable[..., R] = wrapped
        for parameter in reversed(parameters):
            decorated = parameter(decorated)
        return decorated

    return decorate
