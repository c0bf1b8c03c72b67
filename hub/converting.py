"""Convert: an adapter from one format into another, exactly or not at all, with a report of what became of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import converters
from .. import registry as registries
from ..adapter import JSON, Adapter, Provenance
from ..architectures import by_name
from ..converters import native, values
from ..converters import options as told
from ..converters import report as reports
from ..converters.format import Format, Parts
from ..converters.identity import manifest_name, own_version
from ..converters.outline import NeedsValues, Outline, all_outlined
from ..converters.report import LayerError, Report, Side, Verified
from ..errors import StateError, UsageError
from ..registry import Pulled
from ..registry import digest as digests
from . import composed_conversion
from .known_bases import Bases, anonymous

if TYPE_CHECKING:
    from torch import nn

    from ..architectures import Architecture

APPROXIMATIONS = ("lora",)
"""Methods that an adapter can be approximated by."""

ROUNDING = 1e-6
"""Part of an update up to which its approximation counts as exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An approximation that is asked for.

    Attributes:
        method: what the adapter is to become.
        rank: the rank of every update, or None.
        energy: the share of the squared singular values that every update is to keep, or None.
    """

    method: str
    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        """Refuse a wish that says nothing, or two things.

        Raises:
            UsageError: it does.
        """
        if self.method not in APPROXIMATIONS:
            raise UsageError(f"nothing is approximated by {self.method!r}", hint=f"known: {', '.join(APPROXIMATIONS)}")
        if (self.rank is None) == (self.energy is None):
            raise UsageError("an approximation needs a rank or an energy, not both", hint="say rank=8, or energy=0.99")
        if self.rank is not None and self.rank < 1:
            raise UsageError(f"rank is {self.rank}, expected 1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise UsageError(f"energy is {self.energy}, expected a number above 0 and up to 1")


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    from_: str | None = None,
    base: str | Path | nn.Module | None = None,
    name: str | None = None,
    approximate: str | None = None,
    rank: int | None = None,
    energy: float | None = None,
    verify: bool = False,
    dry_run: bool = False,
    force: bool = False,
    registry: str | None = None,
    offline: bool | None = None,
    architecture: Architecture | None = None,
    options: Mapping[str, JSON] | None = None,
) -> Report:
    """Convert an adapter into another format, and return what became of every tensor and field.

    The target computes what the source does, but for rounding, or nothing is written. The source is never changed; a
    run that is ended leaves no half-written target.

    Args:
        source: a Path, or any reference of an adapter or a composition, which is pulled first.
        destination: where to: a file in the native format, a folder in others.
        to: name of the format.
        from_: name of the source's format; None finds it out.
        base: the base model, as a folder, a Hub id, or live: for what can be said only in numbers that depend on it.
            None refuses that, and lets `verify` take the adapter's own, if it is on this machine, or a random one.
        name: what the adapter is called in the target; None leaves its name.
        approximate: `lora` makes a LoRA of any adapter that changes weights, as good as rank or energy allow.
        rank: the rank of each update.
        energy: the share of the squared singular values that each update keeps, in place of a rank.
        verify: also run both sides on a base model, and keep the difference in the manifest's provenance.
        dry_run: do everything but write.
        force: overwrite what is at the destination.
        registry: the registry to look names up in; None is that of the settings.
        offline: whether the network is switched off; None asks the settings.
        architecture: describes the base model, where its family is not known.
        options: what the two formats want to be told besides, such as {"alpha": 16} of a plain state dict, or
            {"peft_version": "0.9"}; see Format.options.

    Raises:
        UnsupportedError: the target has no word for what the adapter computes, with every reason.
        FormatError: the source is malformed, incomplete or hostile; every fault is listed.
        IntegrityError: the target, read back, computes something else.
        StateError: something is at the destination and force is not set, or it cannot be written.
        UsageError, NotFoundError: an argument makes no sense, or names nothing.
    """
    target = converters.by_name(to)
    wish = None if approximate is None else Wish(method=approximate, rank=rank, energy=energy)
    if wish is None and (rank is not None or energy is not None):
        raise UsageError("a rank or an energy is that of an approximation", hint="say approximate='lora' with it")
    pulled = _pulled(source, registry, offline)
    path = pulled.path
    if composed_conversion.is_composition(path) and from_ in (None, composed_conversion.format_of(path)):
        _check_destination(path, Path(destination), target, force=force)
        if wish is not None or options:
            raise UsageError(
                f"{path} is a composition, which is converted as it is",
                hint="approximate its adapters one by one" if wish is not None else "leave the options of formats away",
            )
        return composed_conversion.convert(
            pulled,
            composed_conversion.Wanted(
                destination=Path(destination),
                target=target,
                base=base,
                name=name,
                verify=verify,
                dry_run=dry_run,
                force=force,
                offline=offline,
                architecture=architecture,
            ),
        )
    chosen = converters.detect(path) if from_ is None else converters.by_name(from_)
    reading, writing = told.shared(options or {}, chosen, target)
    job = _Job(
        source=chosen,
        path=path,
        target=target,
        destination=Path(destination),
        bases=Bases(base, architecture=architecture, offline=offline),
        name=name,
        wish=wish,
        verify=verify,
        dry_run=dry_run,
        force=force,
        reading=reading,
        writing=writing,
    )
    _check_destination(path, job.destination, target, force=force)
    return _streamed(job) or _run(job, job.source.read(path))


def _pulled(source: str | Path, registry: str | None, offline: bool | None) -> Pulled:
    """Return what is to be converted: what a reference leads to, or what lies at a path."""
    if isinstance(source, str):
        return registries.pull(source, registry=registry, offline=offline)
    if composed_conversion.is_composition(source):
        return composed_conversion.pulled_from(source, offline=offline)
    return Pulled(path=source, name=source.stem, version=None, artifact=None, cached=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One conversion; the attributes are the arguments of convert, made sense of.

    reading, writing: the options that are for the source, and for the target.
    """

    source: Format
    path: Path
    target: Format
    destination: Path
    bases: Bases
    name: str | None
    wish: Wish | None
    verify: bool
    dry_run: bool
    force: bool
    reading: Mapping[str, JSON]
    writing: Mapping[str, JSON]


def _streamed(job: _Job) -> Report | None:
    """Return the report of a conversion that only gives tensors other names, None where there is more to do.

    Names and shapes are converted, and the bytes then copied from file to file.
    """
    if job.source.outline is None or job.target.files is None or job.wish is not None or job.verify:
        return None
    try:
        outline = job.source.outline(job.path)
        return _run(job, outline.parts, outline)
    except NeedsValues:
        return None


def _run(job: _Job, read: Parts, outline: Outline | None = None) -> Report:
    """Return the report of a conversion of what was read from the source.

    outline: the source, if only that was read.

    Raises:
        NeedsValues: only an outline was read, and it is not enough.
    """
    read = replace(read, row=job.bases.row(), base=job.bases.known(), options=job.reading)
    adapter = job.source.decode(read)
    job.source.account(adapter)
    wanted, layers = _approximated(job, adapter)
    made = _named(_rewritten(job, wanted, afresh=bool(layers)), job.name)
    digest = _checked(job, adapter, made, read, outline)
    origin = _origin(adapter, job, digest)
    origin = _less_exact(origin, layers)
    written = job.target.encode(_from(made, origin, job))
    verified = None
    if job.verify:
        verified = _verified(job, adapter, written, made, is_exact=not layers)
        origin = replace(origin, difference=max(verified.difference, origin.difference or 0.0))
        written = job.target.encode(_from(made, origin, job))
    if not job.dry_run:
        _make_parent(job.destination)
        job.target.write(written, job.destination, job.force)
    return Report(
        adapter=made.manifest.name,
        methods=tuple(config.method for config in made.config),
        architecture=made.manifest.base.architecture,
        source=Side(format=job.source.name, path=str(job.path), digest=origin.digest, version=origin.version),
        target=Side(format=job.target.name, path=str(job.destination), files=_files(job, written)),
        tensors=reports.tensors_of(read, written),
        fields=reports.fields_of(adapter, job.source.name, read, written),
        exact=origin.exact,
        difference=origin.difference,
        layers=layers,
        verified=verified,
        streamed=outline is not None,
        written=not job.dry_run,
        advice=job.target.advice(made, written, job.destination) if job.target.advice is not None else (),
    )


def _checked(job: _Job, adapter: Adapter, made: Adapter, read: Parts, outline: Outline | None) -> str:
    """Return the digest of the source, all values of which are finite.

    Raises:
        FormatError: some are not.
        NeedsValues: only an outline was read, and the target is made of more than its tensors.
    """
    if outline is None:
        values.check_finite(adapter.tensors, str(job.path))
        return read.digest
    if not all_outlined(job.target.encode(made)):
        raise NeedsValues
    return outline.checked_digest()


def _approximated(job: _Job, adapter: Adapter) -> tuple[Adapter, tuple[LayerError, ...]]:
    """Return the adapter that is to be written, and how good it is if it is an approximation."""
    if job.wish is None:
        return adapter, ()
    from ..loader.approximation import Truncation, approximated

    truncation = Truncation(rank=job.wish.rank, energy=job.wish.energy)
    return approximated(adapter, truncation, partial(job.bases.at_hand, adapter), job.bases.architecture)


def _check_destination(path: Path, place: Path, target: Format, *, force: bool) -> None:
    """Refuse a destination that is, or belongs to, the source, or that is there already.

    Raises:
        UsageError, StateError: it does.
    """
    source, destination = path.resolve(), place.resolve()
    if source == destination or source in destination.parents or destination in source.parents:
        raise UsageError(
            f"{place} and the source {path} lie within each other",
            hint="a conversion never touches its source; choose another destination",
        )
    taken = os.path.lexists(place)
    if place.is_dir():
        taken = target.name == native.NAME or any(place.iterdir())
    if taken and not force:
        raise StateError(f"{place} exists already", hint="choose another path, or force overwriting")


def _make_parent(path: Path) -> None:
    """Make the folder that a target lies in.

    Raises:
        StateError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"{path.parent} cannot be made: {error.strerror}", hint="check the path and its rights"
        ) from None


def _origin(adapter: Adapter, job: _Job, digest: str) -> Provenance:
    """Return where an adapter came from: what its source says of that, or the source itself."""
    known = adapter.manifest.provenance
    if known is not None:
        return known if known.digest else replace(known, digest=digest)
    found = digest or (digests.of_file(job.path) if job.path.is_file() else "")
    return Provenance(format=job.source.name, digest=found, converter=f"adapterhub {own_version()}")


def _rewritten(job: _Job, adapter: Adapter, *, afresh: bool) -> Adapter:
    """Return an adapter nearer to the words of the target; afresh: what is kept of those of its source is void."""
    kept = adapter.manifest.extra
    extra = {key: value for key, value in kept.items() if key != job.target.name}
    void = replace(adapter, manifest=replace(adapter.manifest, extra=extra)) if afresh else adapter
    made = job.target.rewritten(void, job.bases.known())
    learned = {key: value for key, value in made.manifest.extra.items() if void.manifest.extra.get(key) != value}
    made = replace(made, manifest=replace(adapter.manifest, extra={**kept, **learned}))
    return told.told(made, job.target.name, job.writing)


def _less_exact(origin: Provenance, layers: Sequence[LayerError]) -> Provenance:
    """Return where an adapter came from, and what was lost on the way."""
    worst = max((layer.error for layer in layers), default=0.0)
    if worst <= ROUNDING:
        return origin
    return replace(origin, exact=False, error=max(worst, origin.error or 0.0))


def _from(adapter: Adapter, origin: Provenance, job: _Job) -> Adapter:
    """Return an adapter with its provenance; what was made here and stays in the native format has none."""
    own = origin.format == native.NAME == job.target.name and origin.exact and origin.difference is None
    manifest = replace(adapter.manifest, provenance=None if own else origin)
    return replace(adapter, manifest=manifest)


def _named(adapter: Adapter, name: str | None) -> Adapter:
    """Return an adapter with a name.

    Raises:
        UsageError: no adapter can be called so.
    """
    if name is None:
        return adapter
    if manifest_name(name, "") != name:
        raise UsageError(
            f"no adapter can be called {name!r}", hint=f"a name is like {manifest_name(name, '')!r}: a-z, 0-9, . _ -"
        )
    return replace(adapter, manifest=replace(adapter.manifest, name=name))


def _files(job: _Job, written: Parts) -> dict[str, int]:
    """Return the files of the target with their sizes, as far as that is known."""
    if job.target.files is not None:
        return dict(job.target.files(written))
    if job.dry_run:
        return {}
    if job.destination.is_file():
        return {"": job.destination.stat().st_size}
    return {path.name: path.stat().st_size for path in sorted(job.destination.iterdir()) if path.is_file()}


def _verified(job: _Job, source: Adapter, written: Parts, made: Adapter, *, is_exact: bool) -> Verified:
    """Return what came of running both sides, the target as it is read back from a disk.

    written: what was made for the target; made: the adapter that it was made from.

    Raises:
        IntegrityError: they differ by more than rounding, although the conversion is exact.
    """
    from ..loader.comparing import compare

    stage = job.bases.stage(source)
    with tempfile.TemporaryDirectory(prefix="adapterhub-") as folder:
        path = job.target.write(written, Path(folder) / (job.destination.name or "target"), False)
        # Without our note: as other programs read it.
        found = reports.without_note(job.target.read(path))
        row, said = by_name(source.manifest.base.architecture), made.manifest.extra.get(job.target.name, {})
        found = replace(found, row=row, base=job.bases.known(), options=said.get("options", {}))
        target = job.target.decode(found)
        sides = [anonymous(side) for side in (source, target)] if stage.random else [source, target]
        came = compare(stage.model, *sides, architecture=job.bases.architecture)
    tolerance = None
    if is_exact:
        tolerance = composed_conversion.held(str(job.path), stage.name, came.difference, came.largest)
    return Verified(
        base=stage.name,
        random=stage.random,
        output=came.output,
        difference=came.difference,
        effect=came.effect,
        tolerance=tolerance,
    )
