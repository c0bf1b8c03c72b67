"""ReFT in files of `adapters`.

The library does not write whether the projection is subtracted, so what it saved of a DiReFT is read as the NoReFT that
the library reads there. It heeds the field where a file has it, so it is written for a DiReFT.

The diagonal of the parameter behind orthonormal rows holds signs, which do not train; it is kept apart from the rest.

In an encoder-decoder the library counts the last positions of the decoder's text by the padding of the encoder's.

Source: adapters 1.3.0, configuration/adapter_config.py (ReftConfig), methods/reft.py and model_mixin.py
(`forward_context`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import UnsupportedError, UsageError
from ...methods import ReftConfig
from ...methods.config import config_from_json, field_types
from .bottleneck import past, present
from .codec import Codec, Container, Entry, Fields, Places, Source

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

FIELDS = tuple(name for name in field_types(ReftConfig) if name != "decoder_positions")

REQUIRED = ("layers", "prefix_positions", "suffix_positions", "r", "orthogonality")

DEFAULTS: Mapping[str, JSON] = {"architecture": "reft", "dtype": None, "output_reft": True}

LEAVES = (
    ("learned_source.weight", "source.weight"),
    ("learned_source.bias", "source.bias"),
    ("projection.weight", "projection.weight"),
    ("projection.parametrizations.weight.original", "projection.reflections"),
    ("projection.parametrizations.weight.0.base", "projection.base"),
)


def claims(fields: Fields) -> bool:
    """Return whether a configuration is one of interventions."""
    return fields.get("architecture") == "reft"


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the interventions that a configuration describes.

    Raises:
        UnsupportedError: there are none.
        UsageError: a field is missing or has a wrong value.
    """
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise UsageError(f"the configuration of ReFT lacks {', '.join(missing)}")
    if not fields.get("output_reft", True):
        raise UnsupportedError("output_reft is false: such an adapter acts nowhere")
    values = {name: value for name, value in fields.items() if name in FIELDS}
    activation = values.get("non_linearity")
    if isinstance(activation, str):
        values["non_linearity"] = present(activation, source)
    positions = _decoder_positions(values.get("suffix_positions", 0), source.row)
    return config_from_json(ReftConfig, {"method": ReftConfig.method, **values, "decoder_positions": positions})


def encode(config: ReftConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the library counts the positions in a decoder otherwise.
    """
    positions = _decoder_positions(config.suffix_positions, source.row)
    if config.decoder_positions != positions:
        raise UnsupportedError(
            f"in the adapters format these positions are counted as decoder_positions={positions} says",
            hint=f"set decoder_positions={positions}, or write it in the native format",
        )
    fields = {name: value for name, value in config.to_json().items() if name in FIELDS}
    if config.subtract_projection:
        del fields["subtract_projection"]
    if config.non_linearity is not None:
        fields["non_linearity"] = past(config.non_linearity, source)
    return {**DEFAULTS, **fields}


def _decoder_positions(suffix: JSON, row: Architecture) -> str:
    """Return how the library counts in decoders; it matters for the last positions."""
    behind = (part.role for stack in row.layers[1:] for part in stack.sublayers)
    return "encoder" if suffix and "cross_attention" in behind else "decoder"


def entries(config: ReftConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors at every layer."""
    for stack in row.layers:
        for number, unit in enumerate(config.units):
            theirs = f"{row.past(stack.path)}.reft_layer.refts.{{name}}.units.{number}"
            yield from (
                Entry(f"{theirs}.{foreign}", f"{stack.path}.{unit}.{leaf}", left_out=config.left_out)
                for foreign, leaf in LEAVES
            )


def read(config: ReftConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the diagonals apart from the rest."""
    found = dict(tensors)
    for key, tensor in tensors.items():
        if key.endswith(".projection.reflections") and tensor.ndim == 2:
            found[key] = tensor.clone().fill_diagonal_(0)
            found[key.replace(".reflections", ".signs")] = tensor.diagonal().clone()
    return found


def write(config: ReftConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the diagonals where the library has them."""
    found = dict(tensors)
    for key in tensors:
        if key.endswith(".projection.signs"):
            whole = key.replace(".signs", ".reflections")
            found[whole] = found[whole].clone()
            found[whole].diagonal().copy_(found.pop(key))
    return found


CODEC = Codec(config=ReftConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
