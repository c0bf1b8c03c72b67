"""Conversion of a composition: of its file, or folder, into a setup folder of `adapters`, and back, with one report."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import arrangement, converters
from .. import registry as registries
from ..adapter import Manifest, Probe
from ..arrangement import Arrangement
from ..composition_file import document_of
from ..converters import composed, native, setup_folder
from ..converters import report as reports
from ..converters.format import Format, Parts
from ..converters.identity import manifest_name
from ..converters.report import Fields, Report, Side, Verified
from ..errors import IntegrityError, UnsupportedError
from ..registry import Pulled, Reference
from .base_models import load_model
from .composing import attached_to, base_of, pinned, split_name
from .leaves import Gathered, of_saved

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..architectures import Architecture
    from ..loader import AdapterSet

ADAPTERS = "adapters"
TARGETS = (native.NAME, ADAPTERS)
"""Formats that have a word for compositions."""

TOLERANCE = 1e-4
"""Differences of outputs up to this part of the largest value count as rounding, and up to this in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to become of a composition; the attributes are arguments of convert."""

    destination: Path
    target: Format
    base: str | Path | nn.Module | None
    name: str | None
    verify: bool
    dry_run: bool
    force: bool
    offline: bool | None
    architecture: Architecture | None


def is_composition(path: Path) -> bool:
    """Return whether what lies at a path is a saved composition, or a setup folder of `adapters`. Loads no torch."""
    return setup_folder.detect(path) or document_of(path) is not None


def held(what: str, stage: str, difference: float, largest: float) -> float:
    """Return up to which difference the outputs of an exact conversion may be apart.

    what: the source; stage: the base model; largest: largest value of its output.

    Raises:
        IntegrityError: they are further apart.
    """
    tolerance = TOLERANCE * max(1.0, largest)
    # Written so that a NaN fails.
    if not difference <= tolerance:
        raise IntegrityError(
            f"what was made of {what} computes something else: its outputs on {stage} are off by {difference:.3g}, "
            f"allowed is {tolerance:.3g}",
            hint="this is a fault of adapterhub; nothing was written",
        )
    return tolerance


def pulled_from(path: Path, *, offline: bool | None = None) -> Pulled:
    """Return a composition at a path with its adapters, which may come from elsewhere."""
    return registries.pull(Reference.parse(str(path) if path.is_absolute() else f"./{path}"), offline=offline)


def convert(pulled: Pulled, wanted: Wanted) -> Report:
    """Write a composition in another format, as compose does, and return what became of its adapters.

    Raises:
        UnsupportedError: the format has no word for compositions, or for an adapter in it; every reason is told.
        IntegrityError: the target, read back, computes something else.
        UsageError: no base model is named, or no composition can be called so.
        StateError, FormatError, BaseMismatchError, …: as compose.
    """
    gathered = of_saved(pulled)
    if wanted.target.name not in TARGETS:
        raise _refusal(gathered, wanted.target)
    manifest = _manifest(pulled, gathered, wanted.name)
    model, called = _model(gathered, wanted)
    staged = wanted.verify or wanted.dry_run
    with tempfile.TemporaryDirectory(prefix="adapterhub-") as stage:
        path = Path(stage) / "target" if staged else wanted.destination
        with attached_to(model, gathered, manifest, architecture=wanted.architecture) as (adapters, named):
            found = adapters.arrangement(named)
            _write(adapters, named, found, gathered, wanted, path)
            report = _report(pulled, gathered, path, found, wanted)
            answer = _answer(adapters, found) if wanted.verify else None
        if answer is not None:
            verified = _verified(model, called, path, found, answer, wanted)
            report = dataclasses.replace(report, verified=verified, difference=verified.difference)
        if staged and not wanted.dry_run:
            composed.put(path, wanted.destination, force=wanted.force)
    return report


def _refusal(gathered: Gathered, target: Format) -> UnsupportedError:
    """Return why a format takes neither the composition nor, where that is so, its adapters."""
    reasons = [f"{target.name} has no word for compositions, such as {gathered.node}"]
    for name, part in gathered.parts.items():
        try:
            target.encode(target.rewritten(part.adapter, None))
        except UnsupportedError as error:
            reasons.append(f"{name}: {error.message}")
    return UnsupportedError(
        "; ".join(reasons), hint=f"compositions are written as {' or '.join(TARGETS)}; convert the adapters one by one"
    )


def _manifest(pulled: Pulled, gathered: Gathered, name: str | None) -> Manifest:
    """Return what is said of the composition, under its new name if there is one.

    Raises:
        UsageError: it is no name.
    """
    if document_of(pulled.path) is not None:
        known = arrangement.read(pulled.path).manifest
    else:
        known = Manifest(name="", base=next(iter(gathered.parts.values())).adapter.manifest.base)
    if name is None:
        return dataclasses.replace(known, name=known.name or manifest_name(pulled.name, "composition"))
    title, version = split_name(name)
    return dataclasses.replace(known, name=title, version=version or known.version)


def _model(gathered: Gathered, wanted: Wanted) -> tuple[nn.Module, str]:
    """Return the base model and what it is called."""
    if wanted.base is not None and not isinstance(wanted.base, (str, Path)):
        return wanted.base, type(wanted.base).__name__
    chosen, revision = base_of(gathered, None if wanted.base is None else str(wanted.base))
    return load_model(chosen, revision=revision, offline=wanted.offline), chosen


def _write(
    adapters: AdapterSet, named: str, found: Arrangement, gathered: Gathered, wanted: Wanted, path: Path
) -> None:
    """Write a composition in the target's words."""
    if wanted.target.name == native.NAME:
        composed.write(*pinned(found, gathered), path, force=wanted.force)
    else:
        adapters.save(named, path, format=wanted.target.name, force=wanted.force)


def _report(pulled: Pulled, gathered: Gathered, path: Path, found: Arrangement, wanted: Wanted) -> Report:
    """Return what became of the adapters that were written; those that are pinned stay where they are."""
    here, there = _places(pulled), _places(pulled_from(path, offline=wanted.offline), beside=True)
    pairs = {name: (_read(here[name]), _read(there[name])) for name in there}
    fields = {
        name: reports.fields_of(gathered.parts[name].adapter, converters.detect(here[name]).name, *pair)
        for name, pair in pairs.items()
    }
    every = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    methods = (config.method for part in gathered.parts.values() for config in part.adapter.config)
    return Report(
        adapter=found.name,
        methods=tuple(dict.fromkeys(methods)),
        composition=str(found.composition),
        architecture=found.base.architecture if found.base is not None else "",
        source=Side(format=format_of(pulled.path), path=str(pulled.path), digest=pulled.digest or ""),
        target=Side(
            format=wanted.target.name,
            path=str(wanted.destination),
            files={str(file.relative_to(path)) if file != path else "": file.stat().st_size for file in every},
        ),
        tensors=reports.tensors_of(*(_together({name: pair[k] for name, pair in pairs.items()}) for k in (0, 1))),
        fields=_fields(fields),
        written=not wanted.dry_run,
    )


def format_of(path: Path) -> str:
    """Return the format of a composition at a path."""
    return ADAPTERS if setup_folder.detect(path) else native.NAME


def _places(pulled: Pulled, *, beside: bool = False) -> dict[str, Path]:
    """Return name → where it lies, of the adapters in a composition; beside: of those in the same folder only."""
    if setup_folder.detect(pulled.path):
        return dict(setup_folder.read(pulled.path).folders)
    pins = arrangement.read(pulled.path).adapters
    return {name: part.path for name, part in pulled.parts.items() if pins[name].beside or not beside}


def _read(path: Path) -> Parts:
    return converters.detect(path).read(path)


def _together(parts: Mapping[str, Parts]) -> Parts:
    """Return the tensors of several adapters, each with the adapter's name in front."""
    tensors = {
        f"{name}: {key}": tensor
        for name, one in parts.items()
        for group in one.tensors.values()
        for key, tensor in group.items()
    }
    return Parts({}, {"": tensors})


def _fields(found: Mapping[str, Fields]) -> Fields:
    """Return the fields of several adapters, each with the adapter's name in front."""

    def named(kind: str) -> tuple[str, ...]:
        return tuple(f"{name}/{field}" for name, fields in found.items() for field in dataclasses.asdict(fields)[kind])

    return Fields(carried=named("carried"), kept=named("kept"), beside=named("beside"))


def _probe(found: Arrangement) -> Probe:
    assert found.probe is not None  # noqa: S101 (an arrangement of what is attached has one)
    return found.probe


def _answer(adapters: AdapterSet, found: Arrangement) -> torch.Tensor:
    from ..loader.comparing import answer

    return answer(adapters, _probe(found))


def _verified(
    model: nn.Module, called: str, path: Path, found: Arrangement, expected: torch.Tensor, wanted: Wanted
) -> Verified:
    """Return what came of running the target, as it is read back from the disk, on the base model.

    Raises:
        IntegrityError: it differs from the source by more than rounding.
    """
    again = of_saved(pulled_from(path, offline=wanted.offline))
    with attached_to(model, again, found.manifest, architecture=wanted.architecture) as (adapters, _):
        answer = _answer(adapters, found)
    difference = float((answer - expected).abs().max()) if answer.shape == expected.shape else float("inf")
    tolerance = held(str(found.composition), called, difference, float(expected.abs().max()))
    output = _probe(found).output.removesuffix("[-1]")
    return Verified(base=called, random=False, output=output, difference=difference, tolerance=tolerance)
