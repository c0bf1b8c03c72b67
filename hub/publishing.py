"""Compositions into the index of a registry that is a folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..arrangement import Arrangement
from ..composition_file import DOCUMENT, NAME
from ..errors import NotFoundError, StateError, UnsupportedError, UsageError
from ..registry import Artifact, ArtifactBase, ArtifactFile, Index, Settings, digest, editing

INDEX = "index.json"
LONGEST = 2000
"""So many characters of a composition stand in an index."""


def publish(
    whole: Arrangement, beside: Mapping[str, bytes], registry: Path, name: str, *, dry_run: bool = False
) -> Path:
    """Write a composition into the folder of a registry, enter it in the index, and return its path.

    Args:
        whole: the composition, with its pins.
        beside: file name → adapter that lies beside it.
        registry: folder with an index.json, which is made if it is not there.
        name: what the file or folder is called in it.
        dry_run: check all, and write nothing.

    Raises:
        UsageError: it has no version, or does not say its base model.
        NotFoundError: there is no such folder.
        StateError: the version is published already, with other bytes.
    """
    from ..converters import composed

    place = registry if registry.name == INDEX else registry / INDEX
    if not place.parent.is_dir():
        raise NotFoundError(f"there is no folder {registry}", hint="name the folder of a registry, or make it first")
    artifact = artifact_of(whole, beside, name)
    path = place.parent / name

    def change(index: Index) -> Index:
        changed = entered(index, whole, artifact)
        if changed is index or changed == index:
            return index
        if path.exists():
            raise StateError(f"{path} exists already, and the index does not name it", hint="take it away first")
        composed.write(whole, beside, path)
        return changed

    if dry_run:
        entered(editing.view(place, [whole.name], create=True), whole, artifact)
    else:
        editing.edit(place, [whole.name], change, create=True)
    return path


def registry_folder(place: str | Path) -> Path:
    """Return the folder that is meant by a place: a folder, or the name in the settings of one.

    Raises:
        UnsupportedError: it is another kind of place.
    """
    where = Settings.load().registries.get(str(place), str(place))
    if "://" in where:
        raise UnsupportedError(
            f"compositions are published into folders, and {where} is none",
            hint="publish into a folder, and copy that",
        )
    return Path(where).expanduser()


def entered(index: Index, whole: Arrangement, artifact: Artifact, published: str = "") -> Index:
    """Return an index with a composition in it.

    Raises:
        UsageError: it has no version.
        StateError: the version has another artifact.
    """
    if not whole.version:
        raise UsageError(f"the composition {whole.name!r} has no version", hint="name it NAME@VERSION, such as 1.0.0")
    return index.add(
        whole.name,
        whole.version,
        artifact,
        published=published or dt.datetime.now(dt.UTC).date().isoformat(),
        summary=whole.summary or None,
        task=whole.task or None,
        license=whole.license or None,
        language=whole.language or None,
    )


def artifact_of(whole: Arrangement, beside: Mapping[str, bytes], url: str) -> Artifact:
    """Return the record of a composition: of one file, or of a folder where adapters lie beside it.

    Raises:
        UsageError: it does not say its base model.
    """
    base = whole.base
    if base is None or not base.id:
        raise UsageError(
            f"the composition {whole.name!r} does not say which base model it is for",
            hint="give --base as a Hub id, or adapters that name theirs",
        )
    data = whole.dumps()
    method = str(whole.composition)
    one = Artifact(
        base=ArtifactBase(id=base.id, architecture=base.architecture, revision=base.revision),
        method=method if len(method) <= LONGEST else f"{method[: LONGEST - 1]}…",
        format=NAME,
        url=url,
        digest=digest.of_bytes(data),
        size=len(data),
    )
    return replace(one, digest=None, size=None, files=_files(data, beside)) if beside else one


def identity(whole: Arrangement, beside: Mapping[str, bytes]) -> str:
    """Return the digest of a composition file, or that of the list of its folder's files."""
    data = whole.dumps()
    if not beside:
        return digest.of_bytes(data)
    nowhere = ArtifactBase(id="", architecture="")
    return Artifact(base=nowhere, method="", format=NAME, url="", files=_files(data, beside)).identity


def _files(data: bytes, beside: Mapping[str, bytes]) -> tuple[ArtifactFile, ...]:
    return tuple(
        ArtifactFile(path=name, digest=digest.of_bytes(content), size=len(content))
        for name, content in sorted({**beside, DOCUMENT: data}.items())
    )
