"""The remote of registries of OCI: `oci://host/name`, one repository for one adapter, and a tag for each version.

What there is to know of versions stands in oci_versions.py and oci_yanks.py. They are loaded when such a place is asked
for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ..errors import NotFoundError, UsageError
from .copies import State
from .remote import Source

if TYPE_CHECKING:
    from .oci_client import JSON
    from .oci_transport import Repository

SCHEME = "oci://"

T = TypeVar("T")


class Oci:
    """Reads layers of manifests."""

    network = True

    def takes(self, url: str) -> bool:
        """Return whether url names something in a registry of OCI."""
        return url.startswith(SCHEME)

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of a layer; see Remote.read."""
        from . import oci_client
        from .oci_versions import TITLE

        repository, reference, path = oci_client.parse(source.url)
        title = "/".join(filter(None, [path, source.path]))
        for layer in _manifest(repository, reference)["layers"]:
            if layer.get("annotations", {}).get(TITLE) == title:
                return oci_client.blob(repository, layer["digest"], source.start)
        raise NotFoundError(f"there is no {title} in {repository}@{reference}", hint="the repository is incomplete")


@functools.lru_cache(maxsize=64)
def _manifest(repository: Repository, known: str) -> JSON:
    """Return the manifest of a digest, which never changes."""
    from . import oci_client

    return oci_client.manifest(repository, oci_client.digest_of(known))[1]


class OciRegistry:
    """A repository in a registry of OCI, read as the registry of one adapter."""

    def __init__(self, url: str) -> None:
        from . import oci_client

        self.repository, reference, _ = oci_client.parse(url.rstrip("/"))
        self.url = str(self.repository)
        if reference:
            raise UsageError(f"{url} names one version", hint=f"the registry is {self.url}")

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None; see copies.Place. Its states are called by versions and yanks."""
        from . import oci_client
        from .oci_versions import found, index_of, state_of, versions_of
        from .oci_yanks import mark, marked, spoken_of

        tags = oci_client.tags(self.repository)
        versions = versions_of(tags)
        marks = _at_once(functools.partial(mark, self.repository, version) for version in spoken_of(tags, versions))
        said = [one.manifest for one in marks]
        if versions and tag == state_of([*versions, *said]):
            return None
        there = _at_once(functools.partial(found, self.repository, version) for version in versions)
        if not there:
            raise NotFoundError(f"there is no adapter at {self.url}", hint="`adapterhub push` makes one")
        readable = {one.version for one in there}
        index = marked(index_of(self.repository, there), [one for one in marks if one.version in readable])
        return State(tag=state_of([*readable, *said]), home=self.url, data=index.dumps())


def _at_once(tasks: Iterable[Callable[[], T | None]]) -> list[T]:
    """Return what tasks give, several at the same time; those that find nothing give None."""
    from . import receiving

    return [one for one in receiving.at_once(list(tasks), receiving.Meter((), None)) if one is not None]
