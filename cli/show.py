"""adapterhub show: what is known about an adapter, read from the index and from the head of its file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..composition_file import document_of
from ..errors import OfflineError, UnsupportedError, UsageError
from . import options, sentences, words
from .command import Documented
from .entries import size
from .heads import Known, read_head
from .opening import open_for
from .output import Output, style, width
from .table import facts

if TYPE_CHECKING:
    from ..registry import Pulled, Resolved


@click.command(
    cls=Documented,
    short_help="Show what is known about an adapter, or a base model.",
    epilog="""
    adapterhub show sst2-bert
    adapterhub show --base ./model
    adapterhub show --base ./model --json | jq .architecture > mine.json
    """,
)
@click.argument("reference", metavar="[ADAPTER]", required=False, shell_complete=options.complete_name)
@options.base
@options.architecture
@options.registry
@options.frozen
@options.with_output
def command(
    output: Output,
    reference: str | None,
    base: str | None,
    architecture: Path | None,
    registry: str | None,
    frozen: bool,
) -> None:
    """Show what is known about an adapter: what it computes, for which base model, its labels, data and metrics.

    Only the head of its file is read, no weights. A composition is shown as a tree, with its adapters and their pins.
    Of an adapter that would have to be fetched first, what the index
    says is shown.

    With --base and no ADAPTER, show where adapters can act in a base model: the row of data that its family has, the
    residual sites and the linear maps. Only its config.json is read. With --architecture, another row is tried on it.
    """
    if reference is not None:
        if architecture is not None:
            raise UsageError("--architecture describes a base model", hint="leave the adapter out")
        _show_adapter(output, reference, base, registry, frozen=frozen)
    elif base is not None:
        from .places import show_base

        show_base(output, base, architecture)
    else:
        raise UsageError("there is nothing to show", hint="name an adapter, or a base model with --base")


def _show_adapter(output: Output, reference: str, base: str | None, registry: str | None, *, frozen: bool) -> None:
    from ..registry import Reference, pull

    parsed = Reference.parse(reference)
    opened = open_for(output, parsed, registry, frozen=frozen)
    indexed = opened is not None and opened.pinned(parsed) is None
    resolved = opened.index.resolve(parsed, base=base) if opened and indexed else None
    try:
        pulled = pull(parsed, registry=opened, base=base, offline=True)
    except (OfflineError, UnsupportedError):
        if resolved is None:
            raise
        output.note(
            f"{resolved.name} is not on this machine; this is what the index says (`adapterhub pull` fetches it)"
        )
        pulled = None
    if pulled is not None and document_of(pulled.path) is not None:
        _show_composition(output, pulled, resolved)
        return
    known = None if pulled is None else read_head(pulled.path)
    ids = [f"{resolved.name}@{resolved.version}" if resolved else known.document["name"] if known else reference]
    text = sections(resolved, pulled, known, width(sys.stdout))
    output.result(as_json(resolved, pulled, known), ids=ids, text=text)


def _show_composition(output: Output, pulled: Pulled, resolved: Resolved | None) -> None:
    from .. import arrangement
    from . import composed

    found, digest = arrangement.read(pulled.path), digest_of(pulled)
    name, version = found.name or pulled.name, found.version or pulled.version
    data = composed.as_json(found, pulled, resolved, digest)
    text = composed.sections(found, pulled, digest, width(sys.stdout))
    output.result(data, ids=[f"{name}@{version}" if version else name], text=text)


def as_json(resolved: Resolved | None, pulled: Pulled | None, known: Known | None) -> dict[str, Any]:
    """Return everything for a program."""
    data: dict[str, Any] = {}
    if resolved is not None:
        data |= {"name": resolved.name, "version": resolved.version, "digest": resolved.artifact.identity}
        data |= {"artifact": resolved.artifact.to_json(), "entry": resolved.entry.to_json()}
    if pulled is not None and known is not None:
        manifest = {key: value for key, value in known.document.items() if key not in ("$schema", "format", "config")}
        data = {"name": manifest["name"], "version": manifest.get("version") or None, **data}
        data |= {"path": str(pulled.path), "digest": digest_of(pulled), "size": known.size}
        data |= {"tensors": known.tensors, "parameters": known.parameters}
        data |= {"config": known.document["config"], "manifest": manifest}
    return data


def digest_of(pulled: Pulled) -> str | None:
    """Return the digest of what was pulled, or None for a folder without an entry in an index."""
    from ..registry import digest

    if pulled.artifact is not None:
        return pulled.artifact.identity
    return digest.of_file(pulled.path) if pulled.path.is_file() else None


def sections(
    resolved: Resolved | None, pulled: Pulled | None, known: Known | None, columns: int | None
) -> Iterator[str]:
    """Yield the lines for people: title, summary, and the facts."""
    document = known.document if known else {}
    name = resolved.name if resolved else document.get("name", "")
    version = resolved.version if resolved else document.get("version", "")
    yield style(f"{name} {version}".rstrip(), sys.stdout, bold=True)
    pairs = list(_of_file(known, resolved)) if known else []
    pairs += _of_index(resolved, complete=known is not None) if resolved else []
    if pulled is not None and known is not None:
        pairs += [("file", f"{pulled.path} ({size(known.size)})"), ("digest", digest_of(pulled) or "")]
    yield from facts(pairs, columns)


def _of_file(known: Known, resolved: Resolved | None) -> Iterator[tuple[str, str]]:
    document, base = known.document, known.document["base"]
    summary, task, base_id = _listed(resolved)
    yield "summary", document.get("summary") or summary
    yield "task", document.get("task") or task
    yield "labels", words.labels(document.get("labels", ()))
    yield "language", ", ".join(document.get("language", ()))
    revision = f" @ {base['revision']}" if base.get("revision") else ""
    yield "base model", f"{base_id or base.get('id') or '(unknown)'} ({base['architecture']}){revision}"
    said = resolved.artifact.method if resolved and resolved.artifact.format == "native" else None
    yield "method", said or sentences.method(document["config"])
    yield "", "\n".join(sentences.sentence(config) for config in document["config"])
    yield "parameters", f"{known.parameters:,} in {known.tensors} tensors"
    yield "metrics", ", ".join(f"{name} {words.number(value)}" for name, value in document.get("metrics", {}).items())
    for data in document.get("datasets", ()):
        yield "data", words.dataset(data)
    yield "training", words.training(document.get("training", {}))
    yield "license", document.get("license", "")
    yield "citation", document.get("citation", "")
    if source := document.get("provenance"):
        yield "made from", " ".join([source["format"], source.get("version", "")]).rstrip()
    count = len(base.get("fingerprint", {}).get("samples", ()))
    yield "fingerprint", f"{count} tensors of the base model" if count else "none: the base model cannot be recognised"
    yield "probe", words.probe(document.get("probe"))


def _listed(resolved: Resolved | None) -> tuple[str, str, str]:
    """Return summary, task and base model as the index has them; files of other libraries may not."""
    if resolved is None:
        return "", "", ""
    artifact, entry = resolved.artifact, resolved.entry
    return artifact.summary or entry.summary, entry.task, artifact.base.id


def _of_index(resolved: Resolved, *, complete: bool) -> list[tuple[str, str]]:
    """Return what the index alone knows, and what the file would say if there is no file."""
    entry, artifact = resolved.entry, resolved.artifact
    pairs = [] if complete else [("summary", _listed(resolved)[0]), ("task", entry.task)]
    if not complete and not artifact.summary:
        pairs += [("license", entry.license)]
    if not complete:
        pairs += [("base model", f"{artifact.base.id} ({artifact.base.architecture})"), ("method", artifact.method)]
        pairs += [("size", size(artifact.total_size)), ("digest", artifact.identity), ("url", artifact.url)]
        pairs += [("or from", "\n".join(artifact.sources))]
    versions = [f"{text} (yanked)" if release.yanked else text for text, release in entry.versions.items()]
    others = [other.base.id for other in resolved.release.artifacts if other != artifact]
    if resolved.release.yanked:
        pairs.append(("yanked", resolved.release.reason or "no reason is given"))
    pairs += [("versions", ", ".join(reversed(versions))), ("also for", ", ".join(others))]
    return [*pairs, ("on top of", ", ".join(artifact.requires)), ("aliases", ", ".join(entry.aliases))]
