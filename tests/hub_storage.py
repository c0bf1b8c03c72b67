"""Repositories as the Hugging Face Hub keeps them: commits, branches, tags, large files; in memory.

There is no hub that can be installed and run for tests; this and hub_double.py speak as much of its protocol as
huggingface_hub, PEFT and the library `adapters` use to read and to publish.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LARGE = (".safetensors", ".bin")
"""Files with these endings are large ones: kept by their SHA-256, beside the commits."""


class Refusal(Exception):  # noqa: N818 (an answer, as others are)
    """An answer with a status of failure."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True)
class StoredFile:
    """One file in a commit."""

    data: bytes
    blob: str
    large: str = ""

    @classmethod
    def of(cls, data: bytes, *, large: bool) -> StoredFile:
        """Return the file with its git object: of a large file that is the pointer to it."""
        if not large:
            return cls(data, git_blob(data))
        sha = hashlib.sha256(data).hexdigest()
        return cls(data, git_blob(pointer(sha, len(data))), sha)


@dataclass(frozen=True)
class Commit:
    """One commit."""

    parent: str
    title: str
    files: Mapping[str, StoredFile]


@dataclass
class Repository:
    """One repository; its branch is called main."""

    private: bool
    head: str
    commits: dict[str, Commit]
    tags: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str:
        """Return the commit that a branch, tag or commit names."""
        found = self.head if revision in ("main", "refs/heads/main") else self.tags.get(revision, revision)
        if found not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def files(self, revision: str) -> Mapping[str, StoredFile]:
        """Return the files at a revision."""
        return self.commits[self.commit_of(revision)].files


class Storage:
    """All repositories and large files."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self._numbers = itertools.count()

    def get(self, name: str) -> Repository:
        """Return the repository called so."""
        if name not in self.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.repositories[name]

    def create(self, name: str, *, private: bool) -> bool:
        """Make an empty repository, and return whether there was none."""
        with self.lock:
            if name in self.repositories:
                return False
            sha = self._name()
            self.repositories[name] = Repository(private, sha, {sha: Commit("", "initial commit", {})})
            return True

    def commit(self, name: str, title: str, parent: str | None, changes: Iterable[Mapping[str, Any]]) -> str:
        """Add a commit to main, and return its name; parent is the commit that the client believes to be the newest.

        changes: (key, value) as the client sends them: file, lfsFile and deletedFile.
        """
        with self.lock:
            repository = self.get(name)
            if parent not in (None, repository.head):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repository.files("main"))
            for change in changes:
                self._change(files, change["key"], change["value"])
            sha = self._name()
            repository.commits[sha] = Commit(repository.head, title, files)
            repository.head = sha
            return sha

    def tag(self, name: str, tag: str, revision: str) -> None:
        """Give a commit a further name."""
        with self.lock:
            repository = self.get(name)
            if tag in repository.tags:
                raise Refusal(409, f"Tag {tag} already exists")
            repository.tags[tag] = repository.commit_of(revision)

    def put(self, name: str, files: Mapping[str, bytes]) -> str:
        """Make a repository if there is none, commit files to it as a user may do, and return the commit."""
        self.create(name, private=False)
        with self.lock:
            stored = {path: StoredFile.of(data, large=path.endswith(LARGE)) for path, data in files.items()}
            self.large.update({file.large: file.data for file in stored.values() if file.large})
            repository, sha = self.get(name), self._name()
            repository.commits[sha] = Commit(repository.head, "by hand", {**repository.files("main"), **stored})
            repository.head = sha
            return sha

    def _change(self, files: dict[str, StoredFile], kind: str, value: Mapping[str, Any]) -> None:
        import base64

        path = value["path"]
        if kind == "file":
            files[path] = StoredFile.of(base64.b64decode(value["content"]), large=False)
        elif kind == "lfsFile":
            if value["oid"] not in self.large:
                raise Refusal(400, f"LFS object {value['oid']} does not exist")
            files[path] = StoredFile.of(self.large[value["oid"]], large=True)
        elif kind == "deletedFile":
            if files.pop(path, None) is None:
                raise Refusal(404, f"there is no {path}", "EntryNotFound")
        else:
            raise Refusal(400, f"unknown change {kind}")

    def _name(self) -> str:
        return hashlib.sha1(b"%d" % next(self._numbers)).hexdigest()


def git_blob(data: bytes) -> str:
    """Return the name of bytes as a git object."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(sha: str, size: int) -> bytes:
    """Return what git keeps in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()
