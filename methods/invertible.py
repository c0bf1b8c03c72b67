"""Invertible adapters of MAD-X (Pfeiffer et al. 2020): a NICE coupling (Dinh et al. 2015) behind the embeddings.

    y₁ = x₁ + F(x₂)        x₂ = y₂ − G(y₁)
    y₂ = x₂ + G(y₁)        x₁ = y₁ − F(x₂)

for the halves x₁, x₂ of each vector; F and G are a linear layer that divides the size of its input by the reduction
factor, an activation, and a linear layer. The inverse acts in front of the output embeddings, which are usually the
input embeddings again.

`adapters` 1.3.0 has the inverse in front of the output embeddings of the model itself only in families that it knows by
an interface (INTERFACES); elsewhere it stands in the heads over the vocabulary that its adapters bring along.
`before_output` puts it there in every family, as the paper has it and adapter-transformers had.

Sources: Pfeiffer et al. 2020 (arXiv 2005.00052) §3.2.3; Dinh et al. 2015 (arXiv 1410.8516) §3.2; `adapters` 1.3.0,
methods/modeling.py (NICECouplingBlock), methods/invertible.py and heads/language_modeling.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from ..errors import UnsupportedError, UsageError
from ..sites import Embedding, Layout
from .activations import NAMES, WITH_WEIGHTS, function, known
from .bottleneck import WIDEST
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes
from .rows import affine

if TYPE_CHECKING:
    from torch import Tensor

INTERFACES = ("gemma2", "gemma3_text", "modernbert", "phi", "qwen2", "qwen3")
"""Families in which `adapters` 1.3.0 has the inverse in front of the model's own output embeddings."""


@dataclass(frozen=True, kw_only=True)
class InvertibleConfig(Config):
    """What the coupling computes.

    Attributes:
        inv_reduction_factor: size of the input of F or G / size of its hidden layer.
        non_linearity: name of the activation in F and G.
        before_output: the inverse in front of the base model's own output embeddings in every family.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "invertible"

    inv_reduction_factor: float = 2.0
    non_linearity: str = "relu"
    before_output: bool = False
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        if self.non_linearity.lower() in WITH_WEIGHTS:
            raise UnsupportedError(
                f"the activation {self.non_linearity!r} has weights of its own, for which an invertible adapter has no"
                " place"
            )
        faults = []
        if not 1 / WIDEST <= self.inv_reduction_factor < math.inf:
            faults.append(f"inv_reduction_factor must lie between 1/{WIDEST} and ∞, got {self.inv_reduction_factor!r}")
        if not known(self.non_linearity):
            faults.append(f"non_linearity {self.non_linearity!r} is unknown; known are {', '.join(NAMES)}")
        return faults


class _Place(Protocol):
    @property
    def tokens(self) -> str | None: ...


P = TypeVar("P", bound=_Place)


def home(places: Sequence[P]) -> P:
    """Return the embedding that an invertible adapter acts behind: the first of tokens, else the first.

    Raises:
        UsageError: there is none.
    """
    if not places:
        raise UsageError("nothing is known to enter the layers of the model, so no invertible adapter can act there")
    return next((place for place in places if place.tokens is not None), places[0])


def halves(width: int) -> tuple[int, int]:
    """Return the sizes of x₁ and x₂.

    >>> halves(7)
    (3, 4)
    """
    return width // 2, width - width // 2


def shapes(config: InvertibleConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UsageError: the model has no embeddings, or the reduction factor leaves nothing of them.
    """
    place = home(layout.embeddings)
    first, second = halves(place.width)
    found: Shapes = {}
    for name, inputs, outputs in (("F", second, first), ("G", first, second)):
        hidden = int(inputs // config.inv_reduction_factor)
        if hidden < 1 and inputs:
            raise UsageError(
                f"inv_reduction_factor {config.inv_reduction_factor:g} leaves nothing of {inputs} values",
                hint="choose a smaller one",
            )
        found |= {
            f"{place.path}.invertible.{name}.down.weight": (hidden, inputs),
            f"{place.path}.invertible.{name}.down.bias": (hidden,),
            f"{place.path}.invertible.{name}.up.weight": (outputs, hidden),
            f"{place.path}.invertible.{name}.up.bias": (outputs,),
        }
    return found


def initial(config: InvertibleConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: weights N(0, 0.02²), near the identity."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = {}
    for key, shape in shapes(config, layout).items():
        tensor = torch.zeros(shape)
        found[key] = tensor.normal_(std=0.02, generator=generator) if key.endswith(".weight") else tensor
    return found


def facts(config: InvertibleConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the size of the embeddings, which is that of both halves."""
    sizes = [
        shape[0] + have[other][1]
        for key, shape in have.items()
        if key.endswith(".invertible.F.up.weight")
        and len(have.get(other := key.replace(".up.weight", ".down.weight"), ())) == 2
        and shape
    ]
    return Facts(embedding=max(sizes, default=0))


def bind(config: InvertibleConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operation behind the embeddings, on the given tensors themselves, so that training reaches them."""
    place = home(live.layout.embeddings)
    before_output = config.before_output or live.layout.architecture in INTERFACES
    return Binding(embeddings={place.path: Nice(config, tensors, place, before_output=before_output)})


class Nice:
    """The coupling."""

    __slots__ = ("act", "before_output", "f", "g", "sizes")

    def __init__(
        self, config: InvertibleConfig, tensors: Mapping[str, Tensor], place: Embedding, *, before_output: bool
    ) -> None:
        self.act = function(config.non_linearity)
        self.sizes = halves(place.width)
        self.before_output = before_output
        self.f, self.g = (_layers(tensors, f"{place.path}.invertible.{name}") for name in "FG")

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return y (batch, sequence, width) for x."""
        import torch

        x1, x2 = hidden.split(self.sizes, dim=-1)
        y1 = x1 + self._between(x2, self.f)
        return torch.cat((y1, x2 + self._between(y1, self.g)), dim=-1)

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return x (batch, sequence, width) for y."""
        import torch

        y1, y2 = hidden.split(self.sizes, dim=-1)
        x2 = y2 - self._between(y1, self.g)
        return torch.cat((y1 - self._between(x2, self.f), x2), dim=-1)

    def _between(self, half: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return F or G of one half."""
        return affine(self.act(affine(half, *layers[:2])), *layers[2:])


def _layers(tensors: Mapping[str, Tensor], path: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    down, up = ((tensors[f"{path}.{layer}.weight"], tensors[f"{path}.{layer}.bias"]) for layer in ("down", "up"))
    return (*down, *up)


METHOD = Method(
    config=InvertibleConfig,
    presets={"invertible": InvertibleConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
