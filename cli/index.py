"""adapterhub index: adapters into an index, and whether an index is right."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..composition_file import NAME, document_of
from ..errors import AdapterHubError, IntegrityError, UsageError
from . import index_convert_all, index_import, index_layout, index_mirror, index_verify_all, options, signing
from .command import Documented
from .output import Output
from .progress import ProgressLine

if TYPE_CHECKING:
    from ..registry import Artifact, Index, Registry, Store
    from .heads import Known

HERE = Path("index.json")


@click.group(short_help="Add adapters to an index and check it.")
def command() -> None:
    """Keep an index.json: the list of adapters that a registry offers.

    A folder with an index.json and the adapters' files is a registry; `--registry FOLDER` or $ADAPTERHUB_REGISTRY
    names it.
    """


@command.command(
    cls=Documented,
    short_help="Add native adapter files and compositions to an index.",
    epilog="""
    adapterhub index add reviews-1.0.0.safetensors
    adapterhub index add hub/mine.safetensors --index hub/index.json --version 1.1.0 --alias mine-reviews
    """,
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--index", "place", type=click.Path(path_type=Path), default=HERE, show_default=True, help="The index.")
@click.option("--name", metavar="NAME", help="Name of the entry.  [default: that in the file]")
@click.option("--version", metavar="VERSION", help="Version.  [default: that in the file]")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name of the entry; may be repeated.")
@click.option("--published", metavar="DATE", help="When it was published.  [default: today]")
@click.option("--dry-run", is_flag=True, help="Say what would be added, and write nothing.")
@options.with_output
def add(
    output: Output,
    files: tuple[Path, ...],
    place: Path,
    name: str | None,
    version: str | None,
    aliases: tuple[str, ...],
    published: str | None,
    dry_run: bool,
) -> None:
    """Add native adapter files, and compositions, to an index, which is made if it is not there.

    The files have to lie in the folder of the index or below it (or be those that come with the package): the index
    names them by their path and digest. What they say of themselves fills the entry. A published version never
    changes: another file for the same version, base model and format is refused.
    """
    from ..registry import editing

    day = published or dt.datetime.now(dt.UTC).date().isoformat()
    added: list[dict[str, str]] = []

    def change(index: Index) -> Index:
        added.clear()
        for file in files:
            key, text, index = _added(index, file, place, name, version, aliases, day)
            added.append({"name": key, "version": text, "file": str(file)})
        return index

    names = [*((name or _name(file)) for file in files), *aliases]
    if dry_run:
        change(editing.view(place, names, create=True))
    else:
        editing.edit(place, names, change, create=True)
    verb = "would add" if dry_run else "added"
    ids = [f"{entry['name']}@{entry['version']}" for entry in added]
    output.result({"index": str(place), "added": added, "dry_run": dry_run}, ids=ids, text=[f"{verb} {i}" for i in ids])


@command.command(short_help="Check an index and the files that it names.")
@click.argument("place", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--no-files", is_flag=True, help="Check the index alone.")
@options.jobs
@options.with_output
def check(output: Output, place: Path | None, no_files: bool, jobs: int | None) -> None:
    """Check an index: its schema, that it does not contradict itself, and the files that lie beside it.

    FILE is an index.json or its folder; without it, the one in this folder, or else the registry of the settings, is
    checked. Of each file on this machine digest and size are compared, and what it says of itself with the entry. All
    faults are listed.
    """
    from ..registry import Index, Registry, Store, locate, sharding, tasks
    from ..registry.runners import runner

    location = locate(place or (HERE if HERE.is_file() else None))
    index = Index.load(location)
    wrong: list[str] = []
    if index.layout:
        index = sharding.whole(location.parent)
        wrong = sharding.faults(location.parent, index)
    index.check(str(location))
    registry = Registry(location=location, index=index)
    releases = [
        (f"{name}@{version}", artifact)
        for name, entry in index.adapters.items()
        for version, release in entry.versions.items()
        for artifact in release.artifacts
    ]
    local = [] if no_files else [(what, artifact) for what, artifact in releases if _is_local(artifact)]
    with tempfile.TemporaryDirectory() as folder:
        # A store of its own: the user's may hold the right bytes already, and the files would not be looked at.
        store = Store(folder)
        work = [tasks.Task(f"{number:09}", one) for number, one in enumerate(local)]
        with ProgressLine(output, "checking", len(local)) as line:
            looked = partial(_listed_faults, registry, store)
            report = tasks.run(looked, work, runner(jobs, None, waiting=True), progress=line.show)
        unread = [f"{local[int(number)][0]}: {error.message}" for number, error in report.failed.items()]
        faults = [*wrong, *(fault for faults in report.done.values() for fault in faults), *unread]
    if faults:
        raise IntegrityError("\n  ".join([f"{location} does not fit its files:", *faults]))
    count = len(index.adapters)
    data = {"index": str(location), "adapters": count, "artifacts": len(releases), "files": len(local)}
    text = f"{location}: {count} adapters, {len(releases)} artifacts, {len(local)} files checked"
    output.result(data, ids=sorted(index.adapters), text=[text])


command.add_command(index_import.command, "import")
command.add_command(index_layout.shard, "shard")
command.add_command(index_layout.pack, "pack")
command.add_command(index_mirror.command, "mirror")
command.add_command(index_verify_all.command, "verify-all")
command.add_command(index_convert_all.command, "convert-all")
command.add_command(signing.sign)
command.add_command(signing.verify)


def _name(file: Path) -> str:
    """Return the name of the adapter or composition in a file."""
    if document_of(file) is not None:
        from .. import arrangement

        return arrangement.read(file).name
    from .heads import read_head

    return read_head(file).manifest.name


def _added(
    index: Index, file: Path, place: Path, name: str | None, version: str | None, aliases: tuple[str, ...], day: str
) -> tuple[str, str, Index]:
    """Return name, version, and the index with the file in it."""
    from .heads import read_head

    if document_of(file) is not None:
        if name or version or aliases:
            raise UsageError(f"{file} is a composition, which has its name and version in it", hint="leave them out")
        return _added_composition(index, file, place, day)
    known = read_head(file)
    manifest = known.manifest
    key, text = name or manifest.name, version or manifest.version
    if not text:
        raise UsageError(f"{file} does not say its version", hint="give it with --version")
    if not manifest.base.id:
        raise UsageError(
            f"{file} does not say which base model it is for",
            hint="train it with a Hub id as --base, or with --base-id",
        )
    old = index.adapters[key].aliases if key in index.adapters else ()
    return (
        key,
        text,
        index.add(
            key,
            text,
            _artifact(known, file, place),
            published=day,
            summary=manifest.summary or None,
            task=manifest.task or None,
            license=manifest.license or None,
            language=manifest.language or None,
            aliases=(*old, *(alias for alias in aliases if alias not in old)) or None,
        ),
    )


def _added_composition(index: Index, file: Path, place: Path, day: str) -> tuple[str, str, Index]:
    """Return name, version, and the index with a composition in it."""
    from .. import arrangement
    from ..hub.publishing import artifact_of, entered

    found = arrangement.read(file)
    beside = {pin.beside: (file / pin.beside).read_bytes() for pin in found.adapters.values() if pin.beside}
    artifact = artifact_of(found, beside, _url(file, place))
    return found.name, found.version, entered(index, found, artifact, day)


def _artifact(known: Known, file: Path, place: Path) -> Artifact:
    """Return the record of a file."""
    from ..methods import describe, is_head
    from ..registry import Artifact, ArtifactBase, digest

    base = known.manifest.base
    return Artifact(
        base=ArtifactBase(id=base.id, architecture=base.architecture, revision=base.revision),
        method=describe(config for config in known.config if not is_head(config)),
        format="native",
        url=_url(file, place),
        digest=digest.of_file(file),
        size=file.stat().st_size,
    )


def _url(file: Path, place: Path) -> str:
    """Return how an index names a file: bundled:…, or its path from the folder of the index."""
    from ..registry.bundled import FOLDER

    if file.resolve().parent == FOLDER.resolve():
        return f"bundled:{file.name}"
    try:
        return file.resolve().relative_to(place.resolve().parent).as_posix()
    except ValueError:
        raise UsageError(
            f"{file} does not lie in the folder of {place}", hint="copy it there, and add the copy"
        ) from None


def _is_local(artifact: Artifact) -> bool:
    return artifact.url.startswith("bundled:") or ":" not in artifact.url


def _listed_faults(registry: Registry, store: Store, one: tuple[str, Artifact]) -> list[str]:
    return list(_faults(registry, *one, store))


def _faults(registry: Registry, what: str, artifact: Artifact, store: Store) -> Iterator[str]:
    """Yield what is wrong with the files of an artifact."""
    try:
        path, _ = registry.fetch(artifact, what, store=store, offline=True)
    except AdapterHubError as error:
        yield error.message if what in error.message else f"{what}: {error.message}"
        return
    if artifact.format == "native":
        yield from _contradictions(path, what, artifact)
    if artifact.format == NAME:
        yield from _faults_of_composition(registry, path, what, artifact, store)


def _faults_of_composition(
    registry: Registry, path: Path, what: str, artifact: Artifact, store: Store
) -> Iterator[str]:
    """Yield what is wrong with a composition: what it says of itself, and adapters that are not to be had."""
    from .. import arrangement
    from ..registry import Settings
    from ..registry.closure import completed
    from ..registry.pulling import Pulled

    name, _, version = what.partition("@")
    try:
        found = arrangement.read(path)
        pulled = Pulled(path=path, name=name, version=version, artifact=artifact, cached=True)
        completed(pulled, home=registry, settings=Settings.load(offline=True), store=store)
    except AdapterHubError as error:
        yield f"{what}: {error.message}"
        return
    base = found.base.id if found.base else ""
    pairs = [
        ("name", found.name, name.rpartition("/")[2]),
        ("version", found.version, version),
        ("base model", base, artifact.base.id),
    ]
    yield from (
        f"{what}: the file says {field} {said}, the index {listed}" for field, said, listed in pairs if said != listed
    )


def _contradictions(path: Path, what: str, artifact: Artifact) -> Iterator[str]:
    """Yield where a file says something else of itself than the index does."""
    from .heads import read_head

    known = read_head(path)
    manifest, _ = known.manifest, known.config
    name, _, version = what.partition("@")
    pairs = [
        ("name", manifest.name, name.rpartition("/")[2]),
        ("version", manifest.version, version),
        ("base model", manifest.base.id, artifact.base.id),
        ("architecture", manifest.base.architecture, artifact.base.architecture),
    ]
    for field, said, listed in pairs:
        if said and said != listed:
            yield f"{what}: the file says {field} {said}, the index {listed}"
