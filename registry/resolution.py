"""From a reference to one artifact: names and aliases, version ranges, base models, formats and methods.

A name may belong to several entries, as `sentiment/sst-2@ukp` did in the archived AdapterHub, which chose by base model
and method. Here these have to leave entries for one base model; of them, the one whose name begins those of all others
is meant (`sst2-bert` before `sst2-bert-houlsby`). Everything else is an error that names them. A name that nothing is
called stands for those that are called so by any organisation (`sentiment/sst-2`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import NotFoundError, UsageError
from . import matching
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
    owners, _ = _called(lookup, name)
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise UsageError(f"{name!r} is another name of {_listed(owners)}", hint="name one of them")
    raise NotFoundError(f"there is no adapter {name!r} in {lookup.place}", hint=_near(lookup, name))


def _called(lookup: Lookup, name: str) -> tuple[list[str], Callable[[str], bool]]:
    """Return the entries that a name stands for, and whether an alias is one that says so."""
    wanted = matching.folded(name)
    if owners := lookup.owners(name):
        return owners, lambda alias: matching.folded(alias) == wanted
    owners = lookup.of_organisations(name) if "@" not in name else []
    return owners, lambda alias: matching.folded(alias).startswith(f"{wanted}@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an artifact has to be: for a base model, in a format, of a method; None is any."""

    base: str | None
    format: str | None
    method: str | None

    def __str__(self) -> str:
        texts = {"for base model": self.base, "in format": self.format, "of method": self.method}
        return " and ".join(f"{words} {text!r}" for words, text in texts.items() if text)


def resolve(
    lookup: Lookup,
    reference: Reference | str,
    *,
    base: str | None,
    format: str | None,  # noqa: A002
    method: str | None = None,
) -> Resolved:
    """Return the version and artifact that a reference means; see Lookup.resolve."""
    reference = Reference.parse(reference) if isinstance(reference, str) else reference
    if reference.scheme != "name":
        raise UsageError(f"{reference} does not name an adapter of a registry", hint="pull it directly")
    wanted = Wanted(base=base, format=format, method=method)
    owners, says_so = _called(lookup, reference.name)
    if len(owners) > 1:
        return _of_several(lookup, owners, reference, wanted, says_so)
    name = owners[0] if owners else find(lookup, reference.name)
    return _resolved(lookup, name, reference, wanted, says_so)


def _resolved(
    lookup: Lookup, name: str, reference: Reference, wanted: Wanted, says_so: Callable[[str], bool]
) -> Resolved:
    """Return the version and artifact of one entry."""
    entry = lookup.entry(name)
    versions = _versions(entry, name, reference)
    meant = _meant(entry, says_so)
    for version in versions:
        artifacts = fitting([a for a in entry.versions[version].artifacts if meant(a)], wanted)
        if artifacts:
            return Resolved(name=name, version=version, entry=entry, artifact=artifacts[0])
    raise _no_artifact(entry, name, versions[0], wanted)


def _of_several(
    lookup: Lookup,
    owners: Sequence[str],
    reference: Reference,
    wanted: Wanted,
    says_so: Callable[[str], bool],
) -> Resolved:
    """Return the one that is meant of several entries that have the name.

    Raises:
        NotFoundError: none has such an artifact.
        UsageError: it stays open which is meant.
    """
    found: list[Resolved] = []
    for name in owners:
        with contextlib.suppress(NotFoundError):
            found.append(_resolved(lookup, name, reference, wanted, says_so))
    if not found:
        raise NotFoundError(
            f"none of those called {reference.name!r} has an artifact {wanted}".rstrip(),
            hint=f"they are {_listed(list(owners))}",
        )
    plain = min(found, key=lambda resolved: len(resolved.name))
    beginnings = all(other is plain or other.name.startswith(f"{plain.name}-") for other in found)
    if beginnings and len({resolved.artifact.base.id for resolved in found}) == 1:
        return plain
    names = _listed([resolved.name for resolved in found])
    raise UsageError(
        f"{reference.name!r} is another name of {names}", hint="name one of them, or the base model (--base)"
    )


def _meant(entry: Entry, says_so: Callable[[str], bool]) -> Callable[[Artifact], bool]:
    """Return whether an artifact of an entry is meant by a name: each, unless the name is an alias of some only."""

    def has(artifact: Artifact) -> bool:
        return any(map(says_so, artifact.aliases))

    some = any(has(artifact) for release in entry.versions.values() for artifact in release.artifacts)
    return has if some else lambda artifact: True


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


def fitting(artifacts: Sequence[Artifact], wanted: Wanted) -> list[Artifact]:
    """Return the artifacts for the base model, in the format and of the method, in their order."""
    fitting = [
        artifact
        for artifact in artifacts
        if wanted.format in (None, artifact.format) and matching.has_method(artifact.method, wanted.method)
    ]
    if wanted.base is None:
        return fitting
    base = wanted.base.casefold()
    full = [artifact for artifact in fitting if artifact.base.id.casefold() == base]
    short = [artifact for artifact in fitting if artifact.base.id.rpartition("/")[2].casefold() == base]
    ids = sorted({artifact.base.id for artifact in short})
    if not full and len(ids) > 1:
        raise UsageError(f"base model {wanted.base!r} may be {_listed(ids)}", hint="write it in full")
    return full or short


def _no_artifact(entry: Entry, name: str, version: str, wanted: Wanted) -> NotFoundError:
    """Return the error that says what the version lacks and what it has."""
    there = sorted(
        {
            f"{artifact.base.id} ({f'{artifact.format}, {artifact.method}' if wanted.method else artifact.format})"
            for artifact in entry.versions[version].artifacts
        }
    )
    return NotFoundError(f"{name}@{version} has no artifact {wanted}".rstrip(), hint=f"it has {_listed(there)}")


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
