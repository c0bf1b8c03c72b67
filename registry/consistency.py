"""What a schema cannot say about an index: names that clash, versions that do, paths that leave their folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import schemas
from ..errors import SchemaError, UsageError
from . import paths
from .records import Artifact, Entry, Release
from .reference import Reference
from .version import Version

if TYPE_CHECKING:
    from .index import Entries, Index


def check(index: Index, what: str) -> None:
    """Raise where the index breaks its schema or contradicts itself.

    Raises:
        SchemaError: lists every fault with its path.
    """
    document = {**index.marks(), "adapters": dict(index.adapters.raw)}
    schemas.check(document, "index", what=what)
    faults = [*_clashing_names(index.adapters)]
    if index.layout and index.adapters:
        faults.append("adapters: the index is sharded and holds entries all the same")
    for name, entry in index.adapters.items():
        faults += (f"adapters[{name!r}].{fault}" for fault in _entry(entry))
    if faults:
        raise SchemaError(what, faults)


def _clashing_names(entries: Entries) -> Iterator[str]:
    """Yield a fault for each name or alias that two entries claim; capitals and a leading @ do not tell them apart.

    Several may have an alias with an organisation, like sentiment/sst-2@ukp: base model and method choose among them.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for name, raw in entries.raw.items():
        for spelling in (name, *raw.get("aliases", ())):
            owners[spelling.removeprefix("@").casefold()].add(name)
    for spelling, names in owners.items():
        if len(names) > 1 and "@" not in spelling:
            yield f"adapters: {spelling!r} is a name of {' and of '.join(map(repr, sorted(names)))}"


def _entry(entry: Entry) -> Iterator[str]:
    precedences = Counter(Version.parse(text).precedence for text in entry.versions)
    for text, release in entry.versions.items():
        if precedences[Version.parse(text).precedence] > 1:
            yield f"versions[{text!r}]: another version differs from it only in the build text after +"
        yield from (f"versions[{text!r}].{fault}" for fault in _release(release, entry.aliases))


def _release(release: Release, aliases: tuple[str, ...]) -> Iterator[str]:
    seen = set()
    for i, artifact in enumerate(release.artifacts):
        for alias in sorted(set(artifact.aliases) - set(aliases)):
            yield f"artifacts[{i}].aliases: {alias!r} is none of the entry"
        key = (artifact.base.id.casefold(), artifact.format)
        if key in seen:
            yield f"artifacts[{i}]: a second {artifact.format} artifact for {artifact.base.id}"
        seen.add(key)
        yield from (f"artifacts[{i}].{fault}" for fault in _artifact(artifact))


def _artifact(artifact: Artifact) -> Iterator[str]:
    if fault := paths.fault_of_url(artifact.url):
        yield f"url: {artifact.url!r} {fault}"
    yield from (f"files: {fault}" for fault in paths.faults_of_files([file.path for file in artifact.files]))
    yield from (f"sources: {url!r} is no URL" for url in artifact.sources if "://" not in url)
    for text in artifact.requires:
        try:
            Reference.parse(text)
        except UsageError as error:
            yield f"requires: {error.message}"
