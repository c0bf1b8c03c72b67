"""The versions of an adapter in a repository of a registry of OCI: a tag for each.

A version is a manifest of type ADAPTER. Its config is an index.json of that version alone, with relative urls; its
layers are the files, each with its path for a title, as `oras pull` lays them out. The index of a repository is made of
those of its tags; it names files by the digest of the manifest, which stays true wherever a tag goes.

    application/vnd.adapterhub.index.v1+json      the config
    application/vnd.adapterhub.weights.v1         a layer of weights
    application/json, application/octet-stream    other layers
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import FormatError, NotFoundError, UsageError
from . import digest, oci_client, paths
from .copies import INDEX, MOST
from .index import Entries, Index
from .oci_transport import Repository
from .records import Artifact, Entry
from .reference import Reference
from .version import Version

ADAPTER = "application/vnd.adapterhub.adapter.v1"
CONFIG = "application/vnd.adapterhub.index.v1+json"
TITLE = "org.opencontainers.image.title"


def state_of(parts: Iterable[str]) -> str:
    """Return what stands for a repository with these versions, which never change, and manifests beside them."""
    return digest.of_bytes("\n".join(sorted(parts)).encode())


def named(reference: Reference) -> tuple[str, str]:
    """Return the registry that `oci://host/name:tag` asks, and the version, or "" where it names none.

    Raises:
        UsageError: it names something else than a version.
    """
    repository, tag, _ = oci_client.parse(str(reference))
    if tag.startswith("sha256:"):
        raise UsageError(f"{reference} names a manifest", hint=f"name a version: {repository}:1.0.0")
    return str(repository), version_of(tag)


def tag_of(version: str) -> str:
    """Return the tag of a version; what tags cannot have is written another way.

    >>> tag_of("1.0.0+cpu"), version_of("1.0.0_cpu")
    ('1.0.0_cpu', '1.0.0+cpu')
    """
    return version.replace("+", "_")


def version_of(tag: str) -> str:
    """Return the version of a tag; see tag_of."""
    return tag.replace("_", "+")


def versions_of(tags: list[str]) -> dict[str, str]:
    """Return version → tag for the tags that are versions."""
    return {version_of(tag): tag for tag in tags if _is_version(version_of(tag))}


def _is_version(text: str) -> bool:
    try:
        return str(Version.parse(text)) == text
    except UsageError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One version in a repository.

    Attributes:
        manifest: digest of its manifest.
        index: what it says of itself, alone; its urls are relative.
    """

    manifest: str
    index: Index

    @property
    def name(self) -> str:
        """The name of its entry."""
        return next(iter(self.index.adapters))

    @property
    def entry(self) -> Entry:
        """Its entry, with this version alone."""
        return self.index.adapters[self.name]

    @property
    def version(self) -> str:
        """Its version."""
        return next(iter(self.entry.versions))


def found(repository: Repository, version: str, *, actions: str = "pull") -> Found | None:
    """Return a version in a repository, or None where its tag is just being set: it is listed before it can be read.

    Raises:
        FormatError, SchemaError: it is no adapter, or another version than its tag says.
        AuthenticationError, OfflineError, AdapterHubError: it cannot be had.
    """
    try:
        known, content = oci_client.manifest(repository, tag_of(version), actions=actions)
    except NotFoundError:
        return None
    what = f"{repository}:{tag_of(version)}"
    if content["config"].get("mediaType") != CONFIG:
        raise FormatError(f"{what} is no adapter", hint="adapters are pushed to repositories of their own")
    data = oci_client.small_blob(repository, content["config"]["digest"], most=MOST)
    index = Index.loads(data, f"{INDEX} of {what}")
    if len(index.adapters) != 1 or list(next(iter(index.adapters.values())).versions) != [version]:
        raise FormatError(f"{INDEX} of {what} says something else than its tag")
    return Found(manifest=known, index=index)


def index_of(repository: Repository, versions: list[Found]) -> Index:
    """Return the index of these versions of a repository; what an entry says is what its newest version said.

    Raises:
        FormatError, SchemaError: they are of several adapters, or contradict each other.
    """
    names = sorted({one.name for one in versions})
    if len(names) != 1:
        raise FormatError(f"{repository} holds versions of several adapters: {', '.join(names)}")
    releases = {}
    for one in versions:
        release = one.entry.versions[one.version]
        pinned = tuple(_pinned(artifact, repository, one.manifest) for artifact in release.artifacts)
        releases[one.version] = replace(release, artifacts=pinned)
    newest = max(versions, key=lambda one: Version.parse(one.version))
    index = Index(adapters=Entries({names[0]: replace(newest.entry, versions=releases).to_json()}))
    index.check(f"{INDEX} of {repository}")
    return index


def _pinned(artifact: Artifact, repository: Repository, manifest: str) -> Artifact:
    """Return an artifact whose url names the manifest that it is in.

    Raises:
        FormatError: its url is none of a layer.
    """
    if paths.is_url(artifact.url) or paths.fault(artifact.url):
        raise FormatError(f"url {artifact.url!r} in {repository} is no path of a layer")
    return replace(artifact, url=f"{repository}@{manifest}/{artifact.url}")
