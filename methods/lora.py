"""LoRA: low-rank updates of linear maps (Hu et al. 2022), rsLoRA (Kalajdzievski 2023), DoRA (Liu et al. 2024).

    y = W x + b + s · g(x) · (B A x + c),      A: r × inputs, B: outputs × r

with s = alpha / r, or alpha / √r where it is rank-stabilised; the gate g (UniPELT, Mao et al. 2022), the bias c and
DoRA's magnitude are optional. methods/low_rank.py says what they compute.

Sources: Hu et al. 2022 (arXiv 2106.09685) §4.1; Kalajdzievski 2023 (arXiv 2312.03732); Liu et al. 2024 (arXiv
2402.09353); Mao et al. 2022 (arXiv 2110.07577) §3.2; `adapters` 1.3.0, methods/lora.py, and PEFT 0.21.2, tuners/lora,
for what their files mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from ..sites import Layout, Linear, Projection
from .config import Config
from .dora import Magnitude
from .linear_maps import magnitudes
from .low_rank import check, factor_shapes, operation
from .low_rank_updates import Pair
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .targets import Target, at, check_names, chosen, whole, widths

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_RANKS = 65_536
LARGEST_ALPHA = 1e30


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Config):
    """Where the updates stand and how they are scaled.

    Attributes:
        targets: projections, module paths, or `all-linear`; see methods/targets.py.
        r: the rank.
        alpha: the numerator of the scale.
        rank_stabilised: divide by √r in place of r.
        ranks: module path or projection → its own r.
        alphas: module path or projection → its own alpha.
        leave_out: layers without.
        dropout: probability, on the input of A, while training.
        gating: multiply the update by the mean over the tokens of sigmoid(w·x + b), one number per example and part.
        magnitude: `none`; `dora` as in the paper and PEFT; `dora_adapters` as in `adapters`.
        update_bias: whether B has a bias c.
        init_weights: `lora` A uniform after Kaiming, B zero; `bert` A N(0, 0.02²), B zero; at embeddings A is zero.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "lora"
    sets: ClassVar[tuple[str, ...]] = ("targets",)

    targets: tuple[str, ...] = ("query", "value")
    r: int = 8
    alpha: float = 8.0
    rank_stabilised: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    leave_out: tuple[int, ...] = ()
    dropout: float = 0.0
    gating: bool = False
    magnitude: Magnitude = "none"
    update_bias: bool = False
    init_weights: Literal["lora", "bert"] = "lora"
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        ranks = {"r": self.r, **{f"ranks[{name!r}]": r for name, r in self.ranks.items()}}
        alphas = {"alpha": self.alpha, **{f"alphas[{name!r}]": alpha for name, alpha in self.alphas.items()}}
        faults = [*rank_faults(ranks), *alpha_faults(alphas)]
        if not self.targets:
            faults.append("targets is empty")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        if sum((self.gating and self.magnitude != "dora_adapters", self.magnitude != "none", self.update_bias)) > 1:
            faults.append("gating, magnitude and update_bias exclude each other, but for gating and dora_adapters")
        return faults

    def rank(self, linear: Linear) -> int:
        """Return r at a map."""
        return at(self.ranks, linear, self.r)

    def alpha_at(self, linear: Linear) -> float:
        """Return alpha at a map."""
        return at(self.alphas, linear, self.alpha)

    def scale(self, linear: Linear) -> float:
        """Return s at a map."""
        r = self.rank(linear)
        return self.alpha_at(linear) / (math.sqrt(r) if self.rank_stabilised else r)


def rank_faults(ranks: Mapping[str, int]) -> list[str]:
    """Return a phrase for each rank that no adapter can have."""
    return [f"{name} is {r}, expected 1 to {MOST_RANKS}" for name, r in ranks.items() if not 1 <= r <= MOST_RANKS]


def alpha_faults(alphas: Mapping[str, float]) -> list[str]:
    """Return a phrase for each factor beyond what tensors can hold."""
    return [
        f"{name} is {alpha}, expected a number within ±{LARGEST_ALPHA:g}"
        for name, alpha in alphas.items()
        if not abs(alpha) <= LARGEST_ALPHA
    ]


def shapes(config: LoraConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UsageError: the configuration speaks of maps that it does not target.
        UnsupportedError: it has no meaning for one of them.
    """
    found: Shapes = {}
    targets = chosen(config.targets, layout, leave_out=config.leave_out)
    check_names((*config.ranks, *config.alphas), targets)
    for target in targets:
        found |= {f"{target.path}.{name}": shape for name, shape in target_shapes(config, target).items()}
    return found


def target_shapes(config: LoraConfig, target: Target) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UnsupportedError: the configuration has no meaning for a map of this kind.
    """
    linear, r, parts = target.linear, config.rank(target.linear), max(1, len(target.parts))
    check(target, r=r, gating=config.gating, magnitude=config.magnitude, update_bias=config.update_bias)
    a, b = factor_shapes(linear, r)
    name_a, name_b = leaves(linear)
    every = {
        name_a: (r * parts, *a[1:]),
        name_b: (parts * target.part_size, *b[1:]),
        "lora_gate.weight": (parts, linear.inputs),
        "lora_gate.bias": (parts,),
        "lora_magnitude": (linear.outputs,),
        "lora_bias": (linear.outputs,),
    }
    return {name: every[name] for name in (name_a, name_b, *_further(config))}


def _further(config: LoraConfig) -> tuple[str, ...]:
    """Return the names of what a map has besides A and B."""
    return (
        *(("lora_gate.weight", "lora_gate.bias") if config.gating else ()),
        *(("lora_magnitude",) if config.magnitude != "none" else ()),
        *(("lora_bias",) if config.update_bias else ()),
    )


def leaves(linear: Linear) -> tuple[str, str]:
    """Return what A and B are called at a map."""
    return ("lora_embedding_A", "lora_embedding_B") if linear.kind == "embedding" else ("lora_A", "lora_B")


def initial(config: LoraConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: an update of zero; magnitudes are the norms of the base's rows."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = {}
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        for name, shape in target_shapes(config, target).items():
            if name == "lora_magnitude":
                found[f"{target.path}.{name}"] = magnitudes(base(f"{target.path}.weight"), target.linear)
            else:
                found[f"{target.path}.{name}"] = _start(config, name, shape, generator)
    return found


def _start(config: LoraConfig, name: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    if name == "lora_A" and config.init_weights == "lora":
        return init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
    if name in ("lora_A", "lora_gate.weight"):
        return tensor.normal_(std=0.02, generator=generator)
    if name == "lora_embedding_B":
        return tensor.normal_(generator=generator)
    return tensor


def bind(config: LoraConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all maps, on the given tensors themselves, so that training reaches them."""
    ops: dict[str, LinearOp] = {}
    further = _further(config)
    for target in chosen(config.targets, live.layout, leave_out=config.leave_out):
        ops[target.path] = operation(
            Pair(*(tensors[f"{target.path}.{name}"] for name in leaves(target.linear))),
            target,
            live,
            {name.removeprefix("lora_"): tensors[f"{target.path}.{name}"] for name in further},
            scale=config.scale(target.linear),
            dropout=config.dropout,
            magnitude=config.magnitude,
        )
    return Binding(linears=ops)


def facts(config: LoraConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the linear maps that the shapes of A and B describe."""
    found = {}
    for key, a in have.items():
        path, _, name = key.rpartition(".")
        b = have.get(f"{path}.{name[:-1]}B", ())
        if name in ("lora_A", "lora_embedding_A") and len(a) >= 2 and len(b) >= 2:
            linear = _linear(path, a, b, roles(path), is_embedding=name == "lora_embedding_A")
            found[path] = dataclasses.replace(linear, outputs=whole(path, b[0], config.targets, roles))
    return Facts(widths=widths(found.values()), linears=found, left_out=config.leave_out)


def _linear(
    path: str, a: tuple[int, ...], b: tuple[int, ...], of: tuple[Projection, ...], *, is_embedding: bool
) -> Linear:
    """Return the map that A and B of these shapes stand beside."""
    if is_embedding:
        return Linear(path=path, inputs=a[1], outputs=b[0], kind="embedding", bias=False)
    if not a[2:] or of:
        return Linear(path=path, roles=of, inputs=a[1], outputs=b[0])
    # B has r rows for all groups of a convolution together.
    groups = max(1, a[0] // max(1, b[1]))
    return Linear(path=path, inputs=a[1], outputs=b[0], kernel=a[2:], kind="convolution", groups=groups)


METHOD = Method(
    config=LoraConfig,
    presets={
        "lora": LoraConfig(),
        "rslora": LoraConfig(rank_stabilised=True),
        "dora": LoraConfig(magnitude="dora"),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    alone=lambda config: config.magnitude == "none",
)
