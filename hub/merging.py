"""Merge: several adapters, wherever they are, into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import registry as registries
from ..adapter import Adapter
from ..converters.identity import manifest_name
from ..errors import StateError, UsageError
from ..registry import digest as digests
from .base_models import choose_base, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..architectures import Architecture
    from ..merging import Comparison, Keeper, KnownBase, Merged, Request, Source


def merge(
    adapters: Sequence[str | Path | Adapter],
    *,
    method: str = "linear",
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    density: float | None = None,
    seed: int | None = None,
    majority: Literal["total", "frequency"] = "total",
    normalize: bool | None = None,
    head: str | None = None,
    base: str | PreTrainedModel | None = None,
    compat: Literal["adapters", "peft"] | None = None,
    name: str = "merged",
    allow_base_mismatch: bool = False,
    out: str | Path | None = None,
    force: bool = False,
) -> Adapter:
    """Return one adapter made of several.

    Args:
        adapters: references, paths, or adapters in memory.
        method: `linear`, `cat`, `svd`, `ties`, …; docs/merging.md has the table.
        weights: one for each adapter; without them 1 / n, for `task_arithmetic` 1.
        rank: rank of the result; of a sum without rank and energy, all ranks together.
        energy: in place of a rank, the part of the squared norm that is to be kept at each map.
        density: the part of the entries that `ties`, `dare_…` and `magnitude_prune` keep.
        seed: of what DARE drops; without one it is drawn, and stands in the provenance.
        majority: whether signs are elected by `total` or by `frequency`.
        normalize: divide the weights by their sum; None does so with compat="adapters" alone.
        head: `mean`, `none`, or the name of the adapter whose head is kept.
        base: the base model, its folder or Hub id; needed by updates that depend on its weights, such as DoRA.
        compat: `adapters` or `peft` to compute what `average_adapter` or `add_weighted_adapter` do.
        name: of the result.
        allow_base_mismatch: merge adapters that were made for different base models of one family.
        out: a native file that the result is written to tensor by tensor, for one that memory is too small for; the
            adapter that is returned lies there.
        force: replace the file.

    Raises:
        UsageError: the options mean nothing.
        BaseMismatchError: the adapters were made for different base models.
        UnsupportedError: they cannot be merged in this way; every reason.
        StateError: something is at out, or it cannot be written.
    """
    from ..merging import Request

    request = Request(
        method=method,
        weights=None if weights is None else tuple(float(weight) for weight in weights),
        rank=rank,
        energy=energy,
        density=density,
        seed=seed,
        majority=majority,
        normalise=normalize,
        head=head,
        compat=compat,
        allow_base_mismatch=allow_base_mismatch,
    )
    sources = [source(adapter) for adapter in adapters]
    if out is None:
        return merged(sources, request, base=base, name=name).adapter
    return _into(Path(out), sources, request, base=base, name=name, force=force)


def _into(
    path: Path,
    sources: Sequence[Source],
    request: Request,
    *,
    base: str | PreTrainedModel | None,
    name: str,
    force: bool,
) -> Adapter:
    """Return the adapter that was made in a file."""
    from ..converters import native
    from ..converters.opening import opened
    from ..converters.spool import Spool

    if path.exists() and not force:
        raise StateError(f"{path} exists already", hint="choose another file, or replace it with force=True")
    with Spool(path.parent) as spool:
        made = merged(sources, request, base=base, name=name, keeper=spool)
        native.write(native.encode(made.adapter), path, force)
    return opened(path).adapter


def merged(
    sources: Sequence[Source],
    request: Request,
    *,
    name: str,
    version: str = "",
    base: str | PreTrainedModel | None = None,
    architecture: Architecture | None = None,
    offline: bool | None = None,
    keeper: Keeper | None = None,
) -> Merged:
    """Return one adapter made of several, and what was done; the arguments are those of merge.

    version: of the result, "" without one.
    keeper: takes the tensors of the result; None keeps them in memory.

    Raises:
        UsageError, BaseMismatchError, UnsupportedError: as merge.
    """
    from ..merging import merge as merge_sources

    if manifest_name(name, "") != name:
        raise UsageError(f"{name!r} is no name for an adapter", hint=f"such as {manifest_name(name, 'merged')}")
    known = None if base is None else known_base(base, sources, architecture, offline=offline)
    made = merge_sources(sources, request, name=name, base=known, row=architecture, keeper=keeper)
    manifest = replace(made.adapter.manifest, version=version)
    return replace(made, adapter=replace(made.adapter, manifest=manifest))


def compared(
    first: Source,
    second: Source,
    *,
    base: str | PreTrainedModel | None = None,
    architecture: Architecture | None = None,
    allow_base_mismatch: bool = False,
    offline: bool | None = None,
) -> Comparison:
    """Return how two adapters differ; see merging.compare."""
    from ..merging import compare

    known = None if base is None else known_base(base, [first, second], architecture, offline=offline)
    return compare(first, second, base=known, row=architecture, allow_base_mismatch=allow_base_mismatch)


def known_base(
    base: str | PreTrainedModel,
    sources: Sequence[Source],
    architecture: Architecture | None = None,
    *,
    offline: bool | None = None,
) -> KnownBase:
    """Return the base model as merging asks for it, held against the fingerprints of the adapters.

    Raises:
        BaseMismatchError: it is not the one that an adapter was made for.
    """
    from ..loader.fingerprint import check_fingerprint
    from ..loader.known_base import KnownBase as LiveBase
    from ..loader.layout import survey

    if isinstance(base, str):
        manifest = sources[0].adapter.manifest
        chosen = choose_base(base, manifest)
        model = load_model(
            chosen, revision=manifest.base.revision if chosen == manifest.base.id else None, offline=offline
        )
    else:
        model = base
    ground = survey(model, architecture)
    for one in sources:
        expected = one.adapter.manifest.base.fingerprint
        if expected is not None:
            check_fingerprint(expected, ground, f"adapter {one.name!r}")
    return LiveBase(model, architecture)


def source(
    adapter: str | Path | Adapter,
    *,
    registry: str | None = None,
    base: str | None = None,
    architecture: Architecture | None = None,
    offline: bool | None = None,
) -> Source:
    """Return an adapter from a reference, a path or memory, with its digest.

    Raises:
        NotFoundError, DigestError, OfflineError, FormatError, …: from pulling and reading it.
    """
    from ..converters.opening import opened
    from ..merging import Source as Read

    if isinstance(adapter, Adapter):
        return Read(adapter=adapter, name=adapter.manifest.name, digest=digest_of(adapter))
    if isinstance(adapter, Path):
        found = opened(adapter, row=architecture)
        return Read(adapter=found.adapter, name=str(adapter), digest=found.digest, release=found.release)
    pulled = registries.pull(adapter, registry=registry, base=base, offline=offline)
    found = opened(pulled.path, row=architecture)
    digest = found.digest if pulled.artifact is None else pulled.artifact.identity
    return Read(adapter=found.adapter, name=adapter, digest=digest, release=found.release)


def digest_of(adapter: Adapter) -> str:
    """Return the digest of the native file that an adapter in memory would be."""
    from ..converters import native

    return digests.of_bytes(native.dumps(adapter))
