"""What is written to the Hugging Face Hub: repositories, commits on top of a known state, tags."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import AdapterHubError
from .contention import Stale
from .hf_client import BRANCH, Snapshot, api, asked, what


def create(repo: str, *, private: bool) -> None:
    """Make a repository, unless there is one.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: it cannot be made.
    """
    asked(lambda: api().create_repo(repo, private=private, exist_ok=True), what(repo))


def commit(found: Snapshot, adds: Mapping[str, Path | bytes], removed: Iterable[str], title: str) -> str:
    """Commit files to a repository in one step, on top of a snapshot, and return the commit's name.

    Raises:
        Stale: the snapshot is not the newest state any more; nothing was changed.
        AuthenticationError, OfflineError, AdapterHubError: the Hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    def send() -> str:
        # The operations remember what was uploaded, and serve once.
        sent = [CommitOperationAdd(path, str(file) if isinstance(file, Path) else file) for path, file in adds.items()]
        gone = [CommitOperationDelete(path) for path in removed]
        try:
            done = api().create_commit(
                found.repo, [*sent, *gone], commit_message=title, parent_commit=found.commit, revision=BRANCH
            )
        except HfHubHTTPError as error:
            if error.response.status_code in {409, 412}:
                raise Stale from error
            raise
        except (RuntimeError, ValueError) as error:
            # What happened to one of several uploads.
            raise error.__cause__ or AdapterHubError(f"{what(found.repo)} does not take the files: {error}") from error
        return str(done.oid)

    with _bars_on_terminals():
        return asked(send, what(found.repo))


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Let huggingface_hub show how far it is only where somebody watches."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            enable_progress_bars()


def tags(repo: str) -> dict[str, str]:
    """Return tag → commit of a repository.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: the Hub does not tell.
    """
    refs = asked(lambda: api().list_repo_refs(repo), what(repo))
    return {tag.name: tag.target_commit for tag in refs.tags}


def tag(repo: str, name: str, commit_name: str) -> None:
    """Give a commit a tag; nothing happens where a tag is called so.

    Raises:
        AuthenticationError, OfflineError, AdapterHubError: the Hub does not take it.
    """
    asked(lambda: api().create_tag(repo, tag=name, revision=commit_name, exist_ok=True), what(repo))
