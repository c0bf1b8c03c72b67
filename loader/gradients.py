"""Which parameters want gradients: those of the adapter that is trained, or what the base model's wanted before."""

from __future__ import annotations

import torch
from torch import nn

from .roster import Roster


class Gradients:
    """The flags of a model's parameters, and how they were."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._trained: str | None = None
        self._wanted: dict[nn.Parameter, bool] | None = None

    def only(self, name: str) -> list[nn.Parameter]:
        """Freeze everything but what training changes of one adapter, and return that."""
        loaded = self._roster[name]
        if self._wanted is None:
            self._wanted = {p: p.requires_grad for p in self._roster.base_parameters()}
        for parameter in self._roster.ground.model.parameters():
            parameter.requires_grad_(False)
        for parameter in loaded.trained():
            parameter.requires_grad_(True)
        self._trained = name
        return loaded.trained()

    def regularisation(self) -> torch.Tensor:
        """Return what the fusion layer that is trained wants added to the loss, 0 where it wants nothing."""
        terms = [torch.zeros((), device=self._roster.ground.bare.device)]
        if self._trained is not None:
            mixings = self._roster.binding(self._roster[self._trained]).fusions.values()
            terms += [term for mixing in mixings if (term := mixing.regularisation()) is not None]
        return torch.stack(terms).sum()

    def forget(self, name: str) -> None:
        """Forget that an adapter is trained, which is deleted."""
        self._trained = None if self._trained == name else self._trained

    def restore(self) -> None:
        """Give the base model's parameters the flags that they had, and no gradients where they wanted none."""
        for parameter, wanted in (self._wanted or {}).items():
            parameter.requires_grad_(wanted)
            parameter.grad = None if not wanted else parameter.grad
