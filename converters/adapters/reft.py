"""ReFT in files of `adapters`.

The library does not write whether the projection is subtracted, and does not heed it in a file: what it saved of a
DiReFT is read as the NoReFT that it reads there. A DiReFT without an activation is written as the NoReFT with the same
output (equal.py); one with an activation has none.

The diagonal of the parameter behind orthonormal rows holds signs, which do not train; it is kept apart from the rest.

The library counts the last positions in all parts of a model by the mask that the whole is called with, which is that
of the encoder's text, or of the text beside an image.

Source: adapters 1.3.0, configuration/adapter_config.py (ReftConfig), methods/reft.py and model_mixin.py
(`forward_context`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

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

FIELDS = tuple(name for name in field_types(ReftConfig) if name not in ("positions", "subtract_projection"))

REQUIRED = ("layers", "prefix_positions", "suffix_positions", "r", "orthogonality")

DEFAULTS: Mapping[str, JSON] = {"architecture": "reft", "dtype": None, "output_reft": True}

LEAVES = (
    ("learned_source.weight", "source.weight"),
    ("learned_source.bias", "source.bias"),
    ("projection.weight", "projection.weight"),
    ("projection.parametrizations.weight.original", "projection.reflections"),
    ("projection.parametrizations.weight.0.base", "projection.base"),
)
REFLECTIONS, SIGNS = ".projection.reflections", ".projection.signs"


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
    counted = positions(values.get("suffix_positions", 0), source.row)
    return config_from_json(ReftConfig, {"method": ReftConfig.method, **values, "positions": counted})


def encode(config: ReftConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the library has no word for a DiReFT with an activation, or counts the positions otherwise.
    """
    if not config.subtract_projection:
        raise UnsupportedError(
            "the adapters format has no word for a DiReFT with an activation: its library would read a NoReFT",
            hint="write it in the native format",
        )
    counted = positions(config.suffix_positions, source.row)
    if config.positions != counted:
        raise UnsupportedError(
            f"the adapters format counts the positions in {source.row.name} models as positions={counted} says",
            hint=f"set positions={counted}, or write it in the native format",
        )
    fields = {name: value for name, value in config.to_json().items() if name in FIELDS}
    if config.non_linearity is not None:
        fields["non_linearity"] = past(config.non_linearity, source)
    return {**DEFAULTS, **fields}


def positions(suffix: JSON, row: Architecture) -> Literal["own", "adapters"]:
    """Return how the library counts; it matters for the last positions where a model has several parts."""
    behind = (part.role for stack in row.layers[1:] for part in stack.sublayers)
    return "adapters" if suffix and ("cross_attention" in behind or row.embeddings[1:]) else "own"


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
        if key.endswith(REFLECTIONS) and tensor.ndim == 2 and tensor.shape[0] < tensor.shape[1]:
            found[key] = tensor[_beside(tensor)].view(tensor.shape[0], -1)
            found[key.replace(REFLECTIONS, SIGNS)] = tensor.diagonal().clone()
    return found


def write(config: ReftConfig, tensors: Tensors, places: Places) -> Tensors:
    """Return the diagonals where the library has them."""
    found = dict(tensors)
    for key in tensors:
        if key.endswith(SIGNS):
            rest, signs = found[key.replace(SIGNS, REFLECTIONS)], found.pop(key)
            whole = rest.new_empty(rest.shape[0], rest.shape[1] + 1)
            whole[_beside(whole)] = rest.reshape(-1)
            whole.diagonal().copy_(signs)
            found[key.replace(SIGNS, REFLECTIONS)] = whole
    return found


def _beside(matrix: torch.Tensor) -> torch.Tensor:
    """Return a mask of what does not lie on the diagonal of a matrix with more columns than rows."""
    import torch

    return ~torch.eye(*matrix.shape, dtype=torch.bool)


CODEC = Codec(config=ReftConfig, claims=claims, decode=decode, encode=encode, entries=entries, read=read, write=write)
