"""The layout of a live model: a row of data laid over its modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..architectures import Architecture, Layers, by_model_type
from ..errors import UnsupportedError, UsageError
from ..sites import Attention, Block, Embedding, Layout, Linear, Norm


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
    outer = {path: m for path, m in model.named_modules() if path and path not in modules} if model is not bare else {}
    layers = list(_layers(row, bare, modules))
    layout = Layout(
        architecture=row.name,
        layers=len(layers),
        width=layers[-1].width,
        sites=tuple(site for layer in layers for site in layer.names.sites(layer.path, layer.index, layer.width)),
        norms=tuple(_norm(path, None, modules, row) for path in row.norms)
        + tuple(
            _norm(f"{layer.path}.{path}", layer.index, modules, row) for layer in layers for path in layer.names.norms
        ),
        pooler=row.pooler is not None and row.pooler in modules,
        linears=tuple(_linears(layers, {**modules, **_outside(outer, bare)})),
        attentions=tuple(attention for layer in layers for attention in _attentions(layer, bare.config)),
        blocks=tuple(Block(path=layer.path, layer=layer.index, width=layer.width) for layer in layers),
        embeddings=tuple(_embeddings(row, bare, modules)),
        vocabulary=_vocabulary(bare),
    )
    _all_there(layout, modules, row)
    modules |= _outside(outer, bare)
    return Ground(model, bare, row, layout, modules, _owners(modules))


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: its names, path, number through all stacks, and hidden size."""

    names: Layers
    path: str
    index: int
    width: int


def _layers(row: Architecture, bare: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[_Layer]:
    """Yield the layers of all stacks; the index goes on from one stack to the next."""
    index = 0
    for stack in row.layers:
        if stack.optional and stack.container not in modules:
            continue
        width = setting(bare.config, stack.width)
        for i in range(len(list(_module(stack.container, modules, row).children()))):
            yield _Layer(stack, stack.path.format(i=i), index, width)
            index += 1


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
        weight = module._parameters.get("weight")
        if weight is None or not isinstance(module, (nn.Linear, Conv1D, nn.modules.conv._ConvNd, nn.Embedding)):
            continue
        roles, index, cross = named.get(path, ((), _index_of(path, layers), False))
        yield _linear(path, module, roles=roles, layer=index, cross=cross)


def _linear(path: str, module: Any, **known: Any) -> Linear:
    shape = tuple(module.weight.shape)
    bias = module._parameters.get("bias") is not None
    if isinstance(module, nn.Embedding):
        return Linear(path=path, inputs=shape[0], outputs=shape[1], kind="embedding", bias=False, **known)
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
        yield Attention(
            path=f"{layer.path}.{part.path}",
            stack=part.stack,
            layer=layer.index,
            width=layer.width,
            heads=heads,
            head_size=setting(config, names.head_size) or layer.width // queries,
        )


def _embeddings(row: Architecture, bare: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[Embedding]:
    for names in row.embeddings:
        if names.path in modules:
            width = setting(bare.config, names.width)
            tokens = names.tokens if names.tokens in modules else None
            yield Embedding(path=names.path, width=width, tokens=tokens, stack=names.stack)


def _vocabulary(bare: PreTrainedModel) -> int:
    try:
        table = bare.get_input_embeddings()
    except NotImplementedError:
        return 0
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0


def _norm(path: str, layer: int | None, modules: dict[str, nn.Module], row: Architecture) -> Norm:
    module = _module(path, modules, row)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
    return Norm(path=path, layer=layer, shapes=shapes)


def _all_there(layout: Layout, modules: dict[str, nn.Module], row: Architecture) -> None:
    """Raise where the row names a module that the model does not have."""
    for site in layout.sites:
        for path in (site.output, site.residual, site.norm):
            if path is not None:
                _module(path, modules, row)
    for attention in layout.attentions:
        _module(attention.path, modules, row)


def _owners(modules: dict[str, nn.Module]) -> dict[str, tuple[nn.Module, str]]:
    return {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
    }


def _module(path: str, modules: dict[str, nn.Module], row: Architecture) -> nn.Module:
    found = modules.get(path)
    if found is None:
        raise UnsupportedError(
            f"the model has no module {path!r}, which the architecture {row.name!r} names",
            hint="pass the row that describes this model: attach(model, architecture=…)",
        )
    return found
