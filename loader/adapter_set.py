"""AdapterSet: the adapters of one model, and which of them is active."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..adapter import Adapter, Manifest, MethodConfig
from ..arrangement import Arrangement
from ..composition import Composition, Fuse, Stack
from ..errors import StateError, UsageError
from ..methods import method_of, settled, shapes
from ..sites import Layout, Site
from . import probe as probes
from .account import check_account, check_architecture
from .arguments import configs as configs_of
from .arguments import with_head
from .assembly import Assembly
from .files import fetch
from .gradients import Gradients
from .known_base import KnownBase
from .layout import check_in_memory, survey
from .merging import Merge
from .named import Compositions
from .plan import NOTHING, Installation
from .plans import Plans, Setting, used
from .roster import Loaded, Roster
from .saving import replay, save_adapter
from .setups import Headed, PerRow
from .summary import Summary, rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..architectures import Architecture


class AdapterSet:
    """The adapters of one model. All state is here and in the model's child `adapterhub`; `detach` ends it.

    While no adapter is active, the forward pass is the base model's own, to the operation. The model keeps its class.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: Architecture | None = None,
        base_id: str | None = None,
        compat: str | None = None,
    ) -> None:
        if compat not in (None, "adapters"):
            raise UsageError(f"compat is {compat!r}", hint="it is None or 'adapters'")
        self._ground = survey(model, architecture)
        check_in_memory(self._ground)
        self._size = sum(p.numel() for p in self._ground.model.parameters())
        self._loaded = Roster(self._ground, base_id, compat=compat is not None)
        self._installation = Installation(self._ground)
        self._plans = Plans(self._loaded, self._installation)
        self._named = Compositions(self)
        self._gradients = Gradients(self._loaded)
        self._active: Setting | None = None
        self._merge: Merge | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the class it always had."""
        return self._ground.model

    @property
    def layout(self) -> Layout:
        """The places for adapters in the model."""
        return self._ground.layout

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded, in the order of loading."""
        return tuple(self._loaded)

    @property
    def compositions(self) -> tuple[str, ...]:
        """Names of the compositions that are loaded."""
        return tuple(self._loaded.compositions)

    @property
    def active(self) -> str | Composition | None:
        """What is on the forward path: a name, a composition without one, or None; None inside `per_row` too."""
        setup = (self._active.name or self._active.node) if isinstance(self._active, Headed) else self._active
        return None if isinstance(setup, PerRow) else setup

    def load(
        self,
        reference: str | Path | Adapter | Assembly,
        *,
        name: str | None = None,
        set_active: bool = False,
        overwrite_ok: bool = False,
        allow_base_mismatch: bool = False,
    ) -> str:
        """Load an adapter from a reference, a path, or memory, and return the name it goes by here.

        A saved composition is loaded with all its adapters, which go by their names in it; `activate` takes its name.

        Raises:
            BaseMismatchError: it was made for another base; a warning with allow_base_mismatch, if it fits.
            FormatError: a tensor is missing, left over, misshapen or not finite.
            StateError: the name is taken.
        """
        self._unmerged("load")
        base = None if allow_base_mismatch else self._loaded.base_id or None
        adapter = self._fetched(reference, base) if isinstance(reference, (str, Path)) else reference
        if isinstance(adapter, Assembly):
            local = self._loaded.free_name(name or adapter.manifest.name, overwrite_ok)
            self._named.put(local, adapter, overwrite_ok=overwrite_ok, allow_base_mismatch=allow_base_mismatch)
            if set_active:
                self.activate(local)
            return local
        local = self._loaded.free_name(name or adapter.manifest.name, overwrite_ok)
        check_architecture(adapter, self._ground.layout)
        self._loaded.check_base(adapter, allow_base_mismatch)
        check_account(adapter, self._ground.layout)
        self._install(local, Loaded(adapter.config, adapter.manifest, self._loaded.bank(adapter.tensors)), set_active)
        return local

    def compose(
        self,
        name: str,
        composition: Composition,
        *,
        head: str | None = None,
        manifest: Manifest | None = None,
        overwrite_ok: bool = False,
    ) -> str:
        """Give a composition of adapters that are loaded a name, under which it is activated and saved; return it.

        head: name of the adapter whose head answers, in place of those in the composition.
        manifest: what is known about it; its base and probe are filled in when it is saved.

        Raises:
            NotFoundError: no adapter of one of the names is loaded.
            UnsupportedError: an adapter cannot stand where the composition has it.
            StateError: the name is taken.
        """
        local = self._loaded.free_name(name, overwrite_ok)
        known = manifest or Manifest(name=local, base=self._loaded.base())
        self._named.name(local, Headed(composition, head or "", self._loaded.compat, local), known)
        return local

    def add(
        self,
        name: str,
        method: str | MethodConfig | Sequence[MethodConfig],
        *,
        labels: Sequence[str] = (),
        overwrite_ok: bool = False,
        set_active: bool = False,
    ) -> str:
        """Make a new adapter, near the identity, and return its name; if anything fails, nothing of it stays.

        method: `double_seq_bn[reduction_factor=8]+layer_norm`, a configuration, or several.
        labels: class names; where the method has no head, they add a linear one on what the family's heads read.

        Raises:
            UsageError: the method or the labels do not make sense.
            StateError: the name is taken.
        """
        self._unmerged("add")
        local = self._loaded.free_name(name, overwrite_ok)
        configs = settled(with_head(configs_of(method), tuple(labels), self._ground.layout), self._ground.layout)
        shapes(configs, self._ground.layout)  # refuses before anything is made
        tensors = {}
        for config in configs:
            tensors.update(method_of(config).initial(config, self._ground.layout, self._loaded.parameter))
        manifest = Manifest(name=name, base=self._loaded.base(), labels=tuple(labels))
        self._install(local, Loaded(configs, manifest, self._loaded.bank(tensors)), set_active)
        return local

    def activate(self, setup: str | Composition | None, *, head: str | None = None) -> None:
        """Put an adapter, or a composition of adapters, on the forward path in place of what is there.

        None leaves the base model alone. Without `head` the heads follow the composition: the last one's in a stack,
        one answer for each adapter where the rows have different ones (HeadOutputs).

        head: name of the adapter whose head answers, in place of those in the composition.

        Raises:
            NotFoundError: no adapter of this name is loaded.
            UnsupportedError: an adapter cannot stand where the composition has it.
        """
        if setup is not None and not isinstance(setup, (str, Composition)):
            raise UsageError(f"{setup!r} cannot be activated", hint="give a name, a composition such as Stack, or None")
        if isinstance(setup, str) and setup in self._loaded.compositions:
            named = self._loaded.compositions[setup].setup
            self._switch(named if head is None else dataclasses.replace(named, head=head, name=""))
            return
        if head is None:
            self._switch(setup)
            return
        self._loaded[head]  # refuses a name that is not loaded
        if setup is None:
            raise UsageError("the base model alone answers with no adapter's head", hint="activate the adapter itself")
        self._switch(Headed(Stack(setup) if isinstance(setup, str) else setup, head))

    @contextmanager
    def using(self, setup: str | Composition | None, *, head: str | None = None) -> Iterator[None]:
        """Activate something for the length of a `with` block, then what was active before."""
        before = self._active
        self.activate(setup, head=head)
        try:
            yield
        finally:
            self._switch(before)

    @contextmanager
    def per_row(self, names: Sequence[str | None], *, head: str | None = None) -> Iterator[None]:
        """Give each row of the batches in a `with` block its own adapter, None the base model.

        Methods and sizes may differ from row to row. Batches must have as many rows as there are names. Weights of
        adapters that are alike are gathered once, and again when a parameter was written to or got other `data`. Writes
        that leave no trace (`parameter.data.copy_`) must come before the block.

        Raises:
            NotFoundError: no adapter of one of the names is loaded.
        """
        before = self._active
        rows = PerRow(tuple(names))
        self._switch(rows if head is None else Headed(rows, head))
        try:
            yield
        finally:
            self._switch(before)

    def train(self, name: str | Fuse, *, within: Composition | None = None) -> list[nn.Parameter]:
        """Freeze the model, activate an adapter, and return its parameters, which alone want gradients now.

        Layer norms and head that belong to the adapter are among them; what its method keeps frozen is not. `detach`
        gives the base its flags back. The model's mode is left alone: call `model.train()` for dropout.

        name: an adapter, or a Fuse, whose fusion layer is trained while its adapters stay as they are; add
            `regularisation()` to the loss then.
        within: the composition that is active meanwhile, in place of the adapter alone.

        Raises:
            UsageError: the adapter is not in the composition.
        """
        if isinstance(name, Fuse):
            within = name if within is None else within
            name = name.key
        if within is not None and name not in used(within):
            raise UsageError(f"{name!r} is no part of {within}", hint="name one of its adapters or fusion layers")
        trained = self._gradients.only(name)
        self.activate(None)
        self._plans.clear()
        self.activate(within or name)
        return trained

    def regularisation(self) -> torch.Tensor:
        """Return what the fusion layer that is being trained wants added to the loss, 0 where it wants nothing."""
        return self._gradients.regularisation()

    def merge(self, setup: str | Composition, *, untie: bool = False) -> None:
        """Write an adapter, or a composition, into the base model's weights; its head, if it has one, stays active.

        What is loaded, added, saved or verified meanwhile would meet another base model, so it is refused until
        `unmerge`, or until `detach`, which unmerges.

        untie: give a module whose weight is another's too (an output layer that shares the embeddings) its own.

        Raises:
            UnsupportedError: no weights can hold what it computes, or a weight is quantised or tied; every reason.
            StateError: something is merged already.
        """
        self._unmerged("merge")
        named = self._loaded.compositions
        chosen = named[setup].setup if isinstance(setup, str) and setup in named else setup
        binding, head = self._plans.whole(chosen)
        merge = Merge(self._ground, binding, str(setup), untie=untie)
        self.activate(None)
        merge.put()
        self._merge = merge
        if head is not None:
            self._installation.switch(head)

    def unmerge(self) -> None:
        """Take what was merged out of the base model's weights, which are then what they were, bit for bit.

        Raises:
            StateError: nothing is merged, or other code has replaced a merged weight.
        """
        self._loaded.check_alive()
        if self._merge is None:
            raise StateError("nothing is merged")
        self._merge.take()
        self._merge = None
        self._switch(None)

    def arrangement(
        self, name: str, *, manifest: Manifest | None = None, probe: Mapping[str, torch.Tensor] | None = None
    ) -> Arrangement:
        """Return what the file of a composition holds, with a probe recorded now, and without pins; arguments as save.

        Raises:
            NotFoundError: no composition of this name is loaded.
        """
        self._unmerged("save")
        return self._named.arrangement(name, manifest, probe)

    def adapter(self, name: str) -> Adapter:
        """Return a loaded adapter as a value: copies of its tensors, its configuration and manifest."""
        return self._loaded[name].value()

    def manifest(self, name: str) -> Manifest:
        """Return what is known about a loaded adapter or composition."""
        named = self._loaded.compositions
        return named[name].manifest if name in named else self._loaded[name].manifest

    def save(
        self,
        name: str,
        path: str | Path,
        *,
        format: str = "native",  # noqa: A002
        manifest: Manifest | None = None,
        probe: Mapping[str, torch.Tensor] | None = None,
        dtype: torch.dtype | None = None,
        force: bool = False,
    ) -> Path:
        """Write an adapter, with the fingerprint of this base and a probe recorded now, and return the path.

        A composition is written as a folder with all its adapters; for format "adapters", as a setup folder.

        manifest: in place of the loaded one; its base and probe are filled in here.
        probe: model inputs (batch, sequence) for the probe; some token ids if not given.
        dtype: of the tensors in the file, if another than on the model.

        Raises:
            StateError: something is at the path and force is not set, or dtype cannot hold the values exactly.
        """
        self._unmerged("save")
        if name in self.compositions:
            return self._named.save(name, Path(path), format, manifest, probe, dtype, force)
        return save_adapter(self, name, Path(path), format, manifest, probe, dtype, force)

    def replay(self, name: str) -> probes.Replay:
        """Replay the probe of a loaded adapter or composition on this model.

        Raises:
            NotFoundError: it was saved without one.
            IntegrityError: the answers differ.
        """
        self._unmerged("replay a probe")
        return replay(self, name)

    def delete(self, name: str) -> None:
        """Forget an adapter, or a composition with the adapters that came with it; what was active of it ends.

        Raises:
            StateError: the adapter is part of a composition.
        """
        if name in self._loaded.compositions:
            self._named.delete(name)
            return
        self._loaded[name]  # refuses a name that is not loaded
        holders = self._named.holders(name)
        if holders:
            raise StateError(f"{name!r} is part of {', '.join(holders)}", hint="delete that first")
        if name in used(self._active):
            self.activate(None)
        self._gradients.forget(name)
        self._plans.forget(name)
        self._loaded.remove(name)

    def detach(self) -> None:
        """Take everything off the model: its parameters, modules, forwards and flags are as before `attach`."""
        self._loaded.check_alive()
        if self._merge is not None:
            self.unmerge()
        self.activate(None)
        self._gradients.restore()
        self._plans.clear()
        self._loaded.clear()

    def sites(self, name: str) -> tuple[Site, ...]:
        """Return the residual sites where an adapter acts."""
        places = self._loaded.binding(self._loaded[name]).sites
        return tuple(site for site in self._ground.layout.sites if site.path in places)

    def summary(self) -> Summary:
        """Return the table of parameters per adapter, method and kind of site, with their share of the base."""
        self._loaded.check_alive()
        layout, loaded = self._ground.layout, self._loaded
        found = [row for name in loaded for row in rows(name, loaded[name].config, layout, self._size)]
        return Summary(base=self._size, rows=tuple(found), active=str(self._active or "none"))

    def __repr__(self) -> str:
        return f"AdapterSet({type(self.model).__name__}, names={list(self.names)}, active={self._active!r})"

    def _fetched(self, reference: str | Path, base: str | None) -> Adapter | Assembly:
        row = self._ground.architecture
        return fetch(reference, base, KnownBase(self._ground.model, row), row)

    def _install(self, name: str, loaded: Loaded, set_active: bool) -> None:
        """Register a complete adapter; the one of the same name, active or not, gives way to it."""
        binding = self._loaded.binding(loaded)
        plan = self._plans.alone(loaded, binding) if set_active or not binding.fusions else None
        present = self._active
        again = name in used(present)
        if again:
            self.activate(None)
        self._loaded.put(name, loaded)
        self._plans.forget(name)
        if plan is not None:
            self._plans.keep(name, plan)
        if set_active:
            self.activate(name)
        elif again:
            self._switch(present)

    def _switch(self, setup: Setting | None) -> None:
        self._installation.switch(NOTHING if setup is None else self._plans.of(setup))
        self._active = setup

    def _unmerged(self, verb: str) -> None:
        if self._merge is not None:
            raise StateError(f"cannot {verb} while an adapter is merged into the base model", hint="unmerge it first")
