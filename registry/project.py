"""Project: what a folder with an adapterhub.toml asks for, and whether its lock says just that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import schemas
from ..errors import NotFoundError, SchemaError, StateError, UsageError
from . import lock as locks
from .lock import Lock, LockedAdapter
from .reference import Reference
from .resolution import Wanted as Choice
from .resolution import fitting
from .settings import PROJECT_FILE, Settings

_FIELDS = ("reference", "base", "format", "method")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a project asks for under one name.

    Attributes:
        reference: an adapter of a registry, or of a repository.
        base: the base model to choose an artifact for, or None.
        format: the format to choose an artifact of, or None.
        method: the method to choose an artifact of, or None.
    """

    reference: Reference
    base: str | None = None
    format: str | None = None
    method: str | None = None

    def fault(self, locked: LockedAdapter) -> str:
        """Return why a pin is not what is asked for, or "" where it is."""
        choice = Choice(base=self.base, format=self.format, method=self.method)
        if locked.reference != str(self.reference):
            return f"it asks for {self.reference}, pinned is {locked.reference}"
        if locked.artifact is not None and not fitting((locked.artifact,), choice):
            pinned = f"{locked.artifact.base.id} ({locked.artifact.format})"
            return f"it asks for one {choice}, pinned is that for {pinned}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project asks for.

    Attributes:
        folder: the folder of its file; the lock lies there too.
        wanted: name within the project → what is asked for.
    """

    folder: Path
    wanted: Mapping[str, Wanted]

    @classmethod
    def load(cls, settings: Settings) -> Project:
        """Return the project of the settings.

        Raises:
            NotFoundError: there is no project file in the working folder or above.
            UsageError: its table [adapters] cannot be understood; lists every fault.
        """
        if settings.project is None:
            raise NotFoundError(
                f"there is no {PROJECT_FILE} in this folder or above",
                hint='write one with a table [adapters]: reviews = "sst2-bert@^1"',
            )
        faults: list[str] = []
        wanted = dict(_wanted(settings.adapters, faults))
        if faults:
            raise UsageError(
                f"{settings.project}: {'; '.join(faults)}",
                hint='write name = "reference", or name = { reference = "…", base = "…", format = "…" }',
            )
        return cls(folder=settings.project.parent, wanted=wanted)

    @property
    def path(self) -> Path:
        """Where the lock lies."""
        return self.folder / locks.FILE

    def locked(self) -> Lock:
        """Return the lock, which says just what the project asks for.

        Raises:
            NotFoundError: there is none.
            StateError: it is stale; says what differs.
        """
        found = Lock.load(self.path)
        stale = list(self.stale(found))
        if stale:
            raise StateError(f"{self.path} is stale: {'; '.join(stale)}", hint="`adapterhub lock` brings it up to date")
        return found

    def stale(self, lock: Lock) -> Iterator[str]:
        """Yield how a lock differs from what is asked for."""
        for name, wanted in sorted(self.wanted.items()):
            pinned = lock.adapters.get(name)
            if pinned is None:
                yield f"{name!r} is not pinned"
            elif fault := wanted.fault(pinned):
                yield f"{name!r}: {fault}"
        yield from (f"{name!r} is not asked for any more" for name in sorted(lock.adapters.keys() - self.wanted.keys()))


def _wanted(table: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, Wanted]]:
    """Yield name and what is asked for; what cannot be understood is added to faults."""
    for name, said in table.items():
        fields = {"reference": said} if isinstance(said, str) else said
        if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
            faults.append(f"{name!r} is neither text nor a table of texts")
        elif set(fields) - set(_FIELDS) or "reference" not in fields:
            faults.append(f"{name!r} has other fields than {', '.join(_FIELDS)}, or no reference")
        else:
            try:
                schemas.check(name, "index", part="name")
                yield name, Wanted(**{**fields, "reference": _reference(fields["reference"])})
            except SchemaError:
                faults.append(f"{name!r} is not a name (lower-case letters, digits, and . _ - within)")
            except UsageError as error:
                faults.append(f"{name!r}: {error.message}")


def _reference(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.scheme == "path":
        raise UsageError(f"{text!r} is a path, which can be used as it is and is not pinned")
    return reference
