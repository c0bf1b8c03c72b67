"""Prefixes in two ways of counting the text's positions, in models whose positions turn queries and keys.

Scores depend on how far a key stands from a query. Where the text is counted on behind a prefix of length L, a key of
the prefix, which is not turned, is L places further from a query than where the text keeps its positions: turned by L
places, it gives the same scores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..architectures import Architecture
from ..errors import UnsupportedError
from ..methods import PrefixTuningConfig
from ..methods.prefix_tuning import flattened
from . import accounting
from .format import KnownBase

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def shifted(config: PrefixTuningConfig, tensors: Tensors, row: Architecture, base: KnownBase) -> PrefixTuningConfig:
    """Return the flat prefix behind which positions are counted on; tensors are changed where there is one."""
    layout = accounting.layout((config,), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, row)
    mine = [key for key in tensors if ".prefix_" in key]
    made = tensors if config.flat else flattened(config, tensors, layout)
    turned = _turned(made, base, config.prefix_length)
    if turned is None:
        return config
    for key in mine:
        del tensors[key]
    tensors |= turned
    return replace(config, flat=True, positions="shifted")


def kept(config: PrefixTuningConfig, tensors: Tensors, row: Architecture, base: KnownBase) -> PrefixTuningConfig:
    """Return the prefix beside which the text keeps its positions; tensors are changed where there is one."""
    turned = _turned(tensors, base, -config.prefix_length) if config.flat else None
    if turned is None:
        return config
    tensors |= turned
    return replace(config, positions="kept")


def _turned(tensors: Tensors, base: KnownBase, places: int) -> Tensors | None:
    """Return the tensors of a flat prefix with turned keys, None where a model does not turn them."""
    found = {key: tensor for key, tensor in tensors.items() if ".prefix_" in key}
    try:
        for key in found:
            path, end = key.rpartition(".prefix_")[::2]
            if end == "key":
                found[key] = base.turned(path, found[key], places)
    except UnsupportedError:
        return None
    return found
