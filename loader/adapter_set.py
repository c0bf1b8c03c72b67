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
from ..converters import write
from ..errors import BaseMismatchError, NotFoundError, StateError, UnsupportedError, UsageError
from ..methods import ClassificationHeadConfig, Live, method_of, shapes, united
from . import probe as probes
from .account import check_account, check_architecture
from .arguments import base_id as base_id_of
from .arguments import configs as configs_of
from .arguments import with_head
from .bank import SHELF, Bank, Shelf
from .files import exactly, fetch
from .fingerprint import check_fingerprint, fingerprint
from .layout import survey
from .plan import NOTHING, Installation, Plan, build
from .summary import Summary, rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..architectures import Architecture


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
        if SHELF in self._ground.model._modules:
            raise StateError("adapters are attached to this model already", hint="use that AdapterSet, or detach it")
        self._base_id = base_id_of(self._ground.model) if base_id is None else base_id
        self._size = sum(p.numel() for p in self._ground.model.parameters())
        self._loaded: dict[str, _Loaded] = {}
        self._plans: dict[str, Plan] = {}
        self._active: str | None = None
        self._trained: str | None = None
        self._wanted_grad: dict[nn.Parameter, bool] | None = None
        self._installation = Installation(self._ground)
        self._shelf = Shelf()
        self._ground.model.add_module(SHELF, self._shelf)

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the class it always had."""
        return self._ground.model

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded, in the order of loading."""
        return tuple(self._loaded)

    @property
    def active(self) -> str | None:
        """The adapter on the forward path, or None."""
        return self._active

    def load(
        self,
        reference: str | Path | Adapter,
        *,
        name: str | None = None,
        set_active: bool = False,
        overwrite_ok: bool = False,
        allow_base_mismatch: bool = False,
    ) -> str:
        """Load an adapter from a reference, a path, or memory, and return the name it goes by here.

        Raises:
            BaseMismatchError: it was made for another base; a warning with allow_base_mismatch, if it fits.
            FormatError: a tensor is missing, left over, misshapen or not finite.
            StateError: the name is taken.
        """
        base = None if allow_base_mismatch else self._base_id or None
        adapter = reference if isinstance(reference, Adapter) else fetch(reference, base)
        local = self._free_name(name or adapter.manifest.name, overwrite_ok)
        check_architecture(adapter, self._ground.layout)
        self._check_base(adapter, allow_base_mismatch)
        check_account(adapter, self._ground.layout)
        self._install(local, _Loaded(adapter.config, adapter.manifest, self._bank(adapter.tensors)), set_active)
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
        labels: class names; where the method has no head, they add a linear one on the first token.

        Raises:
            UsageError: the method or the labels do not make sense.
            StateError: the name is taken.
        """
        local = self._free_name(name, overwrite_ok)
        configs = with_head(configs_of(method), tuple(labels))
        shapes(configs, self._ground.layout)  # refuses before anything is made
        tensors = {}
        for config in configs:
            tensors.update(method_of(config).initial(config, self._ground.layout, self._base_parameter))
        manifest = Manifest(name=name, base=self._base(), labels=tuple(labels))
        self._install(local, _Loaded(configs, manifest, self._bank(tensors)), set_active)
        return local

    def activate(self, setup: str | None) -> None:
        """Put one adapter on the forward path in place of what is there; None leaves the base model alone.

        Raises:
            NotFoundError: no adapter of this name is loaded.
        """
        if setup is not None and not isinstance(setup, str):
            raise UnsupportedError(f"{setup!r} cannot be activated", hint="activate one adapter by name")
        self._installation.switch(NOTHING if setup is None else self._plan(setup))
        self._active = setup

    @contextmanager
    def using(self, setup: str | None) -> Iterator[None]:
        """Activate something for the length of a `with` block, then what was active before."""
        before = self._active
        self.activate(setup)
        try:
            yield
        finally:
            self.activate(before)

    def train(self, name: str) -> list[nn.Parameter]:
        """Freeze the model, activate an adapter, and return its parameters, which alone want gradients now.

        Layer norms and head that belong to the adapter are among them; what its method keeps frozen is not. `detach`
        gives the base its flags back. The model's mode is left alone: call `model.train()` for dropout.
        """
        loaded = self._get(name)
        if self._wanted_grad is None:
            self._wanted_grad = {p: p.requires_grad for p in self._base_parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        trained = [
            parameter
            for key, parameter in loaded.bank.tensors().items()
            if not any(method_of(config).frozen(config, key) for config in loaded.config)
        ]
        for parameter in trained:
            parameter.requires_grad_(True)
        self.activate(None)
        self._plans.clear()
        self._trained = name
        self.activate(name)
        return trained

    def adapter(self, name: str) -> Adapter:
        """Return a loaded adapter as a value: copies of its tensors, its configuration and manifest."""
        loaded = self._get(name)
        tensors = {key: p.detach().cpu().clone().contiguous() for key, p in loaded.bank.tensors().items()}
        return Adapter(loaded.config, tensors, loaded.manifest)

    def manifest(self, name: str) -> Manifest:
        """Return what is known about a loaded adapter."""
        return self._get(name).manifest

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

        manifest: in place of the loaded one; its base and probe are filled in here.
        probe: model inputs (batch, sequence) for the probe; some token ids if not given.
        dtype: of the tensors in the file, if another than on the model.

        Raises:
            StateError: something is at the path and force is not set, or dtype cannot hold the values exactly.
        """
        adapter = self.adapter(name)
        if dtype is not None:
            adapter = dataclasses.replace(adapter, tensors=exactly(adapter.tensors, dtype))
        known = manifest or adapter.manifest
        base = known.base
        base = dataclasses.replace(self._base(), id=base.id or self._base_id, revision=base.revision)
        known = dataclasses.replace(known, base=base, probe=self._record(name, probe))
        return Path(write(dataclasses.replace(adapter, manifest=known), Path(path), format=format, force=force))

    def replay(self, name: str) -> probes.Replay:
        """Replay the probe of a loaded adapter on this model.

        Raises:
            NotFoundError: it was saved without one.
            IntegrityError: the answers differ.
        """
        manifest = self._get(name).manifest
        if manifest.probe is None:
            raise NotFoundError(f"adapter {name!r} has no probe", hint="save it again with adapterhub to record one")
        with self.using(name):
            return probes.replay(self._ground, manifest.probe, f"adapter {name!r}")

    def delete(self, name: str) -> None:
        """Forget an adapter; if it is active, the base model is left."""
        self._get(name)
        if self._active == name:
            self.activate(None)
        self._trained = None if self._trained == name else self._trained
        self._shelf.remove(name)
        self._plans.pop(name, None)
        del self._loaded[name]

    def detach(self) -> None:
        """Take everything off the model: its parameters, modules, forwards and flags are as before `attach`."""
        self._alive()
        self.activate(None)
        for parameter, wanted in (self._wanted_grad or {}).items():
            parameter.requires_grad_(wanted)
            parameter.grad = None if not wanted else parameter.grad
        del self.model._modules[SHELF]
        self._loaded.clear()
        self._plans.clear()

    def summary(self) -> Summary:
        """Return the table of parameters per adapter, method and kind of site, with their share of the base."""
        self._alive()
        found = [row for n, a in self._loaded.items() for row in rows(n, a.config, self._ground.layout, self._size)]
        return Summary(base=self._size, rows=tuple(found), active=self._active or "none")

    def __repr__(self) -> str:
        return f"AdapterSet({type(self.model).__name__}, names={list(self.names)}, active={self._active!r})"

    # ----------------------------------------------------------------------------------------------------------

    def _alive(self) -> None:
        if self.model._modules.get(SHELF) is not self._shelf:
            raise StateError("this AdapterSet is detached", hint="call attach(model) again")

    def _get(self, name: str) -> _Loaded:
        self._alive()
        found = self._loaded.get(name)
        if found is None:
            raise NotFoundError(
                f"no adapter called {name!r} is loaded", hint=f"loaded are: {', '.join(self._loaded) or 'none'}"
            )
        return found

    def _free_name(self, name: str, overwrite_ok: bool) -> str:
        self._alive()
        if not name:
            raise UsageError("an adapter needs a name", hint="pass name=")
        if name in self._loaded and not overwrite_ok:
            raise StateError(
                f"an adapter called {name!r} is loaded already", hint="pass another name, or overwrite_ok=True"
            )
        return name

    def _install(self, name: str, loaded: _Loaded, set_active: bool) -> None:
        """Register a complete adapter; the one of the same name, active or not, gives way to it."""
        plan = self._build(loaded)
        again = self._active == name
        if again:
            self.activate(None)
        self._loaded[name] = loaded
        self._shelf.put(name, loaded.bank)
        self._plans[name] = plan
        if again or set_active:
            self.activate(name)

    def _plan(self, name: str) -> Plan:
        plan = self._plans.get(name)
        if plan is None:
            plan = self._plans[name] = self._build(self._get(name))
        return plan

    def _build(self, loaded: _Loaded) -> Plan:
        parameters = loaded.bank.tensors()
        live = Live(layout=self._ground.layout, mode=loaded.bank, base=self._base_parameter, compat=self._compat)
        binding = united(method_of(config).bind(config, parameters, live) for config in loaded.config)
        trains = any(p.requires_grad for p in parameters.values())
        origin = loaded.manifest.provenance
        return build(
            self._ground,
            self._installation,
            binding,
            loaded.manifest.labels,
            trains=trains,
            mutes=self._compat or (origin is not None and origin.format == "adapters"),
        )

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

    def _record(self, name: str, inputs: Mapping[str, torch.Tensor] | None) -> Probe:
        inputs = inputs or probes.default_inputs(self._ground)
        head = any(isinstance(c, ClassificationHeadConfig) for c in self._get(name).config)
        base_values = None
        if not head:
            with self.using(None):
                base_values = probes.rounded(probes.answer(self._ground, inputs, "last_hidden_state"))
        with self.using(name):
            return probes.record(self._ground, inputs, head=head, base_values=base_values)
