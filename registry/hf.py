"""The remote of the Hugging Face Hub: `hf://user/repo[@revision][/path]`.

What there is to know of a repository is asked of huggingface_hub (hf_client.py). Bytes are streamed like those of any
web server: that resumes after a process died, and keeps the token with its host.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import NotFoundError, UsageError
from .copies import INDEX, MOST, State
from .hf_client import BRANCH, SCHEME, Snapshot, authorization, commit_of, file_url, parse, small_file
from .remote import Source


class Hub:
    """Reads files from repositories on the Hub."""

    network = True

    def takes(self, url: str) -> bool:
        """Return whether url is one of the Hub."""
        return url.startswith(SCHEME)

    def read(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of a file in a repository; see Remote.read."""
        from . import streaming

        place = parse(source.url)
        path = "/".join(filter(None, [place.folder, source.path]))
        url = file_url(place.name, place.revision or BRANCH, path)
        return streaming.stream(url, start=source.start, headers=authorization())


class HubRegistry:
    """A registry in a repository on the Hub: an index.json at its root."""

    def __init__(self, url: str) -> None:
        self.reference = parse(url.rstrip("/").removesuffix(f"/{INDEX}"))
        self.url = str(self.reference)
        if self.reference.folder:
            raise UsageError(f"{self.url} is not a registry", hint="write hf://user/repo or hf://user/repo@revision")

    def fetch(self, tag: str) -> State | None:
        """Return the index as it is now, or None; see copies.Place. Its states are called by their commits."""
        commit = commit_of(self.reference.name, self.reference.revision)
        if tag == commit:
            return None
        found = Snapshot(repo=self.reference.name, commit=commit, files=())
        try:
            data = small_file(found, INDEX, most=MOST)
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no registry at {self.url}: the repository has no {INDEX}",
                hint="`adapterhub push --create` makes one; one adapter's repository is written without --registry",
            ) from error
        return State(tag=commit, home=f"{SCHEME}{found.repo}@{commit}", data=data)

    def part(self, path: str, home: str, tag: str) -> State | None:
        """Return a file beside the index at the commit that the index is from, or None; see copies.Sharing."""
        from . import streaming

        place = parse(home)
        url = file_url(place.name, place.revision or BRANCH, path)
        found = streaming.document(url, most=MOST, etag=tag, headers=authorization())
        return None if found is None else State(tag=found.etag, home=home, data=found.data)
