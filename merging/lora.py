"""The LoRA that holds what was made at each map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..methods import LoraConfig
from ..methods.deltas import Block
from ..methods.lora import leaves
from ..methods.low_rank import Magnitude
from .maps import Made


def lora(
    made: Sequence[Made],
    like: LoraConfig | None,
    *,
    magnitude: Magnitude,
    padded: bool,
    dtype: torch.dtype,
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return configuration and tensors, with a scale of 1.

    Args:
        made: what there is at each map.
        like: a LoRA with the same targets, whose words for them are kept; None names the maps one by one.
        magnitude: the form of DoRA, or `none`.
        padded: whether all maps get the largest rank, filled up with zeros.
        dtype: of the tensors.

    Raises:
        UnsupportedError: no one LoRA holds all of it.
    """
    largest = max(one.rank for one in made)
    ranks = {one.linear.path: largest if padded else one.rank for one in made}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    biased = any(one.bias is not None for one in made)
    tables = [one.linear.path for one in made if one.linear.kind == "embedding"]
    if biased and tables:
        raise UnsupportedError(
            f"the result adds to biases and changes the embedding {tables[0]}, and one LoRA cannot do both"
        )
    others = {path: r for path, r in ranks.items() if r != usual}
    config = LoraConfig(
        targets=tuple(one.linear.path for one in made) if like is None else like.targets,
        r=usual,
        alpha=float(usual),
        ranks=others,
        alphas={path: float(r) for path, r in others.items()},
        leave_out=() if like is None else like.leave_out,
        dropout=0.0 if like is None else like.dropout,
        magnitude=magnitude,
        update_bias=biased,
    )
    tensors: dict[str, Tensor] = {}
    for one in made:
        tensors |= _tensors(one, ranks[one.linear.path], biased, dtype)
    return config, tensors


def _tensors(made: Made, rank: int, biased: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of one map, on the CPU."""
    linear, path = made.linear, made.linear.path
    blocks = [_filled(block, rank) for block in made.blocks]
    name_a, name_b = leaves(linear)
    a, b = blocks[0] if len(blocks) == 1 else map(torch.cat, zip(*blocks, strict=True))
    ones = (1,) * len(linear.kernel)
    found = {
        f"{path}.{name_a}": a.view(len(a), linear.inputs, *linear.kernel),
        f"{path}.{name_b}": b.view(len(b), rank, *ones),
    }
    if made.magnitude is not None:
        found[f"{path}.lora_magnitude"] = made.magnitude
    if biased:
        found[f"{path}.lora_bias"] = a.new_zeros(linear.outputs) if made.bias is None else made.bias
    return {key: tensor.to("cpu", dtype).contiguous() for key, tensor in found.items()}


def _filled(block: Block, rank: int) -> Block:
    """Return factors with zeros behind them up to a rank."""
    from torch.nn.functional import pad

    more = rank - block.a.shape[0]
    return block if not more else Block(pad(block.a, (0, 0, 0, more)), pad(block.b, (0, more)))
