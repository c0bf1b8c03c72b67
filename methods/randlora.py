"""RandLoRA: a weight gets a sum of low-rank updates of random matrices, scaled on two sides (Albert et al. 2025).

    D = s · Σ_n B_n diag(λ_n) A diag(γ_n),      s = alpha / r,      n = 1 … ⌈min(inputs, outputs) / r⌉

A: r × min(inputs, outputs) and B_n: max(inputs, outputs) × r are shared by all maps, cut to a map's size; where a map
has more inputs than outputs, D is the transpose. The adapter holds A and B, or the seed that they are drawn with.
The ranks of B and those of A run in another order, as they do in PEFT.

Source: Albert et al. 2025 (arXiv 2502.00987) §4; PEFT 0.21.2, tuners/randlora (model.py, layer.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from ..sites import Linear
from .method import Shapes
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .updating import Own

SHARED_A = "shared.randlora_A"
SHARED_B = "shared.randlora_B"


@dataclass(frozen=True, kw_only=True)
class RandloraConfig(UpdatingConfig):
    """Ranks, scale and how A and B are drawn.

    Attributes:
        r: the rank of one update.
        alpha: numerator of the scale.
        entries: what A and B are drawn from: uniform numbers, or -1, 0 and 1 with two of three, or nearly all, zero.
        seed: what A and B are drawn with whenever the adapter is bound, None where they are its tensors.
        sizes: columns of A and rows of B; (0, 0) until the adapter has met a model.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "randlora"

    r: int = 32
    alpha: float = 640.0
    entries: Literal["uniform", "sparse", "very_sparse"] = "uniform"
    seed: int | None = None
    sizes: tuple[int, int] = (0, 0)
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r)
        if self.sizes != (0, 0):
            faults += bounds(**{f"sizes[{i}]": size for i, size in enumerate(self.sizes)})
        return faults if abs(self.seed or 0) < 2**63 else [*faults, "seed must have at most 63 bits"]


def sizes(linears: Sequence[Linear]) -> tuple[int, int]:
    """Return the columns of A and the rows of B that serve these maps."""
    both = max(one.inputs for one in linears), max(one.outputs for one in linears)
    return min(both), max(both)


def settled(config: RandloraConfig, linears: Sequence[Linear]) -> RandloraConfig:
    """Return the configuration with the sizes of A and B."""
    return config if config.sizes != (0, 0) or not linears else replace(config, sizes=sizes(linears))


def shapes(config: RandloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    smaller = min(linear.inputs, linear.outputs)
    updates = math.ceil(smaller / config.r)
    return {"randlora_lambda": (config.r, updates), "randlora_gamma": (updates, smaller)}


def shared(config: RandloraConfig, linears: Sequence[Linear]) -> Shapes:
    """Return the shapes of A and B, if they are tensors of the adapter."""
    return {} if config.seed is not None or not linears else _projections(config, linears)


def _projections(config: RandloraConfig, linears: Sequence[Linear]) -> Shapes:
    columns, rows = config.sizes if config.sizes != (0, 0) else sizes(linears)
    return {SHARED_A: (config.r, 1, columns), SHARED_B: (rows, math.ceil(columns / config.r), config.r)}


def start(config: RandloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: λ zero, γ one through the larger side of the update; A and B at random."""
    import torch

    if name == "randlora_lambda":
        return torch.zeros(shape)
    if name == "randlora_gamma":
        return torch.full(shape, 1 / max(shape))
    return draw(config.entries, name == SHARED_A, shape, None, columns=config.sizes[0])


def draw(
    entries: str, first: bool, shape: tuple[int, ...], generator: torch.Generator | None, *, columns: int
) -> Tensor:
    """Return A (first) or B, as PEFT draws them: in bfloat16 where the numbers are uniform."""
    import torch

    if entries != "uniform":
        sparsity = 3.0 if entries == "sparse" else math.sqrt(max(1, columns))
        numbers, found = torch.rand(shape, generator=generator), torch.zeros(shape)
        found[numbers < 1 / (2 * sparsity)] = -1
        found[numbers > 1 - 1 / (2 * sparsity)] = 1
        return found / found.std()
    if first:
        found = _kaiming(shape, generator)
    else:
        found = torch.cat([_kaiming((shape[0], 1, shape[2]), generator) for _ in range(shape[1])], dim=1)
    return (found / found.std()).float()


def _kaiming(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch
    from torch.nn import init

    return init.kaiming_uniform_(torch.empty(shape, dtype=torch.bfloat16), a=math.sqrt(5), generator=generator)


def drawn(config: RandloraConfig, linears: Sequence[Linear]) -> dict[str, Tensor]:
    """Return A and B that the seed draws."""
    import torch

    generator = torch.Generator().manual_seed(config.seed or 0)
    wanted = _projections(config, linears)
    columns = wanted[SHARED_A][2]
    return {
        name: draw(config.entries, name == SHARED_A, shape, generator, columns=columns)
        for name, shape in wanted.items()
    }


def delta(config: RandloraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    scaling, gamma = own["randlora_lambda"], own["randlora_gamma"]
    updates, smaller = gamma.shape
    larger = max(linear.inputs, linear.outputs)
    a = scaling.unsqueeze(2) * own[SHARED_A][:, :, :smaller].to(gamma) * gamma
    b = own[SHARED_B][:larger, :updates].to(gamma)
    found: Tensor = b.flatten(1) @ a.flatten(0, 1) * (config.alpha / config.r)
    return found if linear.inputs <= linear.outputs else found.t()


def seen(config: RandloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map whose smaller side is that of γ; the other one is not told."""
    gamma = own.get("randlora_gamma", ())
    return Linear(path=path, inputs=gamma[1], outputs=gamma[1]) if len(gamma) == 2 else None


METHOD = method(
    Rule(
        config=RandloraConfig,
        presets={"randlora": RandloraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        sized=False,
        shared=shared,
        drawn=drawn,
        settled=settled,
        frozen=(SHARED_A, SHARED_B),
    )
)
