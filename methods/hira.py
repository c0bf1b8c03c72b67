"""HiRA: the product of a weight with a low-rank matrix, element by element, is added to it (Huang et al. 2025).

    D = W ⊙ (B A),      A: r × inputs, B: outputs × r

Source: Huang et al. 2025 (ICLR, HiRA) equation 3; PEFT 0.21.2, tuners/hira/layer.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .linear_maps import product
from .method import Shapes
from .targets import at
from .updating import AddedOf, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class HiraConfig(UpdatingConfig):
    """Ranks.

    Attributes:
        r: the rank.
        ranks: module path or projection → its own r.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "hira"

    r: int = 32
    ranks: Mapping[str, int] = field(default_factory=dict)
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r, ranks=self.ranks)


def shapes(config: HiraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r, ones = at(config.ranks, linear, config.r), (1,) * len(linear.kernel)
    a, b = ("hira_embedding_A", "hira_embedding_B") if linear.kind == "embedding" else ("hira_A", "hira_B")
    return {a: (r, linear.inputs // linear.groups, *linear.kernel), b: (linear.outputs, r, *ones)}


def start(config: HiraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: A after Kaiming, B zero; at embeddings the other way round."""
    import torch
    from torch.nn import init

    zero = "hira_embedding_A" if linear.kind == "embedding" else "hira_B"
    tensor = torch.zeros(shape)
    return tensor if name == zero else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def delta(config: HiraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D in the shape of the weight."""
    a, b = ("hira_embedding_A", "hira_embedding_B") if linear.kind == "embedding" else ("hira_A", "hira_B")
    return weight * product(own[a], own[b]).to(weight.dtype)


def seen(config: HiraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    embedding = "hira_embedding_A" in own
    a, b = (own.get(f"hira_{'embedding_' if embedding else ''}{leaf}", ()) for leaf in "AB")
    if len(a) < 2 or len(b) < 2:
        return None
    kind = "embedding" if embedding else "convolution" if a[2:] else "linear"
    return Linear(path=path, inputs=a[1], outputs=b[0], kernel=a[2:], kind=kind)  # type: ignore[arg-type]


METHOD = method(
    Rule(
        config=HiraConfig,
        presets={"hira": HiraConfig()},
        shapes=shapes,
        start=start,
        op=partial(AddedOf, delta),
        seen=seen,
        kinds=("linear", "conv1d", "convolution", "embedding"),
    )
)
