"""Verify: whether an adapter is what it claims to be, one check after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import converters
from .. import registry as registries
from ..adapter import Adapter
from ..architectures import Architecture
from ..composition_file import document_of
from ..errors import DigestError, FormatError, NotFoundError, UsageError
from ..registry import digest as digests
from .base_models import choose_base, layout_of, load_base, local_folder
from .running import pull_for

if TYPE_CHECKING:
    from ..loader.assembly import Assembly


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that `verify` looked at; passed is False where it could not be looked at, and detail says why."""

    name: str
    detail: str
    passed: bool = True

    def to_json(self) -> dict[str, object]:
        """Return it as JSON."""
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


def verify(
    reference: str,
    *,
    run: bool = False,
    base: str | None = None,
    digest: str | None = None,
    registry: str | None = None,
    allow_base_mismatch: bool = False,
    offline: bool | None = None,
    architecture: Architecture | None = None,
) -> Iterator[Check]:
    """Yield what was checked, one after the other; the first thing that is wrong is raised.

    Of a composition, all adapters in it are checked too.

    run: also load the base model, compare its fingerprint, and replay the probe.
    digest: what the bytes are expected to have; the other arguments are those of open_adapter.

    Raises:
        DigestError: the bytes are not the promised ones.
        FormatError: the file breaks its format or schema, or a tensor is missing, left over or misshapen.
        BaseMismatchError: the adapter was made for another base model.
        IntegrityError: the probe is answered differently.
    """
    pulled = pull_for(reference, base=base, registry=registry, allow_base_mismatch=allow_base_mismatch, offline=offline)
    yield from checks(
        pulled,
        run=run,
        base=base,
        digest=digest,
        allow_base_mismatch=allow_base_mismatch,
        offline=offline,
        architecture=architecture,
    )


def checks(
    pulled: registries.Pulled,
    *,
    run: bool = False,
    base: str | None = None,
    digest: str | None = None,
    allow_base_mismatch: bool = False,
    offline: bool | None = None,
    architecture: Architecture | None = None,
) -> Iterator[Check]:
    """Yield what was checked of an adapter on this machine; see verify."""
    yield _check_digest(pulled, digest)
    if document_of(pulled.path) is not None:
        yield from _check_composition(pulled, base, architecture, allow_base_mismatch, offline, run=run)
        return
    adapter = converters.read(pulled.path)
    yield Check("format", "complete, and its manifest follows the schema")
    yield from _check_tensors(adapter, base, architecture)
    if run:
        yield from _check_answers(adapter, base, allow_base_mismatch, offline, architecture)


def _check_digest(pulled: registries.Pulled, expected: str | None) -> Check:
    """Return the check of an artifact's digest; pull has held it against the index already."""
    if pulled.artifact is not None:
        found = pulled.artifact.identity
        if expected is None:
            return Check("digest", f"{found}, as the index says")
    elif pulled.path.is_file():
        found = digests.of_file(pulled.path)
    else:
        return Check("digest", "a folder has none of its own", passed=False)
    if expected is None:
        return Check("digest", f"{found}; no index or --digest to hold it against", passed=False)
    if digests.hexadecimal(expected) != digests.hexadecimal(found):
        raise DigestError(str(pulled.path), expected=expected, actual=found)
    return Check("digest", f"{found}, as asked for")


def _check_composition(
    pulled: registries.Pulled,
    base: str | None,
    architecture: Architecture | None,
    allow_base_mismatch: bool,
    offline: bool | None,
    *,
    run: bool,
) -> Iterator[Check]:
    """Yield the checks of a composition; pull has held its adapters against their digests."""
    from ..loader.assembly import assembled

    whole = assembled(pulled)
    yield Check("format", f"follows the schema, and its {len(whole.adapters)} adapters have the pinned digests")
    for name, adapter in whole.adapters.items():
        for check in _check_tensors(adapter, base, architecture):
            yield replace(check, detail=f"{name}: {check.detail}")
    if run:
        yield from _check_answers(whole, base, allow_base_mismatch, offline, architecture)


def _check_tensors(adapter: Adapter, base: str | None, architecture: Architecture | None) -> Iterator[Check]:
    """Yield the account of all tensors, held against the base model's shapes if its config.json is on this machine."""
    from ..converters.values import not_finite
    from ..loader.account import check_account, check_architecture

    faults = not_finite(adapter.tensors)
    if faults:
        raise FormatError(f"adapter {adapter.manifest.name!r} holds values that are not finite", faults=faults)
    values = sum(tensor.numel() for tensor in adapter.tensors.values())
    counted = f"{len(adapter.tensors)} tensors, {values:,} values, all finite"
    try:
        chosen = choose_base(base, adapter.manifest)
        folder = local_folder(chosen, adapter.manifest.base.revision)
    except (NotFoundError, UsageError) as error:
        yield Check("tensors", f"{counted}; not held against a base model: {error.message}", passed=False)
        return
    if folder is None:
        yield Check("tensors", f"{counted}; not held against {chosen}, which is not on this machine", passed=False)
        return
    layout = layout_of(folder, chosen, architecture)
    check_architecture(adapter, layout)
    check_account(adapter, layout)
    yield Check("tensors", f"{counted}; none missing and none left over on {chosen}")


def _check_answers(
    adapter: Adapter | Assembly,
    base: str | None,
    allow_base_mismatch: bool,
    offline: bool | None,
    architecture: Architecture | None,
) -> Iterator[Check]:
    """Yield the checks that need the base model's weights: its fingerprint, and the probe."""
    from ..loader import attach

    chosen = choose_base(base, adapter.manifest)
    loaded = load_base(chosen, revision=adapter.manifest.base.revision, offline=offline)
    adapters = attach(loaded.model, architecture=architecture)
    name = adapters.load(adapter, allow_base_mismatch=allow_base_mismatch)
    fingerprint = adapter.manifest.base.fingerprint
    if fingerprint is None:
        yield Check("base model", f"{chosen}; it has no fingerprint to compare it with", passed=False)
    else:
        yield Check("base model", f"{chosen}, by {len(fingerprint.samples)} of its tensors")
    if adapter.manifest.probe is None:
        yield Check("probe", "it has none", passed=False)
        return
    replay = adapters.replay(name)
    yield Check("probe", f"answers differ by {replay.difference:.1e}, allowed are {replay.tolerance:.1e}")
