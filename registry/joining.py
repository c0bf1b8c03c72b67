"""Joining: what two registries have of one adapter, as one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import StateError
from .records import Artifact, Entry, Release, ascending


def joined(
    name: str, theirs: Entry, ours: Entry | None, url_of: Callable[[str, str, Artifact], str]
) -> tuple[Entry, list[tuple[Artifact, str]]]:
    """Return an entry with the versions and artifacts of two, and those that ours lacks, with the urls they get.

    What is said of the adapter and its versions besides is as theirs has it.

    Raises:
        StateError: they have different artifacts for a version, base model and format.
    """
    missing: list[tuple[Artifact, str]] = []
    versions = dict(ours.versions) if ours else {}
    for version, release in theirs.versions.items():
        there = versions.get(version)
        artifacts = list(there.artifacts) if there else []
        for artifact in release.artifacts:
            if not _is_among(artifact, artifacts, f"{name}@{version}"):
                missing.append((artifact, url_of(name, version, artifact)))
                artifacts.append(replace(artifact, url=missing[-1][1]))
        versions[version] = _ordered(release, artifacts)
    aliases = tuple(dict.fromkeys([*theirs.aliases, *(ours.aliases if ours else ())]))
    return replace(theirs, versions=dict(ascending(versions)), aliases=aliases), missing


def _is_among(artifact: Artifact, there: list[Artifact], what: str) -> bool:
    """Return whether an artifact is among those that are there.

    Raises:
        StateError: another one for its base model and format is.
    """
    for other in there:
        if (other.base.id, other.format) == (artifact.base.id, artifact.format):
            if other.identity == artifact.identity:
                return True
            raise StateError(
                f"{what} has another {artifact.format} artifact for {artifact.base.id} there, {other.identity}",
                hint="published versions never change; find out which one is right",
            )
    return False


def _ordered(release: Release, artifacts: list[Artifact]) -> Release:
    """Return a release with artifacts in the order in which it has them; the first is the default."""
    order = [(artifact.base.id, artifact.format) for artifact in release.artifacts]
    ranks = {key: rank for rank, key in enumerate(order)}
    placed = sorted(artifacts, key=lambda one: ranks.get((one.base.id, one.format), len(ranks)))
    return replace(release, artifacts=tuple(placed))
