"""VB-LoRA: A and B of a low-rank update are put together from vectors of one bank (Li et al. 2024).

    D = B A,      each stretch of a row of A, or of a column of B: Σ softmax(its k largest logits) · their vectors

The bank is shared by all maps. An adapter that is not to be trained further may hold the k places and their weights,
but for the last one, in place of the logits.

Source: Li et al. 2024 (arXiv 2405.15179) §3; PEFT 0.21.2, tuners/vblora (layer.py, model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Shapes
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own

BANK = "shared.vblora_vector_bank"


TOP = ("vblora_logits_A_topk_indices", "vblora_logits_B_topk_indices")
"""Which vectors of the bank are put together, where only these are kept."""


@dataclass(frozen=True, kw_only=True)
class VbloraConfig(UpdatingConfig):
    """Rank and bank.

    Attributes:
        r: the rank.
        vectors: vectors in the bank.
        length: their length, which divides inputs and outputs.
        topk: k.
        only_top: whether places and weights stand in place of the logits.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "vblora"

    r: int = 4
    vectors: int = 256
    length: int = 256
    topk: int = 2
    only_top: bool = False
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = bounds(r=self.r, vectors=self.vectors, length=self.length, topk=self.topk)
        return faults if self.topk <= self.vectors else [*faults, "topk is larger than the bank"]


def shapes(config: VbloraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: the sizes of the map are no multiples of the vectors' length.
    """
    if linear.inputs % config.length or linear.outputs % config.length:
        raise UsageError(f"length is {config.length}, which does not divide the sizes of {linear.path}")
    found: Shapes = {}
    places = (config.r, linear.inputs // config.length), (linear.outputs // config.length, config.r)
    for name, shape in zip(("vblora_logits_A", "vblora_logits_B"), places, strict=True):
        if config.only_top:
            found[f"{name}_topk_indices"] = (*shape, config.topk)
            found[f"{name}_topk_weights"] = (*shape, config.topk - 1)
        else:
            found[name] = (*shape, config.vectors)
    return found


def shared(config: VbloraConfig, linears: Sequence[Linear]) -> Shapes:
    """Return the shape of the bank."""
    return {BANK: (config.vectors, config.length)}


def start(config: VbloraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: N(0, 0.1²) logits and a bank within ±0.02.

    Raises:
        UsageError: the adapter is to have no logits, which training needs.
    """
    import torch

    if config.only_top:
        raise UsageError("a VB-LoRA without logits cannot be trained", hint="make it with only_top=false")
    return torch.empty(shape).uniform_(-0.02, 0.02) if name == BANK else torch.empty(shape).normal_(std=0.1)


def delta(config: VbloraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    a, b = (_put_together(config, own, f"vblora_logits_{side}") for side in "AB")
    return b.transpose(1, 2).reshape(linear.outputs, -1) @ a.reshape(-1, linear.inputs)


def _put_together(config: VbloraConfig, own: Own, name: str) -> Tensor:
    """Return the weighted vectors (…, length)."""
    import torch

    if config.only_top:
        weights, places = own[f"{name}_topk_weights"], own[f"{name}_topk_indices"].long()
        weights = torch.cat([weights, 1 - weights.sum(-1, keepdim=True)], dim=-1)
    else:
        top, places = own[name].topk(config.topk, dim=-1)
        weights = top.softmax(-1)
    return (weights.unsqueeze(-1) * own[BANK][places]).sum(-2)


def seen(config: VbloraConfig, path: str, own: Shapes) -> Linear | None:
    """Return the map that the shapes at a path describe."""
    end = "_topk_indices" if config.only_top else ""
    a, b = own.get(f"vblora_logits_A{end}", ()), own.get(f"vblora_logits_B{end}", ())
    if len(a) != 3 or len(b) != 3:
        return None
    return Linear(path=path, inputs=a[1] * config.length, outputs=b[0] * config.length)


METHOD = method(
    Rule(
        config=VbloraConfig,
        presets={"vblora": VbloraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        alone=True,
        shared=shared,
        places=lambda config, linear: dict.fromkeys(TOP, (config.vectors,)) if config.only_top else {},
        frozen=TOP,
    )
)
