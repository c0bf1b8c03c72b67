"""From a reference to one artifact: names and aliases, version ranges, base models and formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import NotFoundError, UsageError
from .records import Artifact, Entry, Release
from .reference import Reference
from .version import Version

if TYPE_CHECKING:
    from .lookup import Lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means in an index.

    Attributes:
        name: name of the entry, also where an alias was asked for.
        version: the version chosen.
        entry: all that is known of the adapter.
        artifact: the bytes to use.
    """

    name: str
    version: str
    entry: Entry
    artifact: Artifact

    @property
    def release(self) -> Release:
        """The version chosen, with all its artifacts."""
        return self.entry.versions[self.version]


def find(lookup: Lookup, name: str) -> str:
    """Return the name of the entry that name or an alias stands for; see Lookup.find."""
    owners = lookup.owners(name)
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise UsageError(f"{name!r} is another name of {_listed(owners)}", hint="name one of them")
    raise NotFoundError(f"there is no adapter {name!r} in {lookup.place}", hint=_near(lookup, name))


def resolve(lookup: Lookup, reference: Reference | str, *, base: str | None, format: str | None) -> Resolved:  # noqa: A002
    """Return the version and artifact that a reference means; see Lookup.resolve."""
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    if reference.scheme != "name":
        raise UsageError(f"{reference} does not name an adapter of a registry", hint="pull it directly")
    name = find(lookup, reference.name)
    entry = lookup.entry(name)
    versions = _versions(entry, name, reference)
    for version in versions:
        artifacts = fitting(entry.versions[version].artifacts, base, format)
        if artifacts:
            return Resolved(name=name, version=version, entry=entry, artifact=artifacts[0])
    raise _no_artifact(entry, name, versions[0], base, format)


def _versions(entry: Entry, name: str, reference: Reference) -> list[str]:
    """Return the versions that may be chosen, best first."""
    exact = reference.versions.exact
    usable = [Version.parse(text) for text, release in entry.versions.items() if exact or not release.yanked]
    chosen = reference.versions.select(usable)
    if not chosen and not reference.versions.clauses:
        raise NotFoundError(f"{name} has no version to choose", hint=_available(entry))
    if not chosen:
        raise NotFoundError(f"{name} has no version {reference.versions}", hint=_available(entry))
    return [str(version) for version in chosen]


def _available(entry: Entry) -> str:
    """Return the hint that lists the versions, those to be asked for exactly marked."""
    marks = [
        f"{text} (yanked)" if release.yanked else f"{text} (pre-release)" if Version.parse(text).prerelease else text
        for text, release in entry.versions.items()
    ]
    marked = any(mark.endswith(")") for mark in marks)
    return f"it has {_listed(marks)}" + ("; ask for a marked one by its exact version" if marked else "")


def fitting(artifacts: tuple[Artifact, ...], base: str | None, format: str | None) -> list[Artifact]:  # noqa: A002
    """Return the artifacts for the base model and in the format, in their order."""
    fitting = [artifact for artifact in artifacts if format in (None, artifact.format)]
    if base is None:
        return fitting
    wanted = base.casefold()
    full = [artifact for artifact in fitting if artifact.base.id.casefold() == wanted]
    short = [artifact for artifact in fitting if artifact.base.id.rpartition("/")[2].casefold() == wanted]
    ids = sorted({artifact.base.id for artifact in short})
    if not full and len(ids) > 1:
        raise UsageError(f"base model {base!r} may be {_listed(ids)}", hint="write it in full")
    return full or short


def _no_artifact(entry: Entry, name: str, version: str, base: str | None, format: str | None) -> NotFoundError:  # noqa: A002
    """Return the error that says what the version lacks and what it has."""
    lacking = " and ".join(
        text for text in (base and f"for base model {base!r}", format and f"in format {format!r}") if text
    )
    there = sorted({f"{artifact.base.id} ({artifact.format})" for artifact in entry.versions[version].artifacts})
    return NotFoundError(f"{name}@{version} has no artifact {lacking}", hint=f"it has {_listed(there)}")


def _near(lookup: Lookup, name: str) -> str:
    """Return the hint that names the entries that come near."""
    if lookup.empty:
        return "it is empty"
    nearest = lookup.near(name)
    if nearest:
        return f"did you mean {_listed(nearest, 'or')}?"
    return "`adapterhub list` shows what there is; a file or folder is written with ./ in front"


def _listed(texts: list[str], last: str = "and") -> str:
    """Return texts as words of a sentence, cut after ten.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    shown = texts if len(texts) <= 10 else [*texts[:10], f"{len(texts) - 10} more"]
    return f" {last} ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
