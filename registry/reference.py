"""Reference: what a user writes to name an adapter.

sst2-bert   sst2-bert@1.0.0   sst2-bert@^1   acme::sst2-bert   an adapter of a registry
@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer                   a name that the archived AdapterHub used
hf://user/repo   hf://user/repo@revision   hf://user/repo@revision/folder
s3://bucket/key   az://container/key   gs://bucket/key   oci://host/repository:tag   https://host/path
./folder   /folder/file.safetensors   ~/file.zip                  a path; always with ./ , / or ~/ in front
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .schemes import BUCKETS
from .version import ANY, VersionRange

_SCHEMES = ("hf", *BUCKETS, "oci", "https")

_NAME = re.compile(r"@?[A-Za-z0-9](?:[A-Za-z0-9._/@-]*[A-Za-z0-9])?")
_REGISTRY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_ORGANISATION = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_HF = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[A-Za-z0-9._-]+|[^/@\s]+))?(?:/(?P<folder>.*))?"
)
_MAX_LENGTH = 2048
_HINT = "write name, name@version, registry::name, hf://user/repo@revision, or a path that begins with ./ or /"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One reference, taken apart.

    Law: Reference.parse(str(r)) == r, and str(Reference.parse(s)) is the canonical way to write s.

    Attributes:
        scheme: what kind of place it names; "name" is an adapter of a registry.
        name: the adapter's name, the Hub repository, the rest of the URL, or the path.
        registry: name of a configured registry, or None for the default one.
        versions: which versions are asked for.
        revision: commit, tag or branch of a Hub repository, or None.
        folder: folder within a Hub repository, or "".
    """

    scheme: str
    name: str
    registry: str | None = None
    versions: VersionRange = ANY
    revision: str | None = None
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that text writes.

        Raises:
            UsageError: text is none of the forms above.

        >>> str(Reference.parse("acme::sst2-bert@1.x"))
        'acme::sst2-bert@1'
        """
        _refuse_odd_text(text)
        if _is_path(text):
            return cls(scheme="path", name=_canonical_path(text))
        scheme, mark, rest = text.partition("://")
        if mark:
            return _parse_url(scheme, rest, text)
        return _parse_name(text)

    @property
    def path(self) -> Path:
        """The path that a reference of scheme "path" names, its ~ expanded."""
        if self.scheme != "path":
            raise UsageError(f"{self} is not a path")
        return Path(self.name).expanduser() if self.name.startswith("~") else Path(self.name)

    def __str__(self) -> str:
        if self.scheme == "path":
            return self.name
        if self.scheme == "name":
            registry = f"{self.registry}::" if self.registry else ""
            return f"{registry}{self.name}" + (f"@{self.versions}" if self.versions.clauses else "")
        revision = f"@{self.revision}" if self.revision else ""
        folder = f"/{self.folder}" if self.folder else ""
        return f"{self.scheme}://{self.name}{revision}{folder}"


def _refuse_odd_text(text: str) -> None:
    if not text or len(text) > _MAX_LENGTH or text != text.strip() or not text.isprintable():
        raise UsageError(f"{text[:60]!r} is not a reference", hint=_HINT)


def _is_path(text: str) -> bool:
    head = text.replace(os.sep, "/")
    drive = len(head) > 2 and head[0].isalpha() and head[1:3] == ":/"
    return head in {".", "..", "~"} or drive or head.startswith(("./", "../", "/", "~/", "file://"))


def _canonical_path(text: str) -> str:
    """Return a path as it is shown: with / between parts, ./ before a relative one, no needless dots."""
    text = text.removeprefix("file://")
    path = Path(text).as_posix()
    if text.startswith("~") or path.startswith(("/", "../")) or path in {".", ".."} or Path(text).is_absolute():
        return path
    return f"./{path}"


def _parse_url(scheme: str, rest: str, text: str) -> Reference:
    if scheme == "hf":
        return _parse_hf(rest, text)
    if scheme not in _SCHEMES:
        raise UsageError(f"{text!r} has an unknown scheme {scheme!r}", hint=f"known are {', '.join(_SCHEMES)}")
    host = rest.partition("/")[0]
    if not host or " " in rest:
        raise UsageError(f"{text!r} is not a complete URL", hint=_HINT)
    behind_a_container = scheme == "az" and ":" not in host
    if "@" in host and scheme != "oci" and not behind_a_container:
        raise UsageError(
            f"a URL of {host.rpartition('@')[2]} contains credentials",
            hint="leave them out; a remote asks for them itself",
        )
    return Reference(scheme=scheme, name=rest)


def _parse_hf(rest: str, text: str) -> Reference:
    match = _HF.fullmatch(rest)
    folder = (match["folder"] or "").strip("/") if match else ""
    if match is None or any(part in {"", ".", ".."} for part in folder.split("/") if folder):
        raise UsageError(
            f"{text!r} is not a Hub reference", hint="write hf://user/repo, or hf://user/repo@revision/folder"
        )
    return Reference(scheme="hf", name=match["repo"], revision=match["revision"], folder=folder)


def _parse_name(text: str) -> Reference:
    registry, mark, rest = text.rpartition("::")
    if mark and not _REGISTRY.fullmatch(registry):
        raise UsageError(f"{registry!r} in {text!r} is not the name of a registry", hint=_HINT)
    name, versions = _split_versions(rest)
    if not _NAME.fullmatch(name) or "//" in name or ".." in name:
        raise UsageError(f"{text!r} is not a reference", hint=_HINT)
    return Reference(scheme="name", name=name, registry=registry or None, versions=versions)


def _split_versions(text: str) -> tuple[str, VersionRange]:
    """Return name and range; in the archived AdapterHub's `task/subtask@organisation` all is the name."""
    name, mark, versions = text.rpartition("@")
    if not mark or not name:
        return text, ANY
    try:
        return name, VersionRange.parse(versions)
    except UsageError:
        if "/" in name and _ORGANISATION.fullmatch(versions):
            return text, ANY
        raise
