"""The layout of a live model: a row of data laid over its modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from ..architectures import Architecture, by_model_type
from ..errors import UnsupportedError, UsageError
from ..sites import Layout, Norm, Site


@dataclass(frozen=True, slots=True)
class Ground:
    """A model seen through its architecture's row.

    Attributes:
        model: the model as the user has it.
        bare: the base model inside it, or itself; all paths count from here.
        architecture: the row.
        layout: its sites.
        modules: path in bare → module.
        owners: parameter path in bare → its module and its name there; adapters are not among them.
    """

    model: PreTrainedModel
    bare: PreTrainedModel
    architecture: Architecture
    layout: Layout
    modules: dict[str, nn.Module]
    owners: dict[str, tuple[nn.Module, str]]

    def parameter(self, path: str) -> nn.Parameter | None:
        """Return the base model's parameter as it is now, or None where there is none."""
        module, name = self.owners.get(path, (None, ""))
        return None if module is None else module._parameters[name]


def survey(model: nn.Module, architecture: Architecture | None = None) -> Ground:
    """Return a model with the layout that its row, or the given one, makes of it.

    Raises:
        UsageError: it is not a model of transformers.
        UnsupportedError: its family is unknown, or it lacks a module that the row names.
    """
    if not isinstance(model, PreTrainedModel):
        raise UsageError(
            f"cannot attach to a {type(model).__name__}",
            hint="pass the transformers model itself, not a wrapper around it",
        )
    bare = model.base_model
    if not isinstance(bare, PreTrainedModel):
        raise UsageError(f"{type(model).__name__} has no base model inside it")
    row = architecture or by_model_type(bare.config.model_type)
    modules = dict(bare.named_modules())
    layers = list(_layers(row, bare, modules))
    sites = tuple(site for layer in layers for site in layer.sites)
    norms = tuple(_norm(path, None, modules, row) for path in row.norms) + tuple(
        _norm(path, layer.index, modules, row) for layer in layers for path in layer.norms
    )
    for site in sites:
        for path in (site.output, site.residual, site.norm):
            if path is not None:
                _module(path, modules, row)
    layout = Layout(
        architecture=row.name,
        layers=len(layers),
        width=layers[-1].width,
        sites=sites,
        norms=norms,
        pooler=row.pooler is not None and row.pooler in modules,
    )
    owners = {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
    }
    return Ground(model, bare, row, layout, modules, owners)


@dataclass(frozen=True, slots=True)
class _Layer:
    index: int
    width: int
    sites: tuple[Site, ...]
    norms: tuple[str, ...]


def _layers(row: Architecture, bare: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[_Layer]:
    """Yield the layers of all stacks; the index goes on from one stack to the next."""
    index = 0
    for stack in row.layers:
        width = getattr(bare.config, stack.width)
        for i in range(len(list(_module(stack.container, modules, row).children()))):
            layer = stack.path.format(i=i)
            yield _Layer(
                index, width, stack.sites(layer, index, width), tuple(f"{layer}.{path}" for path in stack.norms)
            )
            index += 1


def _norm(path: str, layer: int | None, modules: dict[str, nn.Module], row: Architecture) -> Norm:
    module = _module(path, modules, row)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
    return Norm(path=path, layer=layer, shapes=shapes)


def _module(path: str, modules: dict[str, nn.Module], row: Architecture) -> nn.Module:
    found = modules.get(path)
    if found is None:
        raise UnsupportedError(
            f"the model has no module {path!r}, which the architecture {row.name!r} names",
            hint="pass the row that describes this model: attach(model, architecture=…)",
        )
    return found
