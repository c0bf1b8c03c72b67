"""ReFT: interventions on the hidden states of a few positions behind a layer (Wu et al. 2024).

    h + Rᵀ (act(W h + b) − R h)            subtract_projection: LoReFT, whose R has orthonormal rows, and NoReFT
    h + Rᵀ  act(W h + b)                   DiReFT

with W and R: r × d, at the first p positions of a text that are no padding and at its last s, each end with weights of
its own unless they are tied; where the ends meet, the last ones win. The vectors of a prompt adapter are no part of the
text. While tokens of a text are generated one by one with a cache, the text given is intervened on alone.

The orthonormal rows are those that torch's `orthogonal` parametrisation makes of a matrix X: d × r. With Q the first r
columns of the product of the Householder reflections below its diagonal, D its diagonal of signs, and an orthogonal
base,

    Rᵀ = base · Q · D

The signs do not train, so they are kept apart: `reflections` are the rows of Xᵀ without them.

Sources: Wu et al. 2024 (arXiv 2404.03592) §3; `adapters` 1.3.0, methods/reft.py, for the positions; torch 2,
nn/utils/parametrizations.py (`_Orthogonal`, householder).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError, UsageError
from ..sites import Block, Layout
from .activations import NAMES, WITH_WEIGHTS, function, known
from .config import Config
from .derived import Derived
from .method import Ahead, Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MOST_LAYERS = 1024
MOST_POSITIONS = 65_536
MOST_RANKS = 65_536


@dataclass(frozen=True, kw_only=True)
class ReftConfig(Config):
    """Where the interventions act and what they compute; most names are those of `adapters`' ReftConfig.

    Attributes:
        layers: indices of the layers, or `all`.
        prefix_positions: p.
        suffix_positions: s.
        r: number of rows of W and R.
        orthogonality: whether the rows of R are orthonormal.
        tied_weights: the same weights at both ends.
        subtract_projection: whether R h is taken off; not in DiReFT.
        non_linearity: name of the activation, or None.
        dropout: probability, on the whole new state, while training.
        positions: whose padding tells the positions: the stack's `own`, or as in `adapters` 1.3.0, where a decoder goes
            by the encoder's text and an image tower by that of the text tower. With a prompt in the sequence, `own` are
            those of the text; `adapters` counts them in the text and takes as many from where the prompt begins.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "reft"

    layers: Literal["all"] | tuple[int, ...] = "all"
    prefix_positions: int = 3
    suffix_positions: int = 0
    r: int = 1
    orthogonality: bool = True
    tied_weights: bool = False
    subtract_projection: bool = True
    non_linearity: str | None = None
    dropout: float = 0.05
    positions: Literal["own", "adapters"] = "own"
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        name = self.non_linearity
        if name is not None and name.lower() in WITH_WEIGHTS:
            raise UnsupportedError(f"the activation {name!r} has weights of its own, for which ReFT has no place")
        limits = (
            ("prefix_positions", 0, MOST_POSITIONS),
            ("suffix_positions", 0, MOST_POSITIONS),
            ("r", 1, MOST_RANKS),
        )
        faults = [
            f"{field} is {getattr(self, field)}, expected {least} to {most}"
            for field, least, most in limits
            if not least <= getattr(self, field) <= most
        ]
        if self.layers != "all" and not (self.layers and all(0 <= i < MOST_LAYERS for i in self.layers)):
            faults.append(f"layers is {list(self.layers)}, expected indices below {MOST_LAYERS}, or 'all'")
        if name is not None and not known(name):
            faults.append(f"non_linearity {name!r} is unknown; known are {', '.join(NAMES)}")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        return faults

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the sets of weights at one layer."""
        return ("reft_both",) if self.tied_weights else ("reft_prefix", "reft_suffix")

    @property
    def left_out(self) -> tuple[int, ...]:
        """Layers without, as far as the highest one with an intervention."""
        if self.layers == "all":
            return ()
        return tuple(i for i in range(max(self.layers)) if i not in self.layers)

    def blocks(self, layout: Layout) -> list[Block]:
        """Return the layers of a model that are intervened on.

        Raises:
            UsageError: there is none.
        """
        found = [block for block in layout.blocks if self.layers == "all" or block.layer in self.layers]
        if not found and layout.blocks:
            raise UsageError(
                f"layers names {', '.join(map(str, self.layers))}, and the model has {layout.layers} layers",
                hint="the first layer is 0",
            )
        return found


def shapes(config: ReftConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UsageError: the model has none of the layers.
        UnsupportedError: there cannot be so many orthonormal rows.
    """
    return {
        f"{block.path}.{unit}.{name}": shape
        for block in config.blocks(layout)
        for unit in config.units
        for name, shape in _unit_shapes(config, block).items()
    }


def _unit_shapes(config: ReftConfig, block: Block) -> Shapes:
    r, width = config.r, block.width
    found: Shapes = {"source.weight": (r, width), "source.bias": (r,)}
    if not config.orthogonality:
        return {**found, "projection.weight": (r, width)}
    if r >= width:
        raise UnsupportedError(
            f"r is {r}, and orthonormal rows are defined for less than the {width} values at {block.path}"
        )
    return {
        **found,
        "projection.reflections": (r, width - 1),
        "projection.signs": (r,),
        "projection.base": (width, width),
    }


def initial(config: ReftConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: weights as in torch's linear layers; R a random one with orthonormal rows."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return {key: _start(key, shape, generator) for key, shape in shapes(config, layout).items()}


def _start(key: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch

    tensor = torch.zeros(shape)
    if key.endswith("projection.signs"):
        return tensor.fill_(-1.0)
    if key.endswith("projection.base"):
        orthogonal: Tensor = torch.linalg.qr(tensor.normal_(generator=generator))[0].contiguous()
        return orthogonal
    if key.endswith(("projection.reflections", "source.bias")):
        return tensor
    bound = 1 / math.sqrt(shape[-1])
    return tensor.uniform_(-bound, bound, generator=generator)


def facts(config: ReftConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the widths that the tensors speak for."""
    names = (".source.weight", ".projection.weight")
    votes = [shape[1] for key, shape in have.items() if ".reft_" in key and key.endswith(names) and len(shape) == 2]
    only = None if config.layers == "all" else config.layers
    return Facts(widths=tuple(votes), left_out=config.left_out, only=only)


def frozen(config: ReftConfig, key: str) -> bool:
    """Return whether a tensor stays as it is in training."""
    return key.endswith((".projection.base", ".projection.signs"))


def bind(config: ReftConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations behind all layers, on the given tensors themselves, so that training reaches them."""
    ops = {}
    for block in config.blocks(live.layout):
        units = []
        for unit in config.units:
            own = {name: tensors[f"{block.path}.{unit}.{name}"] for name in _unit_shapes(config, block)}
            units.append(Unit(config, own))
        ops[block.path] = Reft(config, units[0], units[-1], live.mode)
    return Binding(blocks=ops)


class Rotation(Derived):
    """R (r, width) with orthonormal rows."""

    __slots__ = ()
    constants = 1

    def computed(self) -> Tensor:
        """Return (base · Q · D)ᵀ; the reflections are not defined in half precision, so single is used."""
        import torch
        from torch.nn.functional import pad

        reflections, signs, base = self.sources
        dtype = reflections.dtype if reflections.dtype == torch.float64 else torch.float32
        below = pad(reflections.to(dtype), (1, 0)).triu(diagonal=1).mT
        tau = 2 / (1 + below.square().sum(dim=-2))
        # A sign is a whole number, as in torch's parametrisation; what lies between counts as zero.
        q = torch.linalg.householder_product(below, tau) * signs.to(dtype).trunc()
        found: Tensor = (base.to(dtype) @ q).mT.to(reflections.dtype)
        return found


class Unit:
    """One set of weights."""

    __slots__ = ("act", "projection", "source", "subtracts")

    def __init__(self, config: ReftConfig, own: Mapping[str, Tensor]) -> None:
        self.act = None if config.non_linearity is None else function(config.non_linearity)
        self.subtracts = config.subtract_projection
        self.source = own["source.weight"], own["source.bias"]
        self.projection: Tensor | Rotation
        if config.orthogonality:
            self.projection = Rotation(own[f"projection.{name}"] for name in ("reflections", "signs", "base"))
        else:
            self.projection = own["projection.weight"]

    def __call__(self, h: Tensor) -> Tensor:
        """Return what is added to h (…, width)."""
        from torch.nn.functional import linear

        rows = self.projection() if isinstance(self.projection, Rotation) else self.projection
        source = linear(h, *self.source)
        source = source if self.act is None else self.act(source)
        added: Tensor = (source - linear(h, rows) if self.subtracts else source) @ rows
        return added


class Reft:
    """The operation behind one layer."""

    __slots__ = ("config", "mode", "prefix", "suffix")

    def __init__(self, config: ReftConfig, prefix: Unit, suffix: Unit, mode: nn.Module) -> None:
        self.config = config
        self.prefix = prefix
        self.suffix = suffix
        self.mode = mode

    def __call__(
        self, hidden: Tensor, mask: Tensor | None, memory: Tensor | None, prompt: Ahead | None = None
    ) -> Tensor:
        """Return the new hidden states (batch, sequence, width)."""
        import torch

        if prompt is None or self.config.positions == "adapters":
            return self._counted(hidden, mask, memory)
        begin, vectors, rest = hidden.split((prompt.at, prompt.length, hidden.shape[1] - prompt.at - prompt.length), 1)
        text = self._counted(torch.cat((begin, rest), dim=1), mask, memory)
        return torch.cat((text[:, : prompt.at], vectors, text[:, prompt.at :]), dim=1)

    def _counted(self, hidden: Tensor, mask: Tensor | None, memory: Tensor | None) -> Tensor:
        """Return the hidden states with those positions new that the masks tell."""
        length = hidden.shape[1]
        p, s = (min(count, length) for count in (self.config.prefix_positions, self.config.suffix_positions))
        by_other = memory is not None and self.config.positions == "adapters"
        counted = memory if by_other else mask
        if counted is None:
            return self._at_ends(hidden, min(p, length - s), s)
        first, end = _span(counted)
        return self._at(hidden, first, end.clamp(max=length) if by_other else end, p, s)

    def _at_ends(self, hidden: Tensor, p: int, s: int) -> Tensor:
        """Return the hidden states with the first p and the last s new."""
        import torch

        parts = list(hidden.split((p, hidden.shape[1] - p - s, s), dim=1))
        for place, count, unit in ((0, p, self.prefix), (2, s, self.suffix)):
            if count:
                parts[place] = parts[place] + self._added(unit, parts[place])
        return torch.cat(parts, dim=1)

    def _at(self, hidden: Tensor, first: Tensor, end: Tensor, p: int, s: int) -> Tensor:
        """Return the hidden states with p from first (batch, 1) on and s in front of end (batch, 1) new."""
        import torch

        length, width = hidden.shape[1:]
        steps = torch.arange(max(p, s), device=hidden.device)
        front, back = first + steps[:p], end - s + steps[:s]
        inside = (front < length) & ((front < end - s) | (front >= end))
        found = hidden
        for unit, places, there in ((self.prefix, front, inside), (self.suffix, back, (back >= 0) & (back < length))):
            if places.shape[1]:
                # Nothing is added where a place lies outside, or twice.
                index = places.clamp(0, length - 1).unsqueeze(-1).expand(-1, -1, width)
                added = self._added(unit, hidden.gather(1, index)).masked_fill(~there.unsqueeze(-1), 0)
                found = found.scatter_add(1, index, added)
        return found

    def _added(self, unit: Unit, h: Tensor) -> Tensor:
        """Return what is added to h (batch, positions, width), dropout on their sum included."""
        from torch.nn.functional import dropout

        added = unit(h).to(h.dtype)
        if self.mode.training and self.config.dropout:
            return dropout(h + added, self.config.dropout) - h
        return added


def _span(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position that is no padding and the one behind the last, (batch, 1) each.

    Raises:
        UsageError: the mask says more than which tokens are padding.
    """
    if mask.ndim != 2:
        raise UsageError(
            f"ReFT cannot tell padding from an attention mask with {mask.ndim} dimensions",
            hint="pass a mask (batch, sequence), or none",
        )
    tokens = (mask == 1).long()
    first = tokens.argmax(dim=1, keepdim=True)
    return first, first + tokens.sum(dim=1, keepdim=True)


METHOD = Method(
    config=ReftConfig,
    presets={
        "loreft": ReftConfig(),
        "noreft": ReftConfig(orthogonality=False),
        "direft": ReftConfig(orthogonality=False, subtract_projection=False),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    frozen=frozen,
)
