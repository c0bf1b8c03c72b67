"""Trained layer norms: the adapter brings its own weights and biases for normalisation modules of the base model.

Houlsby et al. 2019 (arXiv 1902.00751) §2.1 train the layer norms of the base model for each task together with the
adapters: 2d parameters each. The keys are the base parameters' own paths: `encoder.layer.0.output.LayerNorm.weight`.
The base model's own parameters are never written to; while the adapter is active its tensors stand in for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Layout, Norm
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(Config):
    """Which normalisation modules are trained.

    Attributes:
        modules: their paths in the bare base model, or None for every one that the model has.
    """

    method: ClassVar[str] = "layer_norm"

    modules: tuple[str, ...] | None = None


def shapes(config: LayerNormConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    return {f"{norm.path}.{name}": shape for norm in _chosen(config, layout) for name, shape in norm.shapes.items()}


def initial(config: LayerNormConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: those of the base model."""
    return {key: base(key).detach().clone() for key in shapes(config, layout)}


def facts(config: LayerNormConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the sizes of the vectors that stand in for weights of norms."""
    own = {key: shape for key, shape in have.items() if not key.startswith("head.")}
    return Facts(widths=tuple(shape[0] for key, shape in own.items() if len(shape) == 1 and "norm" in key.lower()))


def bind(config: LayerNormConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the tensors that stand in for the base's own."""
    return Binding(
        parameters={
            norm.path: {name: tensors[f"{norm.path}.{name}"] for name in norm.shapes}
            for norm in _chosen(config, live.layout)
        }
    )


def _chosen(config: LayerNormConfig, layout: Layout) -> list[Norm]:
    if config.modules is None:
        return list(layout.norms)
    known = {norm.path: norm for norm in layout.norms}
    unknown = [path for path in config.modules if path not in known]
    if unknown:
        raise UsageError(f"no layer norm of the base model is called {', '.join(unknown)}")
    return [known[path] for path in config.modules]


METHOD = Method(
    config=LayerNormConfig,
    presets={"layer_norm": LayerNormConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
