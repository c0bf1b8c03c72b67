"""The layout of a live model: a row of data laid over its modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..architectures import Architecture, Layers, by_model_type, inside
from ..errors import UnsupportedError, UsageError
from ..sites import Attention, Block, Embedding, Layout, Linear, Norm, Reading

READINGS: Mapping[str, Reading] = {"cls": "first", "mean": "mean"}
"""What a configuration's `classifier_pooling` means."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A model seen through its architecture's row.

    Attributes:
        model: the model as the user has it.
        bare: the base model inside it, or itself; all paths count from here.
        architecture: the row.
        layout: its sites.
        modules: path in bare → module; those around it, such as `lm_head`, by their path in model.
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

    def input_embeddings(self) -> Iterator[nn.Module]:
        """Yield the modules that turn the input of the model, or of a model inside it, into vectors."""
        found: set[int] = set()
        for model in self.bare.modules():
            if isinstance(model, PreTrainedModel):
                with suppress(NotImplementedError):  # some parts of models read no tokens
                    embeddings = model.get_input_embeddings()
                    if id(embeddings) not in found:
                        found.add(id(embeddings))
                        yield embeddings


def check_in_memory(ground: Ground) -> None:
    """Refuse a model of which weights lie elsewhere, from where they are fetched when a module runs.

    Raises:
        UnsupportedError: there are such weights; the first is named.
    """
    away = next((path for path in ground.owners if _is_meta(ground.parameter(path))), None)
    if away is not None:
        raise UnsupportedError(
            f"{away} is offloaded (it is on the device 'meta'), and adapters act on weights that are in memory",
            hint="load the model with a device_map without 'disk', and without 'cpu' beside another device",
        )


def _is_meta(parameter: nn.Parameter | None) -> bool:
    return parameter is not None and parameter.is_meta


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
    _presumed(bare.config, row)
    modules = dict(bare.named_modules())
    outer = {path: m for path, m in model.named_modules() if path and path not in modules} if model is not bare else {}
    layers = list(_layers(row, bare, modules))
    everything = {**modules, **_outside(outer, bare)}
    owners = _owners(everything)
    layout = Layout(
        architecture=row.name,
        layers=len(layers),
        width=layers[-1].width,
        sites=tuple(
            site for layer in layers for site in layer.names.sites(layer.path, layer.index, layer.width, layer.last)
        ),
        norms=tuple(_norms(row, layers, modules)),
        pooler=row.pooler is not None and row.pooler in modules,
        linears=tuple(_linears(layers, everything)),
        attentions=tuple(attention for layer in layers for attention in _attentions(layer, bare.config)),
        blocks=tuple(Block(path=layer.path, layer=layer.index, width=layer.width) for layer in layers),
        embeddings=tuple(_embeddings(row, bare, modules)),
        vocabulary=_vocabulary(model, row, modules),
        reads=READINGS.get(setting(bare.config, "classifier_pooling", ""), row.reads),
        parameters={path: tuple(module.get_parameter(name).shape) for path, (module, name) in owners.items()},
        tied=_tied(owners),
    )
    _all_there(layout, layers, modules, row)
    return Ground(model, bare, row, layout, everything, owners)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer.

    Attributes:
        names: what it has.
        path: its module path.
        index: its number through all stacks.
        width: its hidden size.
        last: path of the last layer of its stack.
    """

    names: Layers
    path: str
    index: int
    width: int
    last: str


def _presumed(config: Any, row: Architecture) -> None:
    """Raise where a model has settings for which the row is not made."""
    odd = [f"{name}={setting(config, name)}" for name, value in row.presumes if setting(config, name) != value]
    if odd:
        raise UnsupportedError(
            f"{row.name} models with {', '.join(odd)} are not described by the architecture {row.name!r}",
            hint="pass the row that describes this model: attach(model, architecture=…)",
        )


def _layers(row: Architecture, bare: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[_Layer]:
    """Yield the layers of all stacks; the index goes on from one stack to the next, unless it restarts."""
    index = 0
    for stack in row.layers:
        paths = [path for path in modules if (place := stack.index(path)) is not None and stack.layer(place) == path]
        if not paths:
            if not _lacks(row, stack.path.replace(".{i}", ""), modules):
                _module(stack.layer((0, 0)), modules, row)
            continue
        width, index = setting(bare.config, stack.width), 0 if stack.restarts else index
        for path in paths:
            lacking = [part for part in stack.may_lack if f"{path}.{part}" not in modules]
            yield _Layer(stack.without(lacking), path, index, width, paths[-1])
            index += 1


def _lacks(row: Architecture, path: str, modules: dict[str, nn.Module]) -> bool:
    """Return whether a path lies in something that the row lets a model lack, and that this one lacks."""
    return inside(path, [part for part in row.may_lack if part not in modules])


def setting(config: Any, path: str, default: Any = None) -> Any:
    """Return an attribute of a configuration; a path with dots goes through configurations inside it."""
    for name in path.split("."):
        config = getattr(config, name, None)
    return default if config is None else config


def _outside(outer: dict[str, nn.Module], bare: nn.Module) -> dict[str, nn.Module]:
    """Return the modules around the base model, such as `lm_head`, by their paths in the whole model."""
    inside = {id(module) for module in bare.modules()}
    return {path: module for path, module in outer.items() if id(module) not in inside}


def _linears(layers: Iterable[_Layer], modules: dict[str, nn.Module]) -> Iterator[Linear]:
    """Yield the linear maps in the order of the model."""
    named = {
        f"{layer.path}.{path}": (roles, layer.index, cross)
        for layer in layers
        for path, (roles, cross) in layer.names.projections().items()
    }
    for path, module in modules.items():
        if _is_linear(module):
            roles, index, cross = named.get(path, ((), _index_of(path, layers), False))
            yield _linear(path, module, roles=roles, layer=index, cross=cross)


def _is_linear(module: Any) -> bool:
    """Return whether a module is a map that adapters can act on."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.padding_mode == "zeros"
    if isinstance(module, nn.Embedding):
        return _embedding_scale(module) is not None
    return isinstance(module, (nn.Linear, Conv1D)) and module._parameters.get("weight") is not None


def _embedding_scale(module: nn.Embedding) -> float | None:
    """Return the factor that an embedding puts on its rows, None where it does something else to them."""
    if type(module).forward is nn.Embedding.forward:
        return 1.0
    scale = module._buffers.get("embed_scale", module.__dict__.get("embed_scale"))
    if isinstance(scale, Tensor) and scale.is_meta:
        # A model without weights keeps the factor as a plain number only.
        scale = torch.tensor(module.__dict__["scalar_embed_scale"])
    # The buffers are cast to the weight's dtype, and the factor with them.
    return float(scale.to(module.weight.dtype)) if isinstance(scale, Tensor) else scale


def _linear(path: str, module: Any, **known: Any) -> Linear:
    shape = tuple(module.weight.shape)
    bias = module._parameters.get("bias") is not None
    if isinstance(module, nn.Embedding):
        scale = _embedding_scale(module) or 1.0
        return Linear(path=path, inputs=shape[0], outputs=shape[1], kind="embedding", bias=False, scale=scale, **known)
    if isinstance(module, Conv1D):
        return Linear(path=path, inputs=shape[0], outputs=shape[1], kind="conv1d", bias=bias, **known)
    if isinstance(module, nn.Linear):
        return Linear(path=path, inputs=module.in_features, outputs=module.out_features, bias=bias, **known)
    return Linear(
        path=path,
        inputs=module.in_channels,
        outputs=module.out_channels,
        kind="convolution",
        bias=bias,
        kernel=shape[2:],
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        **known,
    )


def _index_of(path: str, layers: Iterable[_Layer]) -> int | None:
    return next((layer.index for layer in layers if path.startswith(f"{layer.path}.")), None)


def _attentions(layer: _Layer, config: Any) -> Iterator[Attention]:
    names = layer.names
    heads = next((found for name in names.heads if (found := setting(config, name)) is not None), None)
    queries = setting(config, names.query_heads, heads)
    if heads is None or queries is None:
        return
    for part in names.attentions:
        path = f"{layer.path}.{part.path}"
        yield Attention(
            path=path,
            stack=part.stack,
            layer=layer.index,
            width=layer.width,
            heads=heads,
            head_size=setting(config, names.head_size) or layer.width // queries,
            form=names.form,
            positions=None if part.cross else path if names.positions == "" else names.positions,
            bias=f"{names.layer((0, 0))}.{part.path}" if names.bias and not part.cross else None,
        )


def _embeddings(row: Architecture, bare: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[Embedding]:
    for names in row.embeddings:
        if not _lacks(row, names.path, modules):
            _module(names.path, modules, row)
            width = next(found for name in names.width if (found := setting(bare.config, name)) is not None)
            found = names.embedding(width)
            if any(setting(bare.config, name) for name in names.fixed_by):
                found = dataclasses.replace(found, lengthens=False)
            yield found if found.reader in modules else dataclasses.replace(found, reader=None)


def _vocabulary(model: PreTrainedModel, row: Architecture, modules: dict[str, nn.Module]) -> int:
    tables = [modules.get(names.tokens or "") for names in row.embeddings]
    with suppress(NotImplementedError):
        tables.append(model.get_input_embeddings())
    return next((table.num_embeddings for table in tables if isinstance(table, nn.Embedding)), 0)


def _norms(row: Architecture, layers: Iterable[_Layer], modules: dict[str, nn.Module]) -> Iterator[Norm]:
    """Yield the norms outside the layers, then those inside; a place that holds the identity has none."""
    places: list[tuple[str, int | None]] = [(path, None) for path in row.norms if not _lacks(row, path, modules)]
    places += [(f"{layer.path}.{path}", layer.index) for layer in layers for path in layer.names.norms]
    for path, index in places:
        parameters = _module(path, modules, row).named_parameters(recurse=False)
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
        if shapes:
            yield Norm(path=path, layer=index, shapes=shapes)


def _all_there(layout: Layout, layers: Iterable[_Layer], modules: dict[str, nn.Module], row: Architecture) -> None:
    """Raise where the row names a module that the model does not have."""
    named: list[str | None] = [attention.path for attention in layout.attentions]
    for site in layout.sites:
        named += [site.output, site.residual, site.norm, site.beside, site.stream, site.inner]
    named += [embedding.tokens for embedding in layout.embeddings]
    named += [f"{layer.path}.{path}" for layer in layers for path in layer.names.projections()]
    for path in named:
        if path is not None:
            _module(path, modules, row)


def _owners(modules: dict[str, nn.Module]) -> dict[str, tuple[nn.Module, str]]:
    return {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
    }


def _tied(owners: dict[str, tuple[nn.Module, str]]) -> dict[str, tuple[str, ...]]:
    """Return path → all paths of the same parameter, for those that have several."""
    together: dict[int, list[str]] = {}
    for path, (module, name) in owners.items():
        together.setdefault(id(module._parameters[name]), []).append(path)
    return {path: tuple(paths) for paths in together.values() if len(paths) > 1 for path in paths}


def _module(path: str, modules: dict[str, nn.Module], row: Architecture) -> nn.Module:
    found = modules.get(path)
    if found is None:
        raise UnsupportedError(
            f"the model has no module {path!r}, which the architecture {row.name!r} names",
            hint="pass the row that describes this model: attach(model, architecture=…)",
        )
    return found
