"""The LoRA that holds what was made at each map; it grows map by map, and what it has is with its keeper."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..methods import LoraConfig
from ..methods.deltas import Block
from ..methods.dora import Magnitude
from ..methods.lora import leaves
from ..sites import Linear
from .keeping import Keeper
from .maps import Made


@dataclass(frozen=True, slots=True)
class Site:
    """What was made at one linear map.

    Attributes:
        path: the map.
        rank: rank of the result there.
        kept: the part of the squared norm of what the method gives that is left after compressing it.
        exact: norm of the exact sum Σ w_i D_i, None where it was not measured.
        error: distance of the result from the exact sum, as a part of its norm; None where it was not measured.
    """

    path: str
    rank: int
    kept: float
    exact: float | None
    error: float | None


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """What the LoRA has at one map.

    Attributes:
        linear: the map.
        parts: how many of its parts have factors of their own.
        rank: rank of each part.
        tensors: name of a parameter → what stands for it.
    """

    linear: Linear
    parts: int
    rank: int
    tensors: dict[str, Tensor]


class Growing:
    """A LoRA with a scale of 1 in the making."""

    def __init__(self, keeper: Keeper, dtype: torch.dtype) -> None:
        """Start with nothing.

        keeper: takes the tensors; dtype: theirs.
        """
        self._keeper = keeper
        self._dtype = dtype
        self._placed: list[_Placed] = []
        self.sites: list[Site] = []

    def add(self, made: Made) -> None:
        """Take what was made at a map."""
        parts = max(1, len(made.parts))
        self.sites.append(Site(made.linear.path, made.rank * parts, made.kept, made.exact, made.error))
        tensors = self._put(_factors(made) | _further(made))
        self._placed.append(_Placed(made.linear, parts, made.rank, tensors))

    def finished(
        self, like: LoraConfig | None, *, magnitude: Magnitude, padded: bool
    ) -> tuple[LoraConfig, dict[str, Tensor]]:
        """Return configuration and tensors.

        Args:
            like: a LoRA with the same targets, whose words for them are kept; None names the maps one by one.
            magnitude: the form of DoRA, or `none`.
            padded: whether all maps get the largest rank, filled up with zeros.

        Raises:
            UnsupportedError: no one LoRA holds all of it.
        """
        largest = max(one.rank for one in self._placed)
        ranks = {one.linear.path: largest if padded else one.rank for one in self._placed}
        biased = any("lora_bias" in one.tensors for one in self._placed)
        tables = [one.linear.path for one in self._placed if one.linear.kind == "embedding"]
        if biased and tables:
            raise UnsupportedError(
                f"the result adds to biases and changes the embedding {tables[0]}, and one LoRA cannot do both"
            )
        tensors: dict[str, Tensor] = {}
        for one in self._placed:
            own = one.tensors | self._missing(one, ranks[one.linear.path], biased)
            tensors |= {f"{one.linear.path}.{name}": tensor for name, tensor in own.items()}
        return self._config(like, ranks, magnitude, biased), tensors

    def _config(self, like: LoraConfig | None, ranks: dict[str, int], magnitude: Magnitude, biased: bool) -> LoraConfig:
        usual = Counter(ranks.values()).most_common(1)[0][0]
        others = {path: r for path, r in ranks.items() if r != usual}
        return LoraConfig(
            targets=tuple(ranks) if like is None else like.targets,
            r=usual,
            alpha=float(usual),
            ranks=others,
            alphas={path: float(r) for path, r in others.items()},
            leave_out=() if like is None else like.leave_out,
            dropout=0.0 if like is None else like.dropout,
            magnitude=magnitude,
            update_bias=biased,
        )

    def _missing(self, one: _Placed, rank: int, biased: bool) -> dict[str, Tensor]:
        """Return the tensors of a map that only the other maps told to be needed: larger factors, a bias of zeros."""
        found: dict[str, Tensor] = {}
        if rank != one.rank:
            found |= self._put(self._padded(one, rank))
        if biased and "lora_bias" not in one.tensors:
            found |= self._put({"lora_bias": torch.zeros(one.linear.outputs)})
        return found

    def _padded(self, one: _Placed, rank: int) -> dict[str, Tensor]:
        """Return factors with zeros behind each part's own rank."""
        from torch.nn.functional import pad

        (name_a, name_b), more = leaves(one.linear), rank - one.rank
        a, b = (self._keeper.get(one.tensors[name]) for name in (name_a, name_b))
        wide = pad(a.view(one.parts, one.rank, -1), (0, 0, 0, more)).view(one.parts * rank, *a.shape[1:])
        return {name_a: wide, name_b: pad(b.view(len(b), -1), (0, more)).view(len(b), rank, *b.shape[2:])}

    def _put(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._keeper.put({key: tensor.to("cpu", self._dtype).contiguous() for key, tensor in tensors.items()})


def _factors(made: Made) -> dict[str, Tensor]:
    """Return A and B of a map, those of its parts one after the other."""
    linear, rank = made.linear, made.rank
    blocks = [_filled(block, rank) for block in made.blocks]
    a, b = blocks[0] if len(blocks) == 1 else map(torch.cat, zip(*blocks, strict=True))
    ones = (1,) * len(linear.kernel)
    name_a, name_b = leaves(linear)
    return {name_a: a.view(len(a), linear.inputs, *linear.kernel), name_b: b.view(len(b), rank, *ones)}


def _further(made: Made) -> dict[str, Tensor]:
    found = {"lora_magnitude": made.magnitude, "lora_bias": made.bias}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _filled(block: Block, rank: int) -> Block:
    """Return factors with zeros behind them up to a rank."""
    from torch.nn.functional import pad

    more = rank - block.a.shape[0]
    return block if not more else Block(pad(block.a, (0, 0, 0, more)), pad(block.b, (0, more)))
