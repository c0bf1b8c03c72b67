"""adapterhub help: a command explained, or one of the topics."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator

import click

from .. import errors
from ..errors import UsageError
from ..registry.schemes import IN_BUCKETS
from . import options
from .output import BROKEN_PIPE, INTERRUPTED, Output, width
from .table import facts

REFERENCES = """\
An adapter is named in one of these ways:

  sst2-bert                 the highest version in the registry that is not yanked
  sst2-bert@1.0.0           this version, even if it is yanked
  sst2-bert@^1.2            the highest that is compatible with 1.2; also ~1.2, 1.x, >=1,<3
  acme::sst2-bert           in the registry called acme in the settings
  hf://user/repo@revision   a repository on the Hugging Face Hub; also hf://user/repo@revision/folder
  ./mine.safetensors        a file; a path begins with ./ ../ / or ~
  ./folder                  a folder, such as one written by the library adapters

Names that the archived AdapterHub used are found as well: @ukp/<card>, and sentiment/sst-2@ukp with --base.
"""

ENVIRONMENT = f"""\
Flags go before the environment, that before adapterhub.toml in this folder or above, that before
~/.config/adapterhub/config.toml. Both files know: registry, cache, offline, [registries], [trust]; the first also
[adapters], what `adapterhub lock` pins.

  ADAPTERHUB_REGISTRY       the registry: a folder, https://…, hf://…, oci://…
                            or a bucket: {IN_BUCKETS}; default: the one included
  ADAPTERHUB_CACHE          folder of what was pulled; default: ~/.cache/adapterhub
  ADAPTERHUB_OFFLINE        1: never use the network
  ADAPTERHUB_DEBUG          1: show where an error comes from, and the warnings of libraries
  HF_HUB_OFFLINE            1: the same as ADAPTERHUB_OFFLINE, unless that is set
  AWS_PROFILE, AWS_…        who you are on S3, and AWS_ENDPOINT_URL_S3 where that is
  AZURE_STORAGE_…           account, key or connection string for az://; without those, whoever `az login` knows
  GOOGLE_APPLICATION_CREDENTIALS   file of who you are for gs://; STORAGE_EMULATOR_HOST: where that is, without anybody
  DOCKER_CONFIG             folder of what `docker login` keeps, for oci://; default: ~/.docker
  HF_HOME, HF_TOKEN         where base models are kept, and who you are on the Hugging Face Hub
  HF_ENDPOINT               address of the Hub, if it is another one
  NO_COLOR                  no colours
  HF_HUB_DISABLE_PROGRESS_BARS   no progress bars
  XDG_CACHE_HOME, XDG_CONFIG_HOME   in place of ~/.cache and ~/.config
"""

TOPICS = ("exit-codes", "references", "environment")


@click.command(short_help="Explain a command, or exit-codes, references, environment.")
@click.argument("words", nargs=-1, metavar="[COMMAND | TOPIC]")
@options.with_output
@click.pass_context
def command(ctx: click.Context, output: Output, words: tuple[str, ...]) -> None:
    """Explain a command, or one of the topics exit-codes, references and environment."""
    topic = " ".join(words)
    if topic == "exit-codes":
        codes = exit_codes()
        data = {"exit_codes": [{"status": status, "codes": names, "meaning": text} for status, names, text in codes]}
        pairs = [(str(status), text + (f" ({', '.join(names)})" if names else "")) for status, names, text in codes]
        output.result(data, ids=[status for status, _ in pairs], text=facts(pairs, width(sys.stdout)))
        return
    text = {"references": REFERENCES, "environment": ENVIRONMENT}.get(topic) or _help_of(ctx, words)
    output.result({"topic": topic, "text": text}, ids=[text.rstrip()], text=[text.rstrip()])


def exit_codes() -> list[tuple[int, list[str], str]]:
    """Return (status, codes of errors, meaning) of all exit codes, from the error classes themselves."""
    found: dict[int, list[type[errors.AdapterHubError]]] = {}
    for cls in _tree(errors.AdapterHubError):
        found.setdefault(cls.exit_code, []).append(cls)
    listed = [
        (status, [cls.code for cls in classes], _meaning(classes[0])) for status, classes in sorted(found.items())
    ]
    return [
        (0, [], "all went well"),
        *listed,
        (INTERRUPTED, ["E_INTERRUPTED"], "interrupted by Ctrl-C"),
        (BROKEN_PIPE, [], "the reader of the output went away"),
    ]


def _tree(cls: type[errors.AdapterHubError]) -> Iterator[type[errors.AdapterHubError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def _meaning(cls: type[errors.AdapterHubError]) -> str:
    """Return the first line of a class's docstring as a phrase."""
    if cls is errors.AdapterHubError:
        return "something failed"
    line = (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]


def _help_of(ctx: click.Context, words: tuple[str, ...]) -> str:
    """Return the help of a command, found word by word."""
    context = ctx.find_root()
    found: click.Command = context.command
    for word in words:
        child = found.get_command(context, word) if isinstance(found, click.Group) else None
        if child is None:
            raise _unknown(word, found, context)
        context = click.Context(child, info_name=word, parent=context)
        found = child
    return found.get_help(context)


def _unknown(word: str, group: click.Command, context: click.Context) -> UsageError:
    names = group.list_commands(context) if isinstance(group, click.Group) else []
    known = [*names, *(TOPICS if context.parent is None else ())]
    near = difflib.get_close_matches(word, known)
    return UsageError(
        f"there is no command or topic {word!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "see `adapterhub --help`",
    )
