"""What is known about a merged adapter: what its parents agree on, and where it came from."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from ..adapter import Base, Dataset, Fingerprint, Manifest, Parent, Provenance
from ..converters.identity import own_version
from ..errors import BaseMismatchError
from .parents import Parent as Merged
from .request import Request, Source

LOSS = {"float32": 1e-6, "float64": 1e-6, "float16": 2.0**-10}
"""Relative error that storing in a dtype may cause; 2⁻⁷ for all others."""


def manifest(
    parents: Sequence[Merged], request: Request, seed: int | None, *, name: str, labels: tuple[str, ...], exact: bool
) -> Manifest:
    """Return the manifest of a result; metrics and probe are those of no parent, so it has none."""
    known = [parent.adapter.manifest for parent in parents]
    row = request.combination
    return Manifest(
        name=name,
        base=base_of([parent.source for parent in parents], allow_mismatch=request.allow_base_mismatch),
        summary=f"{row.name} of {', '.join(parent.name for parent in parents)}"[:500],
        task=_common([one.task for one in known]),
        labels=labels,
        license=" AND ".join(dict.fromkeys(one.license for one in known if one.license)),
        language=tuple(dict.fromkeys(code for one in known for code in one.language)),
        datasets=_datasets(known),
        provenance=Provenance(
            format="merge",
            converter=f"adapterhub {own_version()}",
            exact=exact,
            method=row.name,
            settings=_settings(request, seed),
            parents=tuple(
                Parent(
                    name=parent.name,
                    version=parent.adapter.manifest.version,
                    digest=parent.source.digest,
                    weight=parent.weight,
                )
                for parent in parents
            ),
        ),
    )


def _settings(request: Request, seed: int | None) -> dict[str, str | float | int]:
    """Return the options that the result depends on."""
    found: dict[str, str | float | int | None] = {
        "rank": request.rank,
        "energy": request.energy,
        "density": request.density,
        "seed": seed,
        "compat": request.compat,
        "majority": None if request.majority == "total" else request.majority,
    }
    return {key: value for key, value in found.items() if value is not None}


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else ""


def _datasets(known: Sequence[Manifest]) -> tuple[Dataset, ...]:
    found: list[Dataset] = []
    for data in (data for one in known for data in one.datasets):
        if data not in found:
            found.append(data)
    return tuple(found)


def base_of(sources: Sequence[Source], *, allow_mismatch: bool) -> Base:
    """Return the base model that adapters have in common, with all that any of them knows of it.

    Raises:
        BaseMismatchError: they were made for different ones; a warning with allow_mismatch, where the families agree.
    """
    first = sources[0]
    found = first.adapter.manifest.base
    for other in sources[1:]:
        theirs = other.adapter.manifest.base
        why = _difference(found, theirs)
        if why:
            message = f"{first.name} and {other.name} were made for different base models: {why}"
            if not allow_mismatch or found.architecture != theirs.architecture:
                raise BaseMismatchError(message, hint="--allow-base-mismatch merges them all the same")
            warnings.warn(f"{message}; merged all the same, as asked", UserWarning, stacklevel=2)
        found = dataclasses.replace(
            found,
            id=found.id or theirs.id,
            revision=found.revision or (theirs.revision if theirs.id == (found.id or theirs.id) else None),
            fingerprint=found.fingerprint or theirs.fingerprint,
        )
    return found


def _difference(one: Base, two: Base) -> str:
    """Return in what two base models differ, or ""."""
    if one.architecture != two.architecture and not {one.architecture, *one.others} & {two.architecture, *two.others}:
        return f"a {one.architecture} and a {two.architecture}"
    if one.fingerprint is not None and two.fingerprint is not None:
        return _other_weights(one.fingerprint, two.fingerprint)
    if one.id and two.id and _short(one.id) != _short(two.id):
        return f"{one.id} and {two.id}"
    return ""


def _short(base: str) -> str:
    return base.rpartition("/")[2].casefold()


def _other_weights(one: Fingerprint, two: Fingerprint) -> str:
    """Return which weight differs, or ""."""
    loss = max(LOSS.get(dtype, 2.0**-7) for dtype in (one.dtype, two.dtype))
    for name in sorted(one.shapes.keys() & two.shapes.keys()):
        if tuple(one.shapes[name]) != tuple(two.shapes[name]):
            return f"{name} has shape {tuple(one.shapes[name])} and {tuple(two.shapes[name])}"
        pairs = zip(one.samples[name], two.samples[name], strict=True)
        if any(abs(a - b) > loss * max(abs(a), abs(b)) + 1e-7 for a, b in pairs):
            return f"{name} holds other values"
    return ""
