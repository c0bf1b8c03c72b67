"""What is asked of the Hugging Face Hub, by huggingface_hub with the user's token and endpoint; errors are ours."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from ..errors import AdapterHubError, AuthenticationError, NotFoundError, OfflineError, UsageError
from .reference import Reference
from .version import Version

if TYPE_CHECKING:
    from huggingface_hub import HfApi, errors

    from . import streaming

T = TypeVar("T")

SCHEME = "hf://"
BRANCH = "main"
API_SECONDS = 30.0
CREDENTIALS = "set HF_TOKEN, or `hf auth login`; a private repository looks as if it did not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at a commit.

    Attributes:
        path: its path in the repository.
        size: its bytes' number.
        blob: SHA-1 of the file as a git object.
        digest: `sha256:<hex>` where the Hub knows it, as it does of large files, else "".
    """

    path: str
    size: int
    blob: str
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A repository at a commit."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]

    def find(self, path: str) -> HubFile | None:
        """Return the file at a path, or None."""
        return next((file for file in self.files if file.path == path), None)


def parse(url: str) -> Reference:
    """Return the reference of a URL of the Hub.

    Raises:
        UsageError: it is none.
    """
    reference = Reference.parse(url)
    if reference.scheme != "hf":
        raise UsageError(f"{url} is no place on the Hub", hint="write hf://user/repo")
    return reference


def what(repo: str, revision: str | None = None) -> str:
    """Return how errors call a place on the Hub."""
    return f"{SCHEME}{repo}" + (f"@{revision}" if revision else "")


def endpoint() -> str:
    """Return the address of the Hub: $HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def api() -> HfApi:
    """Return the client of the Hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="adapterhub")


def authorization() -> dict[str, str]:
    """Return the headers that say who asks: none without a token."""
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def file_url(repo: str, revision: str, path: str) -> str:
    """Return the address of a file in a repository."""
    return f"{endpoint()}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def small_file(found: Snapshot, path: str, *, most: int) -> bytes:
    """Return the bytes of a file of a snapshot, at most so many.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had, or is larger.
    """
    from . import streaming

    document = streaming.document(file_url(found.repo, found.commit, path), most=most, headers=authorization())
    return document.data if document is not None else b""


def snapshot(repo: str, revision: str | None = None) -> Snapshot:
    """Return what a repository holds at a revision; for 1.2.0 the tag v1.2.0 is looked up too.

    Raises:
        NotFoundError: there is no such repository or revision.
        AuthenticationError, OfflineError, AdapterHubError: the Hub does not tell.
    """
    return _at(repo, revision, _snapshot)


def _at(repo: str, revision: str | None, ask: Callable[[str, str | None], T]) -> T:
    """Return what is known of a repository at a revision, or at the tag that is called so with a v in front."""
    try:
        return asked(lambda: ask(repo, revision), what(repo, revision))
    except NotFoundError:
        if revision is None or not _is_version(revision):
            raise
        return asked(lambda: ask(repo, f"v{revision}"), what(repo, revision))


def commit_of(repo: str, revision: str | None = None) -> str:
    """Return the commit that a revision means; the files, of which there may be many, are not asked for.

    Raises:
        NotFoundError: there is no such repository or revision.
        AuthenticationError, OfflineError, AdapterHubError: the Hub does not tell.
    """
    return _at(repo, revision, _commit)


def _commit(repo: str, revision: str | None) -> str:
    info = api().model_info(repo, revision=revision, expand=["sha"], timeout=API_SECONDS)
    if not info.sha:
        raise AdapterHubError(f"the Hub does not tell the commit of {what(repo, revision)}")
    return info.sha


def cached_commit(repo: str, revision: str | None = None) -> str | None:
    """Return the commit that a revision meant when the cache of the Hub on this machine last asked, or None."""
    from huggingface_hub import constants

    ref = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs" / (revision or BRANCH)
    try:
        return ref.read_text("utf-8").strip() or None
    except OSError:
        return None


OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "openvino/*", "coreml/*", "*.tflite", "*.gguf")
"""Weights of a base model that nothing here reads."""


def base_model(repo: str, revision: str) -> Path:
    """Return the folder of a base model at a commit in the cache of the Hub, fetched if need be.

    Its weights are fetched in one form: safetensors, where it has them.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    found = snapshot(repo, revision)
    safe = any(file.path.endswith(".safetensors") for file in found.files)
    ignored = [*OTHER_WEIGHTS, *(("*.bin", "*.pt", "*.pth", "*.ckpt") if safe else ())]

    def fetch() -> str:
        return str(snapshot_download(repo, revision=found.commit, ignore_patterns=ignored, endpoint=endpoint()))

    return Path(asked(fetch, what(repo, revision)))


def _is_version(text: str) -> bool:
    try:
        return bool(Version.parse(text))
    except UsageError:
        return False


def _snapshot(repo: str, revision: str | None) -> Snapshot:
    info = api().model_info(repo, revision=revision, files_metadata=True, timeout=API_SECONDS)
    files = [
        HubFile(
            path=sibling.rfilename,
            size=sibling.size or 0,
            blob=sibling.blob_id or "",
            digest=f"sha256:{sibling.lfs.sha256}" if sibling.lfs else "",
        )
        for sibling in info.siblings or ()
    ]
    return Snapshot(repo=repo, commit=info.sha or "", files=tuple(files))


def asked(function: Callable[[], T], place: str) -> T:
    """Return what a function of huggingface_hub returns; what may pass by itself is tried again.

    Raises:
        NotFoundError, AuthenticationError, OfflineError, AdapterHubError: in place of its errors.
    """
    from . import streaming

    return streaming.asked(function, functools.partial(our_errors, place))


@contextmanager
def our_errors(place: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours.

    Raises:
        NotFoundError: there is no such repository, revision or file, or only for others.
        AuthenticationError: the Hub wants a token, or another one.
        OfflineError: the network is switched off.
        streaming.Passing: the Hub cannot be reached now.
        AdapterHubError: it refuses.
    """
    from huggingface_hub import errors

    from . import streaming

    try:
        with streaming.passing_errors(place):
            yield
    except errors.OfflineModeIsEnabled as error:
        raise OfflineError(f"{place} needs the network, which is switched off", hint="unset HF_HUB_OFFLINE") from error
    except (errors.GatedRepoError, errors.DisabledRepoError, errors.LocalTokenNotFoundError) as error:
        raise AuthenticationError(f"{place} asks for credentials", hint=CREDENTIALS) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise NotFoundError(f"there is no {place}", hint=CREDENTIALS) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{place} is not a place on the Hub: {error}", hint="write hf://user/repo") from error
    except errors.HfHubHTTPError as error:
        raise _refused(error, place) from error
    except ConnectionError as error:
        # Of hf_xet, which has no errors of its own.
        raise streaming.Passing(
            OfflineError(f"{place} cannot be reached: {error}", hint=streaming.UNREACHABLE)
        ) from error


def _refused(error: errors.HfHubHTTPError, place: str) -> AdapterHubError | streaming.Passing:
    """Return our error for an answer with a status of failure."""
    from . import streaming

    try:
        streaming.refuse(error.response.status_code, error.response.headers, place)
    except AuthenticationError:
        return AuthenticationError(f"{place} refuses the credentials", hint=CREDENTIALS)
    except (AdapterHubError, streaming.Passing) as ours:
        return ours
    return AdapterHubError(f"{place} cannot be read: {error}")
