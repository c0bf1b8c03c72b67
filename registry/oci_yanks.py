"""Versions that were taken back in a repository of a registry of OCI: a tag `yank.<version>` for each.

What was published never changes, so that a version is yanked is said beside it: in a manifest without files, of type
YANK, whose annotations tell whether it still is, and why. To put a version back moves the tag to another such manifest,
since not every registry removes tags. Of two who say something about one version the last is heard; neither says more
than it was told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import FormatError, NotFoundError
from . import oci_client
from .index import Index
from .oci_transport import Repository
from .oci_versions import tag_of, version_of

YANK = "application/vnd.adapterhub.yank.v1"
BEGINNING = "yank."
YANKED, REASON = "adapterhub.yanked", "adapterhub.reason"
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is said about a version.

    Attributes:
        version: the version.
        manifest: digest of the manifest that says it.
        yanked: whether it is taken back.
        reason: why, for people.
    """

    version: str
    manifest: str
    yanked: bool
    reason: str


def yank_tag(version: str) -> str:
    """Return the tag under which it is said that a version was taken back.

    >>> yank_tag("1.0.0+cpu")
    'yank.1.0.0_cpu'
    """
    return BEGINNING + tag_of(version)


def spoken_of(tags: Iterable[str], versions: Iterable[str]) -> list[str]:
    """Return which of these versions something is said about under these tags."""
    there = {version_of(tag.removeprefix(BEGINNING)) for tag in tags if tag.startswith(BEGINNING)}
    return [version for version in versions if version in there]


def words(*, yanked: bool, reason: str) -> dict[str, str]:
    """Return the annotations of a manifest that says so."""
    return {YANKED: str(yanked).lower(), **({REASON: reason} if reason else {})}


def mark(repository: Repository, version: str) -> Mark | None:
    """Return what is said about a version, or None where its tag is just being set.

    Raises:
        FormatError: it is said in other words.
        AuthenticationError, OfflineError, AdapterHubError: it cannot be had.
    """
    try:
        known, content = oci_client.manifest(repository, yank_tag(version))
    except NotFoundError:
        return None
    said = content.get("annotations")
    found = said if isinstance(said, dict) else {}
    yanked, reason = _WORDS.get(str(found.get(YANKED))), found.get(REASON, "")
    if yanked is None or not isinstance(reason, str):
        raise FormatError(f"{repository}:{yank_tag(version)} does not say whether {version} is yanked")
    return Mark(version=version, manifest=known, yanked=yanked, reason=reason)


def marked(index: Index, marks: Iterable[Mark]) -> Index:
    """Return the index of a repository with what is said about its versions."""
    (name,) = index.adapters
    for one in marks:
        index = index.yank(name, one.version, yanked=one.yanked, reason=one.reason)
    return index
