"""LN tuning in files of PEFT: copies of modules, norms as a rule, that were trained in full.

Source: PEFT 0.21.2, tuners/ln_tuning (config.py, layer.py).
"""

from __future__ import annotations

from typing import Any

from ...adapter import JSON, MethodConfig
from ...errors import UsageError
from ...methods import LayerNormConfig, ParametersConfig
from ...sites import Layout
from .along import is_norm
from .codec import Codec, Fields, Places
from .families import Naming
from .targets import ordered


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return trained norms, or trained parameters where other modules are among them.

    Raises:
        UsageError: a module has fewer parameters than others.
    """
    leaves = {path: [leaf for leaf in ("weight", "bias") if places.shape(path, leaf)] for path in places.theirs}
    fewer = [path for path, found in leaves.items() if found != max(leaves.values(), key=len)]
    if fewer:
        raise UsageError(f"the file has not all parameters of {fewer[0]}")
    names = Naming(places.row)
    if all(is_norm(path, names) and places.shape(path, "weight") for path in places.theirs):
        return LayerNormConfig(modules=tuple(ordered(places.theirs)))
    return ParametersConfig(names=tuple(ordered(places.shapes)))


def encode(config: Any, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of an LN tuning: it has none of its own."""
    return {}


CODEC = Codec(
    type="LN_TUNING",
    config=LayerNormConfig,
    leaves={"ln_tuning_layers.weight": "weight", "ln_tuning_layers.bias": "bias"},
    decode=decode,
    encode=encode,
)
