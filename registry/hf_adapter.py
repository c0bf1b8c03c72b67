"""An adapter in a repository on the Hub, outside any index: which files it has, and what is remembered of them.

A repository may hold a native file, the files of PEFT or `adapters` at its root, those of `adapters` in a folder
`adapters`, and several of these at once; or a composition, with adapters beside it. Other files in it are left alone.
The Hub knows the SHA-256 of large files; small ones are fetched first and held against their git object.

    <cache>/hub/<mark of the repository>/<commit>.json                 its files, with their digests once known
    <cache>/hub/<mark of the repository>/<mark of the revision>.ref    the commit that a branch or tag meant last
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import arrangement
from ..composition_file import DOCUMENT, document_of
from ..composition_file import NAME as COMPOSITION
from ..errors import DigestError, FormatError, NotFoundError, OfflineError
from . import atomic, digest, hf_client
from .hf_client import BRANCH, HubFile, Snapshot
from .records import ArtifactFile, Content
from .reference import Reference
from .store import Store

NATIVE = "adapterhub.safetensors"
"""Name of the native file in repositories that are made here."""

ADAPTERS = "adapters"
"""Folder of the files of `adapters` where the root has those of PEFT."""

DOCUMENTS = ("adapter_config.json", "head_config.json", "adapter_fusion_config.json")
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTERS_WEIGHTS = (
    ("adapter.safetensors", "pytorch_adapter.bin"),
    ("model_head.safetensors", "pytorch_model_head.bin"),
    ("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"),
)
"""Names of weights; the first of each is taken where both are there."""

MOST_SMALL = 10 << 20
"""Bytes that a file may have of which the Hub does not know the SHA-256."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def content_of(reference: Reference, *, format: str | None, store: Store, offline: bool) -> Content:  # noqa: A002
    """Return the files of the adapter or composition that a reference of scheme "hf" names, as they are at one commit.

    Raises:
        NotFoundError: there is no such repository, revision or adapter, or a file beside a composition is not there.
        OfflineError: the network is switched off, and it was never pulled.
        DigestError: a small file is not what the repository lists.
        AuthenticationError, AdapterHubError: the Hub does not give it.
    """
    memory = _Memory(store.root / "hub", reference)
    found = memory.recall() if offline or _COMMIT.fullmatch(reference.revision or "") else None
    if found is None and offline:
        raise OfflineError(
            f"{reference} needs the network, which is switched off", hint="pull it once with the network"
        )
    if found is None:
        found = memory.with_digests(hf_client.snapshot(reference.name, reference.revision))
    wanted = _Wanted(found, store, offline)
    folder, files = _composition(wanted, reference, format) or chosen(found, reference.folder, format, str(reference))
    files = tuple(map(wanted.digested, files))
    if not offline:
        memory.keep(wanted.found)
    return _content(wanted.found, folder, files, reference)


@dataclass(slots=True)
class _Wanted:
    """The files of a repository, of which those that are wanted get their digests.

    Attributes:
        found: the repository, with the digests that are known.
        store: where small files are fetched to.
        offline: whether what is not known stays so.
    """

    found: Snapshot
    store: Store
    offline: bool

    def digested(self, file: HubFile) -> HubFile:
        """Return a file with its SHA-256; a small one is fetched for it."""
        if file.digest or self.offline:
            return file
        known = _digested(file, self.found, self.store)
        files = tuple(known if other.path == file.path else other for other in self.found.files)
        self.found = replace(self.found, files=files)
        return known

    def path(self, file: HubFile, what: str) -> Path:
        """Return a small file on this machine, fetched if it is not there any more."""
        here = self.store.find(file.digest) if file.digest else None
        if here is not None:
            return here
        if self.offline:
            raise OfflineError(f"{what} was not pulled completely", hint="pull it once with the network")
        data = hf_client.small_file(self.found, file.path, most=MOST_SMALL)
        return self.store.put([data], file.digest, len(data), f"{what}: {file.path}")


def _composition(
    wanted: _Wanted,
    reference: Reference,
    format: str | None,  # noqa: A002
) -> tuple[str, tuple[HubFile, ...]] | None:
    """Return the folder of a composition and its files, or its own path where none lie beside it; else None.

    A native file of ours goes before it.
    """
    names = _names(wanted.found, reference.folder)
    if DOCUMENT not in names or NATIVE in names or format not in (None, COMPOSITION):
        return None
    document = wanted.digested(names[DOCUMENT])
    path = wanted.path(document, str(reference))
    if document_of(path) is None:
        return None
    beside = [pin.beside for pin in arrangement.read(path).adapters.values() if pin.beside]
    missing = [name for name in beside if name not in names]
    if missing:
        raise NotFoundError(
            f"{reference} holds a composition without {', '.join(missing)}", hint="publish it anew as a whole"
        )
    files = (document, *(names[name] for name in dict.fromkeys(beside)))
    return (reference.folder, files) if beside else (document.path, files)


def chosen(
    found: Snapshot,
    folder: str,
    format: str | None,  # noqa: A002
    what: str,
) -> tuple[str, tuple[HubFile, ...]]:
    """Return the folder of an adapter and its files; a single native file has its own path in place of the folder.

    Raises:
        NotFoundError: there is none, or none in that format.
    """
    if folder and (single := found.find(folder)) is not None:
        return folder, (single,)
    sub = f"{folder}/{ADAPTERS}" if folder else ADAPTERS
    here, below = _names(found, folder), _names(found, sub)
    native = _native(here)
    if format in (None, "native") and native:
        return here[native].path, (here[native],)
    for place, names in ((folder, here), (sub, below)):
        for kind, files in (("peft", _peft(names)), ("adapters", _adapters(names))):
            if files and format in (None, kind):
                return place, tuple(names[name] for name in files)
    known = f"in format {format!r} " if format else ""
    raise NotFoundError(
        f"{what} holds no adapter {known}at commit {found.commit[:12]}",
        hint="name its folder: hf://user/repo@revision/folder; a registry is given with --registry",
    )


def _native(names: Iterable[str]) -> str | None:
    """Return the name of the native file: ours, or the only file of weights that no other format has."""
    if NATIVE in names:
        return NATIVE
    foreign = {*PEFT_WEIGHTS, *(name for pair in ADAPTERS_WEIGHTS for name in pair)}
    own = [name for name in names if name.endswith(".safetensors") and name not in foreign]
    return own[0] if len(own) == 1 and not set(DOCUMENTS) & set(names) else None


def _peft(names: Iterable[str]) -> list[str]:
    """Return the files of PEFT among names, or none."""
    weights = [name for name in PEFT_WEIGHTS if name in names][:1]
    return [DOCUMENTS[0], *weights] if weights and DOCUMENTS[0] in names else []


def _adapters(names: Iterable[str]) -> list[str]:
    """Return the files of `adapters` among names, or none; those of PEFT share the name of a document."""
    weights = [next((name for name in pair if name in names), "") for pair in ADAPTERS_WEIGHTS]
    documents = [name for name in DOCUMENTS if name in names]
    return [*documents, *filter(None, weights)] if documents and any(weights) else []


def _names(found: Snapshot, folder: str) -> dict[str, HubFile]:
    """Return name → file for the files that lie in a folder itself."""
    start = f"{folder}/" if folder else ""
    inside = {file.path.removeprefix(start): file for file in found.files if file.path.startswith(start)}
    return {name: file for name, file in inside.items() if "/" not in name}


def _digested(file: HubFile, found: Snapshot, store: Store) -> HubFile:
    """Return a small file with its SHA-256: it is fetched into the store, and held against its git object.

    Raises:
        DigestError: it is another file.
        FormatError: it is too large for that.
    """
    what = f"{hf_client.what(found.repo, found.commit[:12])}/{file.path}"
    if file.size > MOST_SMALL:
        raise FormatError(f"{what} has {file.size:,} bytes, and the Hub gives no digest of it")
    data = hf_client.small_file(found, file.path, most=MOST_SMALL)
    actual = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if actual != file.blob:
        raise DigestError(what, expected=f"git:{file.blob}", actual=f"git:{actual}")
    digest_text = digest.of_bytes(data)
    store.put([data], digest_text, len(data), what)
    return replace(file, digest=digest_text, size=len(data))


def _content(found: Snapshot, folder: str, files: tuple[HubFile, ...], reference: Reference) -> Content:
    """Return what the store takes."""
    if not all(file.digest for file in files):
        raise OfflineError(f"{reference} was not pulled completely", hint="pull it once with the network")
    home = f"{hf_client.SCHEME}{found.repo}@{found.commit}"
    url = f"{home}/{folder}" if folder else home
    if len(files) == 1 and files[0].path == folder:
        return Content(url=url, digest=files[0].digest, size=files[0].size)
    start = f"{folder}/" if folder else ""
    listed = (ArtifactFile(path=f.path.removeprefix(start), digest=f.digest, size=f.size) for f in files)
    return Content(url=url, files=tuple(listed))


@dataclass(frozen=True, slots=True)
class _Memory:
    """What is remembered of a repository."""

    root: Path
    reference: Reference

    @property
    def folder(self) -> Path:
        return self.root / digest.mark(f"{hf_client.endpoint()}/{self.reference.name}".encode())

    @property
    def ref(self) -> Path:
        return self.folder / f"{digest.mark((self.reference.revision or BRANCH).encode())}.ref"

    def recall(self) -> Snapshot | None:
        """Return the repository as it was last seen at the revision, or None."""
        revision = self.reference.revision or BRANCH
        try:
            commit = revision if _COMMIT.fullmatch(revision) else self.ref.read_text("utf-8").strip()
        except OSError:
            return None
        return self._read(commit)

    def with_digests(self, found: Snapshot) -> Snapshot:
        """Return a snapshot with what is remembered of the digests of its files."""
        known = {file.blob: file.digest for file in (self._read(found.commit) or found).files}
        return replace(found, files=tuple(replace(f, digest=f.digest or known.get(f.blob, "")) for f in found.files))

    def keep(self, found: Snapshot) -> None:
        """Remember a snapshot as the one that the revision means."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = json.dumps([asdict(file) for file in found.files], indent=1).encode()
            atomic.write(self.folder / f"{found.commit}.json", data)
            atomic.write(self.ref, found.commit.encode())
        except OSError as error:
            raise atomic.unwritable(self.folder, error) from error

    def _read(self, commit: str) -> Snapshot | None:
        try:
            files = json.loads((self.folder / f"{commit}.json").read_bytes())
            return Snapshot(repo=self.reference.name, commit=commit, files=tuple(HubFile(**file) for file in files))
        except (OSError, ValueError, TypeError):
            return None
