"""RandLoRA in files of PEFT: two small tensors at each map, and a copy of the shared ones, or the seed of these.

Source: PEFT 0.21.2, tuners/randlora (config.py, model.py, layer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapter import JSON, MethodConfig
from ...errors import FormatError, UsageError
from ...methods import RandloraConfig
from ...methods.config import config_from_json
from ...methods.randlora import SHARED_A, SHARED_B
from ...sites import Layout
from ..values import identical
from .codec import Codec, Fields, Places

if TYPE_CHECKING:
    import torch

    from .codec import Tensors

AGAIN = "save the adapter again with PEFT"

COPIES = {"randlora_A": SHARED_A, "randlora_B": SHARED_B}
"""What PEFT saves once for the model, and again at every module."""


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the updates that a configuration and its places describe.

    Raises:
        UsageError: the shared matrices are missing, and no seed stands for them.
    """
    a, b = places.shapes.get(SHARED_A, ()), places.shapes.get(SHARED_B, ())
    if len(a) != 3 and fields["save_projection"]:
        raise UsageError("save_projection is true, and the file has no randlora_A")
    entries = "very_sparse" if fields["very_sparse"] else "sparse" if fields["sparse"] else "uniform"
    return config_from_json(
        RandloraConfig,
        {
            "method": RandloraConfig.method,
            "targets": list(places.targets),
            "r": fields["r"],
            "alpha": fields["randlora_alpha"],
            "dropout": fields["randlora_dropout"],
            "entries": entries,
            "seed": None if len(a) == 3 else fields["projection_prng_key"],
            "sizes": [a[2], b[0]] if len(a) == len(b) == 3 else [0, 0],
        },
    )


def encode(config: RandloraConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of a RandLoRA."""
    found: dict[str, JSON] = {
        "r": config.r,
        "randlora_alpha": config.alpha,
        "randlora_dropout": config.dropout,
        "sparse": config.entries == "sparse",
        "very_sparse": config.entries == "very_sparse",
        "save_projection": config.seed is None,
    }
    return found if config.seed is None else {**found, "projection_prng_key": config.seed}


def read(config: RandloraConfig, tensors: Tensors) -> Tensors:
    """Return tensors without the copies of the shared ones.

    Raises:
        FormatError: the copies differ from what they are copies of, or one of them is missing.
    """
    paths = _maps(tensors)
    for copy in COPIES:
        missing = [path for path in paths if f"{path}.{copy}" not in tensors]
        if missing and len(missing) < len(paths):
            raise FormatError(f"the copy {copy!r} is missing at {', '.join(missing[:5])}", hint=AGAIN)

    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        name = COPIES.get(key.rpartition(".")[2], key)
        if name in COPIES.values() and name not in tensors:
            raise FormatError(f"tensor {key!r} is a copy of one that the file does not have", hint=AGAIN)
        if name in found and not identical(found[name], tensor):
            raise FormatError(f"tensor {key!r} is not the same at every module", hint=AGAIN)
        found[name] = tensor
    return found


def write(config: RandloraConfig, tensors: Tensors, layout: Layout) -> Tensors:
    """Return tensors with a copy of the shared ones at every map too."""
    paths = _maps(tensors)
    found = dict(tensors)
    for copy, name in COPIES.items():
        if name in tensors:
            found |= {f"{path}.{copy}": tensors[name] for path in paths}
    return found


def _maps(tensors: Tensors) -> list[str]:
    """Return the paths of the maps that are changed."""
    return [key.rpartition(".")[0] for key in tensors if key.endswith(".randlora_gamma")]


CODEC = Codec(
    type="RANDLORA",
    config=RandloraConfig,
    leaves={leaf: leaf for leaf in ("randlora_lambda", "randlora_gamma", *COPIES)},
    shared={copy: copy for copy in COPIES},
    meant=(
        *("r", "randlora_alpha", "randlora_dropout", "sparse", "very_sparse"),
        *("save_projection", "projection_prng_key"),
    ),
    idle=("init_weights", "fan_in_fan_out"),
    decode=decode,
    encode=encode,
    read=read,
    write=write,
)
