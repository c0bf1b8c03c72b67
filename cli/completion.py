"""adapterhub completion: the script that lets a shell complete commands, options and adapters."""

from __future__ import annotations

import os
from pathlib import PurePath

import click

from ..errors import UsageError
from . import options
from .output import Output

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the completion script for your shell.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@options.with_output
def command(output: Output, shell: str | None) -> None:
    """Print the script that lets your shell complete commands, options and the names of adapters.

    Without SHELL it is that of $SHELL.

    \b
      bash  adapterhub completion bash > ~/.local/share/bash-completion/completions/adapterhub
      zsh   adapterhub completion zsh > "${fpath[1]}/_adapterhub"
      fish  adapterhub completion fish > ~/.config/fish/completions/adapterhub.fish
    """  # noqa: D301 (click wants the character itself)
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from .application import PROGRAM, application

    chosen = shell or PurePath(os.environ.get("SHELL", "")).name
    classes = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    if chosen not in classes:
        raise UsageError(f"there is no completion for the shell {chosen!r}", hint=f"name one of {', '.join(SHELLS)}")
    variable = f"_{PROGRAM.upper()}_COMPLETE"
    completer = classes[chosen](application, {}, PROGRAM, variable)
    # `source()` of bash would first look for a bash to ask for its version.
    script = completer.source_template % completer.source_vars()
    output.result({"shell": chosen, "script": script}, ids=[script], text=[script])
