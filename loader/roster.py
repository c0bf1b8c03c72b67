"""Roster: what is loaded on one model, by name, and the live parameters of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..adapter import Adapter, Base, Manifest, MethodConfig
from ..errors import BaseMismatchError, NotFoundError, StateError, UsageError
from ..methods import Binding, Live, method_of, united
from .arguments import base_id as base_id_of
from .bank import SHELF, Bank, Shelf
from .fingerprint import check_fingerprint, fingerprint
from .layout import Ground
from .settings import settings_of

if TYPE_CHECKING:
    from .named import Named


@dataclasses.dataclass(slots=True)
class Loaded:
    """One adapter on the model: what it is, and its live parameters."""

    config: tuple[MethodConfig, ...]
    manifest: Manifest
    bank: Bank

    def value(self) -> Adapter:
        """Return it as a value, with copies of its tensors."""
        tensors = {key: p.detach().cpu().clone().contiguous() for key, p in self.bank.tensors().items()}
        return Adapter(self.config, tensors, self.manifest)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that training changes: without what the method keeps frozen."""
        return [
            parameter
            for key, parameter in self.bank.trainable().items()
            if not any(method_of(config).frozen(config, key) for config in self.config)
        ]


class Roster:
    """The adapters and compositions of one model, by name.

    Attributes:
        ground: the model.
        base_id: Hub id of the base model, "" where it is not known.
        compat: compute what `adapters` 1.3.0 does.
        compositions: name → composition.
    """

    def __init__(self, ground: Ground, base_id: str | None, *, compat: bool) -> None:
        if SHELF in ground.model._modules:
            raise StateError("adapters are attached to this model already", hint="use that AdapterSet, or detach it")
        self.ground = ground
        self.base_id = base_id_of(ground.model) if base_id is None else base_id
        self.compat = compat
        self.settings = settings_of(ground)
        self.compositions: dict[str, Named] = {}
        self._adapters: dict[str, Loaded] = {}
        self._shelf = Shelf()
        ground.model.add_module(SHELF, self._shelf)

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapters)

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def __getitem__(self, name: str) -> Loaded:
        """Return a loaded adapter.

        Raises:
            NotFoundError: no adapter of this name is loaded.
            UsageError: it is a composition.
        """
        self.check_alive()
        found = self._adapters.get(name)
        if name in self.compositions:
            raise UsageError(f"{name!r} is a composition, not an adapter", hint="activate it by its name alone")
        if found is None:
            raise NotFoundError(f"no adapter called {name!r} is loaded", hint=f"loaded are: {self._names()}")
        return found

    def composition(self, name: str) -> Named:
        """Return a loaded composition.

        Raises:
            NotFoundError: no composition of this name is loaded.
        """
        if name not in self.compositions:
            raise NotFoundError(
                f"no composition called {name!r} is loaded",
                hint=f"loaded are: {', '.join(self.compositions) or 'none'}",
            )
        return self.compositions[name]

    def check_alive(self) -> None:
        """Raise StateError if the adapters were taken off the model."""
        if self.ground.model._modules.get(SHELF) is not self._shelf:
            raise StateError("this AdapterSet is detached", hint="call attach(model) again")

    def free_name(self, name: str, overwrite_ok: bool) -> str:
        """Return a name that something new may go by.

        Raises:
            StateError: it is taken, and overwrite_ok is not set.
        """
        self.check_alive()
        if not name:
            raise UsageError("an adapter needs a name", hint="pass name=")
        if (name in self._adapters or name in self.compositions) and not overwrite_ok:
            kind = "an adapter" if name in self._adapters else "a composition"
            raise StateError(
                f"{kind} called {name!r} is loaded already", hint="pass another name, or overwrite_ok=True"
            )
        return name

    def put(self, name: str, loaded: Loaded) -> None:
        """Keep an adapter under a name, in place of the one that went by it."""
        self._adapters[name] = loaded
        self._shelf.put(name, loaded.bank)

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._shelf.remove(name)
        del self._adapters[name]

    def clear(self) -> None:
        """Forget all, and take the live parameters off the model."""
        del self.ground.model._modules[SHELF]
        self._adapters.clear()
        self.compositions.clear()

    def bank(self, tensors: Mapping[str, torch.Tensor]) -> Bank:
        """Return live parameters with these values, in the dtype, on the device and in the mode of the model."""
        bank = Bank(tensors, dtype=self.ground.bare.dtype, device=self.ground.bare.device)
        return bank.train(self.ground.model.training)

    def binding(self, loaded: Loaded, *, compat: bool = False) -> Binding:
        """Return what an adapter does to the model; compat: as `adapters` does, whatever the roster says."""
        parameters = loaded.bank.tensors()

        def base(path: str) -> torch.Tensor:
            # A parameter that the adapter brings itself stands in for the base's.
            return parameters[path] if path in parameters else self.parameter(path)

        live = Live(
            layout=self.ground.layout,
            mode=loaded.bank,
            base=base,
            compat=self.compat or compat,
            settings=self.settings,
        )
        return united(method_of(config).bind(config, parameters, live) for config in loaded.config)

    def mutes(self, loaded: Loaded) -> bool:
        """Return whether an adapter is right only without what its family's row calls muted."""
        origin = loaded.manifest.provenance
        return self.compat or (origin is not None and origin.format == "adapters")

    def base(self) -> Base:
        """Return what a manifest says of this base model."""
        return Base(architecture=self.ground.layout.architecture, id=self.base_id, fingerprint=fingerprint(self.ground))

    def parameter(self, path: str) -> torch.Tensor:
        """Return a parameter of the base model."""
        found = self.ground.parameter(path)
        if found is None:
            raise NotFoundError(f"the base model has no parameter {path}")
        return found

    def base_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the base model, without those of the adapters."""
        own = {id(p) for p in self._shelf.parameters()}
        return (p for p in self.ground.model.parameters() if id(p) not in own)

    def check_base(self, adapter: Adapter, allow: bool) -> None:
        """Raise BaseMismatchError, or warn if allowed, where an adapter was made for another base model."""
        expected = adapter.manifest.base.fingerprint
        if expected is None:
            return
        try:
            check_fingerprint(expected, self.ground, f"adapter {adapter.manifest.name!r}")
        except BaseMismatchError as error:
            if not allow:
                raise
            warnings.warn(f"{error.message}; loaded all the same, as asked", UserWarning, stacklevel=3)

    def _names(self) -> str:
        return ", ".join(self._adapters) or "none"
