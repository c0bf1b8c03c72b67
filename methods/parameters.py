"""Trained parameters: the adapter brings whole parameters of the base model, which stand in for the model's own.

    p = p',      p' a tensor of the shape of p

Biases that were trained along (BitFit, Ben Zaken et al. 2022), modules that were trained in full beside a LoRA, or a
table of embeddings. The keys are the parameters' own paths: `encoder.layer.0.attention.self.query.bias`; those around
the base model, such as `lm_head.weight`, have their paths in the whole model.

Sources: Ben Zaken et al. 2022 (arXiv 2106.10199) §2; PEFT 0.21.2, utils/other.py (ModulesToSaveWrapper).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Layout
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ParametersConfig(Config):
    """Which parameters are trained.

    Attributes:
        names: their paths.
        tied: those of them that also stand in wherever the base model uses the same parameter.
    """

    method: ClassVar[str] = "parameters"
    sets: ClassVar[tuple[str, ...]] = ("names", "tied")

    names: tuple[str, ...]
    tied: tuple[str, ...] = ()

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [] if self.names else ["names is empty"]
        faults += [f"{name!r} is no path of a parameter" for name in self.names if not name]
        faults += [f"tied names {name!r}, names does not" for name in self.tied if name not in self.names]
        return faults + (["names has one twice"] if len(set(self.names)) < len(self.names) else [])


def shapes(config: ParametersConfig, layout: Layout) -> Shapes:
    """Return path → shape of every parameter.

    Raises:
        UsageError: the model has no parameter of this name.
    """
    unknown = [name for name in config.names if name not in layout.parameters]
    if unknown:
        raise UsageError(
            f"the model has no parameter called {', '.join(unknown[:5])}" + (" …" if unknown[5:] else ""),
            hint="load it onto the model class that it was trained with",
        )
    return {name: layout.parameters[name] for name in config.names}


def initial(config: ParametersConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: those of the base model."""
    return {key: base(key).detach().clone() for key in shapes(config, layout)}


def facts(config: ParametersConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the shapes of those parameters that are there."""
    return Facts(parameters={name: have[name] for name in config.names if name in have})


def bind(config: ParametersConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the tensors that stand in for the base's own."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in config.names:
        places = live.layout.tied.get(name, (name,)) if name in config.tied else (name,)
        for place in places:
            module, _, leaf = place.rpartition(".")
            if place == name or place not in config.names:
                found.setdefault(module, {})[leaf] = tensors[name]
    return Binding(parameters=found)


METHOD = Method(config=ParametersConfig, presets={}, shapes=shapes, initial=initial, bind=bind, facts=facts)
