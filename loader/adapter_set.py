"""AdapterSet: the adapters of one model, and which of them is active."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..adapter import Adapter, Base, Manifest, MethodConfig, Probe
from ..arrangement import Arrangement
from ..composition import Composition, Fuse, Stack, fusions, leaves
from ..converters import write
from ..errors import BaseMismatchError, NotFoundError, StateError, UsageError
from ..methods import Binding, FusionConfig, HeadOp, Live, is_head, method_of, settled, shapes, united
from ..sites import Layout, Site
from . import probe as probes
from .account import check_account, check_architecture
from .arguments import base_id as base_id_of
from .arguments import configs as configs_of
from .arguments import with_head
from .assembly import Assembly
from .bank import SHELF, Bank, Shelf
from .combined_heads import Heads
from .files import exactly, fetch
from .fingerprint import check_fingerprint, fingerprint
from .known_base import KnownBase
from .layout import check_in_memory, survey
from .merging import Merge
from .named import Compositions
from .plan import NOTHING, Installation, Plan, build
from .settings import settings_of
from .setups import Headed, PerRow, Setup, bound, operations
from .summary import Summary, rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..architectures import Architecture


Setting = str | Composition | PerRow | Headed
"""What can be active."""


@dataclasses.dataclass(slots=True)
class _Loaded:
    """One adapter on the model: what it is, and its live parameters."""

    config: tuple[MethodConfig, ...]
    manifest: Manifest
    bank: Bank


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
        self._compat = compat is not None
        self._ground = survey(model, architecture)
        check_in_memory(self._ground)
        if SHELF in self._ground.model._modules:
            raise StateError("adapters are attached to this model already", hint="use that AdapterSet, or detach it")
        self._base_id = base_id_of(self._ground.model) if base_id is None else base_id
        self._size = sum(p.numel() for p in self._ground.model.parameters())
        self._loaded: dict[str, _Loaded] = {}
        self._bindings: dict[str, Binding] = {}
        self._plans: dict[str, Plan] = {}
        self._compositions: dict[Composition | Headed, Plan] = {}
        self._named = Compositions(self)
        self._active: Setting | None = None
        self._trained: str | None = None
        self._merge: Merge | None = None
        self._wanted_grad: dict[nn.Parameter, bool] | None = None
        self._settings = settings_of(self._ground)
        self._installation = Installation(self._ground)
        self._shelf = Shelf()
        self._ground.model.add_module(SHELF, self._shelf)

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
        return tuple(self._named)

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
        base = None if allow_base_mismatch else self._base_id or None
        adapter = self._fetched(reference, base) if isinstance(reference, (str, Path)) else reference
        if isinstance(adapter, Assembly):
            local = self._free_name(name or adapter.manifest.name, overwrite_ok)
            self._named.put(local, adapter, overwrite_ok=overwrite_ok, allow_base_mismatch=allow_base_mismatch)
            if set_active:
                self.activate(local)
            return local
        local = self._free_name(name or adapter.manifest.name, overwrite_ok)
        check_architecture(adapter, self._ground.layout)
        self._check_base(adapter, allow_base_mismatch)
        check_account(adapter, self._ground.layout)
        self._install(local, _Loaded(adapter.config, adapter.manifest, self._bank(adapter.tensors)), set_active)
        return local

    def _fetched(self, reference: str | Path, base: str | None) -> Adapter | Assembly:
        row = self._ground.architecture
        return fetch(reference, base, KnownBase(self._ground.model, row), row)

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
        local = self._free_name(name, overwrite_ok)
        known = manifest or Manifest(name=local, base=self._base())
        self._named.name(local, Headed(composition, head or "", self._compat, local), known)
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
        local = self._free_name(name, overwrite_ok)
        configs = settled(with_head(configs_of(method), tuple(labels), self._ground.layout), self._ground.layout)
        shapes(configs, self._ground.layout)  # refuses before anything is made
        tensors = {}
        for config in configs:
            tensors.update(method_of(config).initial(config, self._ground.layout, self._base_parameter))
        manifest = Manifest(name=name, base=self._base(), labels=tuple(labels))
        self._install(local, _Loaded(configs, manifest, self._bank(tensors)), set_active)
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
        if isinstance(setup, str) and setup in self._named:
            named = self._named[setup].setup
            self._switch(named if head is None else dataclasses.replace(named, head=head, name=""))
            return
        if head is None:
            self._switch(setup)
            return
        self._get(head)
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
        adapters that are alike are gathered once; writes that autograd does not see (`parameter.data`) must come first.

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
        if within is not None and name not in self._used(within):
            raise UsageError(f"{name!r} is no part of {within}", hint="name one of its adapters or fusion layers")
        loaded = self._get(name)
        if self._wanted_grad is None:
            self._wanted_grad = {p: p.requires_grad for p in self._base_parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        trained = [
            parameter
            for key, parameter in loaded.bank.trainable().items()
            if not any(method_of(config).frozen(config, key) for config in loaded.config)
        ]
        for parameter in trained:
            parameter.requires_grad_(True)
        self.activate(None)
        self._forget_all_plans()
        self._trained = name
        self.activate(within or name)
        return trained

    def regularisation(self) -> torch.Tensor:
        """Return what the fusion layer that is being trained wants added to the loss, 0 where it wants nothing."""
        terms = [torch.zeros((), device=self._ground.bare.device)]
        if self._trained is not None:
            mixings = self._binding(self._get(self._trained)).fusions.values()
            terms += [term for mixing in mixings if (term := mixing.regularisation()) is not None]
        return torch.stack(terms).sum()

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
        chosen = self._named[setup].setup if isinstance(setup, str) and setup in self._named else setup
        names = [name for name in self._used(chosen) if name is not None]
        parts = {name: self._binding(self._get(name)) for name in names}
        binding = parts[chosen] if isinstance(chosen, str) else self._put_together(chosen, parts).binding
        merge = Merge(self._ground, binding, str(setup), untie=untie)
        self.activate(None)
        merge.put()
        self._merge = merge
        if binding.head is not None:
            labels = self._labels_of(binding.head, parts)
            only_head = Binding(head=binding.head)
            self._installation.switch(build(self._ground, self._installation, only_head, labels, trains=False))

    def unmerge(self) -> None:
        """Take what was merged out of the base model's weights, which are then what they were, bit for bit.

        Raises:
            StateError: nothing is merged, or other code has replaced a merged weight.
        """
        self._alive()
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
        loaded = self._get(name)
        tensors = {key: p.detach().cpu().clone().contiguous() for key, p in loaded.bank.tensors().items()}
        return Adapter(loaded.config, tensors, loaded.manifest)

    def manifest(self, name: str) -> Manifest:
        """Return what is known about a loaded adapter or composition."""
        return self._named[name].manifest if name in self._named else self._get(name).manifest

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
        if name in self._named:
            return self._named.save(name, Path(path), format, manifest, probe, dtype, force)
        adapter = self.adapter(name)
        if dtype is not None:
            adapter = dataclasses.replace(adapter, tensors=exactly(adapter.tensors, dtype))
        known = manifest or adapter.manifest
        base = known.base
        base = dataclasses.replace(self._base(), id=base.id or self._base_id, revision=base.revision)
        known = dataclasses.replace(known, base=base, probe=self._record(name, probe))
        return Path(write(dataclasses.replace(adapter, manifest=known), Path(path), format=format, force=force))

    def replay(self, name: str) -> probes.Replay:
        """Replay the probe of a loaded adapter or composition on this model.

        Raises:
            NotFoundError: it was saved without one.
            IntegrityError: the answers differ.
        """
        self._unmerged("replay a probe")
        manifest, what = self.manifest(name), f"{'composition' if name in self._named else 'adapter'} {name!r}"
        if manifest.probe is None:
            raise NotFoundError(f"{what} has no probe", hint="save it again with adapterhub to record one")
        with self.using(name):
            return probes.replay(self._ground, manifest.probe, what)

    def delete(self, name: str) -> None:
        """Forget an adapter, or a composition with the adapters that came with it; what was active of it ends.

        Raises:
            StateError: the adapter is part of a composition.
        """
        if name in self._named:
            self._named.delete(name)
            return
        self._get(name)
        holders = self._named.holders(name)
        if holders:
            raise StateError(f"{name!r} is part of {', '.join(holders)}", hint="delete that first")
        if name in self._used(self._active):
            self.activate(None)
        self._trained = None if self._trained == name else self._trained
        self._shelf.remove(name)
        self._forget_plans(name)
        del self._loaded[name]

    def detach(self) -> None:
        """Take everything off the model: its parameters, modules, forwards and flags are as before `attach`."""
        self._alive()
        if self._merge is not None:
            self.unmerge()
        self.activate(None)
        for parameter, wanted in (self._wanted_grad or {}).items():
            parameter.requires_grad_(wanted)
            parameter.grad = None if not wanted else parameter.grad
        del self.model._modules[SHELF]
        self._loaded.clear()
        self._forget_all_plans()
        self._named.clear()

    def sites(self, name: str) -> tuple[Site, ...]:
        """Return the residual sites where an adapter acts."""
        places = self._binding(self._get(name)).sites
        return tuple(site for site in self._ground.layout.sites if site.path in places)

    def summary(self) -> Summary:
        """Return the table of parameters per adapter, method and kind of site, with their share of the base."""
        self._alive()
        found = [row for n, a in self._loaded.items() for row in rows(n, a.config, self._ground.layout, self._size)]
        return Summary(base=self._size, rows=tuple(found), active=str(self._active or "none"))

    def __repr__(self) -> str:
        return f"AdapterSet({type(self.model).__name__}, names={list(self.names)}, active={self._active!r})"

    # ----------------------------------------------------------------------------------------------------------

    def _alive(self) -> None:
        if self.model._modules.get(SHELF) is not self._shelf:
            raise StateError("this AdapterSet is detached", hint="call attach(model) again")

    def _get(self, name: str) -> _Loaded:
        self._alive()
        found = self._loaded.get(name)
        if name in self._named:
            raise UsageError(f"{name!r} is a composition, not an adapter", hint="activate it by its name alone")
        if found is None:
            raise NotFoundError(
                f"no adapter called {name!r} is loaded", hint=f"loaded are: {', '.join(self._loaded) or 'none'}"
            )
        return found

    def _free_name(self, name: str, overwrite_ok: bool) -> str:
        self._alive()
        if not name:
            raise UsageError("an adapter needs a name", hint="pass name=")
        if (name in self._loaded or name in self._named) and not overwrite_ok:
            kind = "an adapter" if name in self._loaded else "a composition"
            raise StateError(
                f"{kind} called {name!r} is loaded already", hint="pass another name, or overwrite_ok=True"
            )
        return name

    def _install(self, name: str, loaded: _Loaded, set_active: bool) -> None:
        """Register a complete adapter; the one of the same name, active or not, gives way to it."""
        binding = self._binding(loaded)
        plan = self._alone(loaded, binding) if set_active or not binding.fusions else None
        present = self._active
        again = name in self._used(present)
        if again:
            self.activate(None)
        self._loaded[name] = loaded
        self._shelf.put(name, loaded.bank)
        self._forget_plans(name)
        if plan is not None:
            self._plans[name] = plan
        if set_active:
            self.activate(name)
        elif again:
            self._switch(present)

    def _switch(self, setup: Setting | None) -> None:
        self._installation.switch(NOTHING if setup is None else self._plan(setup))
        self._active = setup

    def _used(self, setup: Setting | None) -> tuple[str | None, ...]:
        """Return the names of the adapters and fusion layers in a setup."""
        if isinstance(setup, Headed):
            return (*self._used(setup.node), *([setup.head] if setup.head else []))
        if setup is None or isinstance(setup, PerRow):
            return () if setup is None else setup.names
        return (*leaves(setup), *fusions(setup))

    def _forget_plans(self, name: str) -> None:
        """Forget the plans of everything that an adapter is in."""
        self._bindings.pop(name, None)
        self._plans.pop(name, None)
        for setup in [setup for setup in self._compositions if name in self._used(setup)]:
            del self._compositions[setup]

    def _forget_all_plans(self) -> None:
        self._bindings.clear()
        self._plans.clear()
        self._compositions.clear()

    def _plan(self, setup: Setting) -> Plan:
        if isinstance(setup, str):
            plan = self._plans.get(setup)
            if plan is None:
                loaded = self._get(setup)
                plan = self._plans[setup] = self._alone(loaded, self._binding(loaded))
            return plan
        if isinstance(setup, PerRow) or (isinstance(setup, Headed) and not setup.name):
            return self._composed(setup)  # as good as never asked for again
        if setup not in self._compositions:
            self._compositions[setup] = self._composed(setup)
        return self._compositions[setup]

    def _alone(self, loaded: _Loaded, binding: Binding) -> Plan:
        """Return the plan of one adapter."""
        if binding.fusions:
            raise UsageError(
                f"{loaded.manifest.name!r} is a fusion layer, which does nothing alone",
                hint="activate Fuse(…) of its adapters",
            )
        trains = any(p.requires_grad for p in loaded.bank.tensors().values())
        return build(
            self._ground,
            self._installation,
            binding,
            loaded.manifest.labels,
            trains=trains,
            mutes=self._mutes(loaded),
        )

    def _bound(self, name: str) -> Binding:
        """Return the binding of a loaded adapter, made once: every batch of `per_row` asks for many."""
        if name not in self._bindings:
            self._bindings[name] = self._binding(self._get(name))
        return self._bindings[name]

    def _binding(self, loaded: _Loaded, *, compat: bool = False) -> Binding:
        parameters = loaded.bank.tensors()

        def base(path: str) -> torch.Tensor:
            # A parameter that the adapter brings itself stands in for the base's.
            return parameters[path] if path in parameters else self._base_parameter(path)

        live = Live(
            layout=self._ground.layout,
            mode=loaded.bank,
            base=base,
            compat=self._compat or compat,
            settings=self._settings,
        )
        return united(method_of(config).bind(config, parameters, live) for config in loaded.config)

    def _unmerged(self, verb: str) -> None:
        if self._merge is not None:
            raise StateError(f"cannot {verb} while an adapter is merged into the base model", hint="unmerge it first")

    def _composed(self, setup: Composition | PerRow | Headed) -> Plan:
        """Return the plan of several adapters."""
        names = [name for name in dict.fromkeys(self._used(setup)) if name is not None]
        compat = isinstance(setup, Headed) and setup.compat
        parts = {name: self._binding(self._get(name), compat=True) if compat else self._bound(name) for name in names}
        made = self._put_together(setup, parts)
        return build(
            self._ground,
            self._installation,
            made.binding,
            self._labels_of(made.binding.head, parts),
            trains=any(p.requires_grad for name in names for p in self._loaded[name].bank.tensors().values()),
            mutes=any(self._mutes(self._loaded[name]) for name in names)
            or (isinstance(setup, Headed) and setup.compat),
            copies=made.copies,
            tasks=made.tasks,
        )

    def _put_together(self, setup: Composition | PerRow | Headed, parts: Mapping[str, Binding]) -> Setup:
        """Return what several adapters do together."""
        alone = {name: operations(part, self._ground) for name, part in parts.items()}
        return bound(setup, alone.__getitem__, compat=self._compat)

    def _labels(self, setup: Composition | PerRow | Headed) -> tuple[str, ...]:
        """Return the names of the classes that a composition answers with, () where it has none or several."""
        parts = {name: self._binding(self._get(name)) for name in self._used(setup) if name is not None}
        head = self._put_together(setup, parts).binding.head
        return () if head is None else self._labels_of(head, parts)

    def _labels_of(self, head: HeadOp | None, parts: Mapping[str, Binding]) -> tuple[str, ...]:
        """Return the names of a head's classes, () where several heads have different ones."""
        answering = head.distinct if isinstance(head, Heads) else [head]
        owners = [name for name, part in parts.items() if part.head is not None and part.head in answering]
        labels = {self._loaded[name].manifest.labels for name in owners}
        return labels.pop() if len(labels) == 1 else ()

    def _mutes(self, loaded: _Loaded) -> bool:
        """Return whether an adapter is right only without what its family's row calls muted."""
        origin = loaded.manifest.provenance
        return self._compat or (origin is not None and origin.format == "adapters")

    def _bank(self, tensors: Mapping[str, torch.Tensor]) -> Bank:
        bank = Bank(tensors, dtype=self._ground.bare.dtype, device=self._ground.bare.device)
        return bank.train(self.model.training)

    def _base(self) -> Base:
        return Base(
            architecture=self._ground.layout.architecture, id=self._base_id, fingerprint=fingerprint(self._ground)
        )

    def _base_parameter(self, path: str) -> torch.Tensor:
        found = self._ground.parameter(path)
        if found is None:
            raise NotFoundError(f"the base model has no parameter {path}")
        return found

    def _base_parameters(self) -> Iterator[nn.Parameter]:
        own = {id(p) for p in self._shelf.parameters()}
        return (p for p in self.model.parameters() if id(p) not in own)

    def _check_base(self, adapter: Adapter, allow: bool) -> None:
        expected = adapter.manifest.base.fingerprint
        if expected is None:
            return
        try:
            check_fingerprint(expected, self._ground, f"adapter {adapter.manifest.name!r}")
        except BaseMismatchError as error:
            if not allow:
                raise
            warnings.warn(f"{error.message}; loaded all the same, as asked", UserWarning, stacklevel=3)

    def _record(self, name: str, inputs: Mapping[str, torch.Tensor] | None) -> Probe | None:
        if any(isinstance(config, FusionConfig) for config in self._get(name).config):
            return None  # alone it does nothing; the composition that it stands in has one
        head = next((config for config in self._get(name).config if is_head(config)), None)
        inputs = inputs or probes.default_inputs(self._ground, self._settings, head)
        base_values = None
        if head is None:
            with self.using(None):
                output = probes.output_of(self._ground, inputs)
                base_values = probes.rounded(probes.answer(self._ground, inputs, output))
        else:
            output = probes.output_of_head(self._ground, head)
        with self.using(name):
            return probes.record(self._ground, inputs, output, base_values=base_values)
