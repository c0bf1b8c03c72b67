"""Invertible adapters in files of `adapters` and adapter-transformers: part of a bottleneck's configuration.

Version 1 had them in a configuration of their own (`invertible_adapter`) with a non-linearity of its own, which later
releases drop; here it keeps its meaning. Up to version 3 the inverse stood in front of the output embeddings of the
model itself, since then in heads that adapters bring along, and in families that are known by an interface.

Source: adapters 1.3.0, methods/invertible.py, methods/modeling.py and heads/language_modeling.py; adapter-transformers
1.1.1, adapter_model_mixin.py; 3.2.1, the modeling files.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import InvertibleConfig
from ...methods.config import config_from_json
from ...methods.invertible import home
from .bottleneck import INVERSE, past, present
from .codec import Codec, Container, Entry, Fields, Source, at_base

ALONE: dict[str, JSON] = {"mh_adapter": False, "output_adapter": False, "reduction_factor": 16, "leave_out": [0]}
"""A bottleneck that stands nowhere, for an invertible adapter without one. The library takes it beside another one only
if one of them leaves out a layer."""

ONCE_BEFORE_OUTPUT = (
    "albert",
    "bart",
    "bert",
    "bert-generation",
    "deberta",
    "deberta-v2",
    "distilbert",
    "encoder-decoder",
    "mbart",
    "roberta",
    "t5",
    "xlm-roberta",
)
"""Families in which adapter-transformers had the inverse in front of the model's own output embeddings."""

WITHOUT = ("beit", "clip_vision_model", "vit")
"""Families for which the library has no invertible adapters."""

LAYERS = (("0", "down"), ("2", "up"))
"""Places of F's and G's layers in the file, and their names here."""


def claims(fields: Fields) -> bool:
    """Return whether a configuration has an invertible adapter."""
    return fields.get("architecture") is None and any(fields.get(name) for name in INVERSE if name != INVERSE[1])


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the invertible adapter that a configuration describes.

    Raises:
        UnsupportedError: it is one that the library fails to compute.
    """
    _check(source.row)
    nested = fields.get("invertible_adapter")
    if not nested:
        kind, factor = fields.get("inv_adapter"), fields.get("inv_adapter_reduction_factor")
        activation = fields.get("non_linearity")
    elif isinstance(nested, dict) and not fields.get("inv_adapter"):
        kind, factor = nested.get("block_type"), nested.get("reduction_factor")
        activation = nested.get("non_linearity", fields.get("non_linearity"))
    else:
        raise FormatError("adapter_config.json: expected an object as invertible_adapter, and no inv_adapter beside it")
    if kind == "glow":
        raise UnsupportedError("GLOW couplings are not run: `adapters` fails to compute them, so none can be trained")
    if kind != "nice":
        raise FormatError(f"adapter_config.json: inv_adapter is {kind!r}, expected 'nice'")
    data = {
        "method": InvertibleConfig.method,
        "inv_reduction_factor": factor,
        "non_linearity": present(activation, source) if isinstance(activation, str) else activation,
        "before_output": _before_output(source),
        "init_weights_seed": fields.get("init_weights_seed"),
    }
    return config_from_json(InvertibleConfig, data)


def encode(config: InvertibleConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a bottleneck that has the invertible adapter alone.

    Raises:
        UnsupportedError: the library has the inverse elsewhere, or has none in the family.
    """
    seed = {} if config.init_weights_seed is None else {"init_weights_seed": config.init_weights_seed}
    return {**ALONE, **_fields(config, source), "non_linearity": past(config.non_linearity, source), **seed}


def amends(config: InvertibleConfig, fields: dict[str, JSON], source: Source) -> dict[str, JSON] | None:
    """Return the fields of a bottleneck with the invertible adapter in it, None where it has another activation."""
    if any(fields.get(name) for name in INVERSE) or fields.get("init_weights_seed") != config.init_weights_seed:
        return None
    own = past(config.non_linearity, source)
    if own == fields["non_linearity"]:
        return {**fields, **_fields(config, source)}
    if source.version is not None:
        return None
    _fields(config, source)
    nested = {"block_type": "nice", "non_linearity": own, "reduction_factor": config.inv_reduction_factor}
    return {**fields, "invertible_adapter": nested}


def _fields(config: InvertibleConfig, source: Source) -> dict[str, JSON]:
    _check(source.row)
    if config.before_output != _before_output(source):
        where = "of its own alone" if config.before_output else "and in front of the model's output embeddings"
        raise UnsupportedError(
            f"in the adapters format the inverse stands in heads {where}, for {source.row.name} models"
            f" and version {source.version or 'before 3'}",
            hint=f"set before_output={str(not config.before_output).lower()}, or write it in the native format",
        )
    return {"inv_adapter": "nice", "inv_adapter_reduction_factor": config.inv_reduction_factor}


def _check(row: Architecture) -> None:
    if row.name in WITHOUT:
        raise UnsupportedError(f"the adapters format has no invertible adapters for {row.name} models")


def _before_output(source: Source) -> bool:
    """Return whether the library of this version had the inverse in front of a model's own output embeddings."""
    former = source.version is None or not source.version.startswith("adapters.")
    return former and source.row.name in ONCE_BEFORE_OUTPUT


def entries(config: InvertibleConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the tensors."""
    if row.name in WITHOUT:
        return
    place = home(row.embeddings)
    tower = row.past(place.path).removesuffix(place.path) + place.adapters
    for before, is_copy in at_base(row, tower.removesuffix(".")):
        theirs = f"{before}{container.invertible}.{{name}}"
        for net, (number, name), leaf in product("FG", LAYERS, ("weight", "bias")):
            ours = f"{place.path}.invertible.{net}.{name}.{leaf}"
            yield Entry(f"{theirs}.{net}.{number}.{leaf}", ours, optional=is_copy)


CODEC = Codec(
    config=InvertibleConfig,
    claims=claims,
    decode=decode,
    encode=encode,
    amends=amends,
    entries=entries,
)
