"""The compositions of an AdapterSet that have a name: loaded, activated, saved and deleted like adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..adapter import Adapter, Manifest, Probe
from ..arrangement import Arrangement
from ..errors import StateError, UnsupportedError
from . import probe as probes
from . import saved
from .assembly import Assembly
from .known_base import KnownBase
from .plans import used
from .saving import cast
from .setups import Headed

if TYPE_CHECKING:
    from .adapter_set import AdapterSet


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A composition on the model.

    Attributes:
        setup: what it does.
        manifest: what is known about it.
        brought: the adapters that were loaded with it.
    """

    setup: Headed
    manifest: Manifest
    brought: tuple[str, ...]


class Compositions:
    """Name → composition, for one AdapterSet."""

    def __init__(self, owner: AdapterSet) -> None:
        self._owner = owner

    def put(self, name: str, found: Assembly, *, overwrite_ok: bool, allow_base_mismatch: bool) -> None:
        """Load a composition with its adapters, all of it or nothing; an adapter that is here already is shared.

        Raises:
            StateError: another adapter of the same name is loaded.
        """
        if name in found.adapters:
            raise StateError(f"{name!r} is the name of an adapter in the composition too", hint="pass another name=")
        with ExitStack() as undo:
            brought = []
            for leaf, adapter in found.adapters.items():
                if self._is_loaded(leaf, adapter):
                    continue
                self._owner.load(adapter, name=leaf, overwrite_ok=overwrite_ok, allow_base_mismatch=allow_base_mismatch)
                undo.callback(self._owner.delete, leaf)
                brought.append(leaf)
            setup = Headed(found.node, found.head, found.rules == "adapters", name)
            self.name(name, setup, found.manifest, brought)
            undo.pop_all()

    def name(self, name: str, setup: Headed, manifest: Manifest, brought: Sequence[str] = ()) -> None:
        """Keep a composition of loaded adapters under a name; one that cannot act is refused first."""
        owner = self._owner
        plan = owner._plans.together(setup)
        labels = manifest.labels or owner._plans.labels(setup)
        if name in owner.compositions or name in owner.names:
            owner.delete(name)
        owner._loaded.compositions[name] = Named(setup, dataclasses.replace(manifest, labels=labels), tuple(brought))
        owner._plans.keep(setup, plan)

    def delete(self, name: str) -> None:
        """Forget a composition, and the adapters that came with it unless another composition holds them."""
        owner, gone = self._owner, self._owner._loaded.compositions.pop(name)
        if owner._active == gone.setup:
            owner.activate(None)
        owner._plans.drop(gone.setup)
        for leaf in gone.brought:
            if leaf in owner.names and not self.holders(leaf):
                owner.delete(leaf)

    def holders(self, leaf: str) -> list[str]:
        """Return the compositions that an adapter is part of."""
        return [name for name, one in self._owner._loaded.compositions.items() if leaf in used(one.setup)]

    def arrangement(
        self, name: str, manifest: Manifest | None, probe: Mapping[str, torch.Tensor] | None
    ) -> Arrangement:
        """Return what the file of a composition holds; see AdapterSet.arrangement."""
        owner, found = self._owner, self._owner._loaded.composition(name)
        known = manifest or found.manifest
        base = dataclasses.replace(
            owner._loaded.base(), id=known.base.id or owner._loaded.base_id, revision=known.base.revision
        )
        record = self._record(found.setup, probe)
        labels = known.labels or found.manifest.labels
        return saved.arrangement_of(
            found.setup, dataclasses.replace(known, base=base, probe=record, labels=labels, name=known.name or name)
        )

    def _record(self, setup: Headed, given: Mapping[str, torch.Tensor] | None) -> Probe:
        """Return the probe of a composition; the base model's answers too, where it has the same output."""
        owner, ground = self._owner, self._owner._ground
        plain = given or probes.default_inputs(ground, owner._loaded.settings)
        inputs = given or saved.fitting(plain, setup.node, ground)
        before = owner._active
        try:
            owner._switch(setup)
            output = probes.output_of_answer(ground, inputs)
            record = probes.record(ground, inputs, output)
            owner._switch(None)
            alone = {name: value for name, value in inputs.items() if name != saved.TASKS}
            if probes.output_of_answer(ground, alone) != output:
                return record
            values = probes.rounded(probes.answer(ground, alone, output))
        finally:
            owner._switch(before)
        return record if len(values) != len(record.values) else dataclasses.replace(record, base_values=values)

    def save(
        self,
        name: str,
        path: Path,
        format: str,  # noqa: A002
        manifest: Manifest | None,
        probe: Mapping[str, torch.Tensor] | None,
        dtype: torch.dtype | None,
        force: bool,
    ) -> Path:
        """Write a composition with all its adapters; see AdapterSet.save."""
        owner, setup = self._owner, self._owner._loaded.composition(name).setup
        names = [leaf for leaf in dict.fromkeys(used(setup)) if leaf is not None]
        adapters = {leaf: owner.adapter(leaf) for leaf in names}
        if dtype is not None:
            adapters = {leaf: cast(adapter, dtype) for leaf, adapter in adapters.items()}
        found = self.arrangement(name, manifest, probe)
        if format == "adapters":
            encoded = saved.in_their_words(setup, adapters, KnownBase(owner.model, owner._ground.architecture))
            self._refuse_other_rules(setup, found)
            return saved.write_setup(setup, adapters, encoded, path, force=force)
        if format != "native":
            raise UnsupportedError(f"{format} has no word for compositions", hint="write it as native or as adapters")
        return saved.write_folder(found, adapters, path, force=force)

    def _is_loaded(self, leaf: str, adapter: Adapter) -> bool:
        """Return whether an adapter is loaded under this name, bit for bit the same."""
        owner = self._owner
        if leaf not in owner.names:
            return False
        loaded = owner._loaded[leaf]
        here, there = loaded.bank.tensors(), owner._loaded.bank(adapter.tensors).tensors()
        same = loaded.config == adapter.config and here.keys() == there.keys()
        return same and all(torch.equal(here[key], there[key]) for key in here)

    def _refuse_other_rules(self, setup: Headed, found: Arrangement) -> None:
        """Raise where `adapters` would compute something else than this composition does here."""
        owner = self._owner
        if owner._loaded.compat or setup.compat or found.probe is None:
            return
        owner_active = owner._active
        theirs = dataclasses.replace(setup, compat=True, name="")
        inputs = {name: torch.tensor(value) for name, value in found.probe.inputs.items()}
        try:
            owner._switch(theirs)
            answer = probes.answer(owner._ground, inputs, found.probe.output)
        finally:
            owner._switch(owner_active)
        difference = float((answer - torch.tensor(found.probe.values)).abs().max())
        if not difference <= found.probe.atol:
            raise UnsupportedError(
                f"`adapters` computes something else for {setup.node}: off by {difference:.2g}",
                hint="save it as native, or compose it with the rules of `adapters`",
            )
