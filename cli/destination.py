"""Where --out puts the adapter that a command makes, and what the adapter is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from ..errors import StateError, UsageError

ENDING = ".safetensors"

out = click.option(
    "--out",
    required=True,
    metavar="NAME",
    help="A name, NAME or NAME@VERSION, whose file lands here as NAME-VERSION.safetensors; or the path of a file.",
)


@dataclass(frozen=True, slots=True)
class Destination:
    """A file that is to be written.

    Attributes:
        path: the file.
        name: what the adapter in it is called.
        version: its version, "" without one.
    """

    path: Path
    name: str
    version: str = ""

    def check_free(self, force: bool) -> None:
        """Refuse a file that is there, unless it is to be replaced.

        Raises:
            StateError: it is.
        """
        if self.path.exists() and not force:
            raise StateError(f"{self.path} exists already", hint="choose another --out, or replace it with --force")


def destination(out: str, *, name: str | None = None, version: str = "") -> Destination:
    """Return what --out means: a path if it has a separator or the ending of a file, else a name.

    name, version: what other options say.

    Raises:
        UsageError: the versions differ, or what should be one is none, or a file's name gives none for an adapter.

    >>> destination("mine").path.name, destination("mine@1.0.0").path.name, destination("a/mine").path.name
    ('mine.safetensors', 'mine-1.0.0.safetensors', 'mine.safetensors')
    >>> destination("mine@1.0.0").name, destination("a/My Reviews.safetensors").name
    ('mine', 'my-reviews')
    """
    from ..converters.identity import manifest_name
    from ..registry import Version

    stem, mark, own = out.partition("@")
    if os.sep in out or out.endswith(ENDING) or out.startswith("~") or manifest_name(stem, "") != stem:
        path = Path(out).expanduser()
        path = path if path.suffix == ENDING else path.with_name(f"{path.name}{ENDING}")
        return Destination(path, name or _name_of(path), version)
    if version and own and version != own:
        raise UsageError(f"--out says version {own}, and --version {version}", hint="give one of them")
    if not mark:
        return Destination(Path(f"{stem}{ENDING}"), name or stem, version)
    return Destination(Path(f"{stem}-{Version.parse(own)}{ENDING}"), name or stem, own)


def _name_of(path: Path) -> str:
    """Return a file's name as that of an adapter."""
    from ..converters.identity import manifest_name

    stem = path.name.removesuffix(ENDING)
    if not any(letter.isalnum() for letter in stem):
        raise UsageError(f"{path.name!r} gives no name for the adapter", hint="give one with --name")
    return manifest_name(stem, "")
