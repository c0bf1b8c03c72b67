"""Board: what puts the active bottleneck adapter of a model on its forward path.

PEFT and transformers switch adapters by telling each layer, and replace modules of the model as they like (a norm that
is trained along, a linear map that gets a LoRA besides), and parameters too. So whenever a model of transformers is
called, the board looks whether what stands there is still right, and makes it anew if not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.compiler import is_compiling
from transformers import PreTrainedModel

from ..converters.peft.bottleneck import LAYER, PARAMETERS, SHARED
from ..errors import StateError, UsageError
from ..loader.forwards import Called, Forward
from ..loader.layout import Ground, survey
from ..loader.plan import Installation, build
from ..methods import Binding, Live, SiteOp, method_of
from .layer import ROOT, SITE, BottleneckLayer

if TYPE_CHECKING:
    import torch

    from ..methods import BottleneckConfig

Seen = tuple[nn.Module, str, object]
"""A module, a name, and the module or parameter that it had under this name."""


class Board:
    """The layers of one model, and what stands in its modules' `forward`.

    Attributes:
        configs: name of an adapter → what it computes.
        model: the model as PEFT has it.
        root: the layer of what all sites share, which every model has.
        layers: path of a site → its layer.
    """

    def __init__(self, ground: Ground) -> None:
        self.configs: dict[str, BottleneckConfig] = {}
        self.model = ground.model
        self.root = BottleneckLayer(self, ground.model, ROOT)
        self.layers: dict[str, BottleneckLayer] = {}
        self._put: list[tuple[nn.Module, Forward | None, Forward]] = []
        self._seen: list[Seen] = []
        self._active: str | None = None
        _claim(ground.model, self.root)
        for module in ground.model.modules():
            if isinstance(module, PreTrainedModel):
                module.__dict__["forward"] = Entry(module.forward, self)

    def layer(self, path: str, module: nn.Module) -> BottleneckLayer:
        """Return the layer of a site, made if it is not there; module: that of the site's path."""
        if path not in self.layers:
            layer = BottleneckLayer(self, module, SITE)
            layer._disable_adapters = self.root._disable_adapters
            layer._active_adapter = self.root._active_adapter
            _claim(module, layer)
            self.layers[path] = layer
        return self.layers[path]

    def refresh(self) -> None:
        """Let the active adapter act, and nothing else.

        Raises:
            StateError: another library has replaced a forward of ours, or a model is compiled that was never called.
        """
        if not self._is_stale():
            return
        if is_compiling():
            raise StateError(
                "the active adapter has changed since the model was last called", hint="call it, then compile"
            )
        self._take_off()
        active = self._wanted()
        if active is not None:
            self._put_on(active)
        self._active = active

    def remove(self) -> None:
        """Take everything off the model."""
        self._take_off()
        for module in self.model.modules():
            forward = module.__dict__.get("forward")
            if isinstance(forward, Entry):
                del module.__dict__["forward"]
                if forward.before is not None:
                    module.__dict__["forward"] = forward.before
        owners = [module for module in self.model.modules() if isinstance(module._modules.get(LAYER), BottleneckLayer)]
        for module in owners:
            del module._modules[LAYER]

    def _wanted(self) -> str | None:
        """Return the adapter that is to act."""
        if self.root.disable_adapters:
            return None
        names = cast("list[str]", self.root.active_adapters)
        return next((name for name in names if name in self.configs), None)

    def _is_stale(self) -> bool:
        if self._wanted() != self._active:
            return True
        return any(o._modules.get(n) is not v and o._parameters.get(n) is not v for o, n, v in self._seen)

    def _put_on(self, adapter: str) -> None:
        ground = survey(self.model)
        tensors = dict(self._tensors(adapter))
        config = self.configs[adapter]
        live = Live(layout=ground.layout, mode=self.root, base=_reader(ground))
        sites = method_of(config).bind(config, tensors, live).sites
        dtype = next(iter(tensors.values())).dtype
        if dtype != ground.bare.dtype:
            sites = {path: cast("SiteOp", InDtype(op, dtype)) for path, op in sites.items()}
        plan = build(ground, Installation(ground), Binding(sites=sites), (), trains=False)
        modules = {id(module.__dict__): module for module in (ground.model, *ground.modules.values())}
        for attributes, forward in plan.forwards:
            self._put.append((modules[id(attributes)], attributes.get("forward"), forward))
            attributes["forward"] = forward
        self._seen = [*self._parameters(adapter), *_places(ground)]

    def _take_off(self) -> None:
        for module, _, forward in self._put:
            if module.__dict__.get("forward") is not forward:
                raise StateError(
                    "another library has replaced the forward of a module that holds an active adapter",
                    hint="take its wrapper off first, or wrap the model before it gets adapters",
                )
        for module, before, _ in self._put:
            del module.__dict__["forward"]
            if before is not None:
                module.__dict__["forward"] = before
        self._put, self._seen, self._active = [], [], None

    def _tensors(self, adapter: str) -> Iterator[tuple[str, Tensor]]:
        """Yield canonical key → tensor of an adapter."""
        for name, owner, leaf in self.root.owners(adapter):
            yield f"shared.{SHARED[name]}", cast("Tensor", owner._parameters[leaf])
        for path, layer in self.layers.items():
            for name, owner, leaf in layer.owners(adapter):
                yield f"{path}.{PARAMETERS[name]}", cast("Tensor", owner._parameters[leaf])

    def _parameters(self, adapter: str) -> Iterator[Seen]:
        for layer in (self.root, *self.layers.values()):
            for _, owner, leaf in layer.owners(adapter):
                yield owner, leaf, owner._parameters[leaf]


class Entry(Called):
    """Stands for a model of transformers: looks after the board before each call."""

    __slots__ = ("before", "board")

    def __init__(self, original: Forward, board: Board) -> None:
        super().__init__(original)
        self.board = board
        owner = getattr(original, "__self__", None)
        self.before = None if owner is not None else original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        self.board.refresh()
        return self.original(*args, **kwargs)


class InDtype:
    """An operation whose tensors have another dtype than the model: PEFT keeps them in float32 beside a half model."""

    __slots__ = ("dtype", "op", "reads_norm", "reads_residual", "replaces_norm")

    def __init__(self, op: SiteOp, dtype: torch.dtype) -> None:
        self.op = op
        self.dtype = dtype
        self.reads_norm = op.reads_norm
        self.reads_residual = op.reads_residual
        self.replaces_norm = op.replaces_norm

    def __call__(self, d: Tensor, x: Tensor | None, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return the new d (batch, sequence, width), in the dtype that it had."""
        inner = None if norm is None else InDtypeNorm(norm, d.dtype)
        return self.op(d.to(self.dtype), None if x is None else x.to(self.dtype), inner).to(d.dtype)


class InDtypeNorm:
    """A norm of the model, called with another dtype than its own."""

    __slots__ = ("dtype", "norm")

    def __init__(self, norm: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        self.norm = norm
        self.dtype = dtype

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the normalised states, in the dtype that they came in."""
        return self.norm(hidden.to(self.dtype)).to(hidden.dtype)


def board_of(model: nn.Module) -> Board | None:
    """Return the board of a model, None if it has none yet."""
    layer = model._modules.get(LAYER)
    return layer.board if isinstance(layer, BottleneckLayer) else None


def _claim(module: nn.Module, layer: BottleneckLayer) -> None:
    """Put a layer into a module.

    Raises:
        UsageError: the module has something else of that name.
    """
    if hasattr(module, LAYER):
        raise UsageError(f"a {type(module).__name__} has a {LAYER!r} of its own, so it cannot have an adapter's")
    module.add_module(LAYER, layer)


def _reader(ground: Ground) -> Callable[[str], Tensor]:
    def base(path: str) -> Tensor:
        found = ground.parameter(path)
        if found is None:
            raise UsageError(f"the base model has no parameter {path}")
        return found

    return base


def _places(ground: Ground) -> Iterator[Seen]:
    """Yield where the modules are found that the sites name, and all that they lie in."""
    paths: set[str] = set()
    for site in ground.layout.sites:
        named = (site.output, site.residual, site.norm, site.beside, site.stream, site.inner)
        paths |= {path.rsplit(".", up)[0] for path in named if path for up in range(path.count(".") + 1)}
    for path in sorted(paths):
        parent, _, name = path.rpartition(".")
        owner = ground.bare.get_submodule(parent)
        yield owner, name, owner._modules[name]
