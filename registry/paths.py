"""Paths that come from outside: which ones may be joined to a folder on any system.

A path is safe where it is relative, has `/` between its parts, and no part is `..`, `.`, empty, the name of a device,
or something that a system reads in another way (drives, streams, trailing dots and spaces, control characters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from ..errors import FormatError

HERE = "."
"""The relative url of a registry's own folder, where it is an artifact itself."""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_MAX_LENGTH = 240
_MAX_PART = 120


def fault(path: str) -> str:
    """Return what is wrong with a path that comes from outside, or "" where it is safe.

    >>> fault("../evil"), fault("sub/adapter.safetensors")
    ("has a part '..'", '')
    """
    if not path or len(path) > _MAX_LENGTH:
        return "is empty" if not path else f"is longer than {_MAX_LENGTH} characters"
    if path.startswith("/"):
        return "is absolute"
    if _FORBIDDEN.search(path) or not path.isprintable():
        return "holds a character that file names must not have"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return f"has a part {part!r}"
        if len(part) > _MAX_PART or part != part.rstrip(". ") or part != part.lstrip():
            return f"has a part {part[:40]!r} that not every system can store"
        if _DEVICE.fullmatch(part):
            return f"has a part {part!r} that names a device"
    return ""


def home_of(name: str, version: str, base: str) -> str:
    """Return the folder in a registry of all artifacts of a version for one base model.

    >>> home_of("me/sst2", "1.0.0", "google-bert/bert-base-uncased")
    'adapters/me/sst2/1.0.0/google-bert--bert-base-uncased'
    """
    return f"adapters/{name}/{version}/{base.replace('/', '--')}"


def is_url(text: str) -> bool:
    """Return whether text begins with a scheme; a single letter is a drive, not a scheme.

    >>> is_url("hf://user/repo"), is_url("folder/file"), is_url("C:/file")
    (True, False, False)
    """
    return _SCHEME.match(text) is not None


def fault_of_url(url: str) -> str:
    """Return what is wrong with an artifact's url, or "": the paths in local ones must be safe."""
    if url.startswith("bundled:"):
        return fault(url.removeprefix("bundled:"))
    if url == HERE:
        return ""
    if is_url(url):
        return "" if url.isprintable() and " " not in url else "holds a character that URLs must not have"
    return fault(url)


def faults_of_files(files: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with the paths of a folder's files, each alone and all together."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in files:
        if found := fault(path):
            yield f"path {path!r} {found}"
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            yield (
                f"path {path!r} is there twice"
                if seen[folded] == path
                else f"paths {seen[folded]!r} and {path!r} are one on some systems"
            )
        seen[folded] = path
        parts = folded.split("/")
        folders |= {"/".join(parts[:i]): path for i in range(1, len(parts))}
    for folded in seen.keys() & folders.keys():
        yield f"path {seen[folded]!r} is a file and, in {folders[folded]!r}, a folder"


def refuse_unsafe(files: Iterable[str], what: str) -> None:
    """Raise where a folder's files could not be laid out safely.

    Raises:
        FormatError: lists every fault.
    """
    faults = list(faults_of_files(files))
    if faults:
        raise FormatError(f"{what} names files that cannot be stored safely", faults=faults)
