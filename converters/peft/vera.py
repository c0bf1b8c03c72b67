"""VeRA in files of PEFT: two vectors at each map; the shared matrices stand in the file, or are drawn by a seed.

Source: PEFT 0.21.2, tuners/vera (config.py, model.py, layer.py).
"""

from __future__ import annotations

from ...adapter import JSON, MethodConfig
from ...errors import UsageError
from ...methods import VeraConfig
from ...methods.config import config_from_json
from ...sites import Layout
from .codec import Codec, Fields, Places


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the updates that a configuration and its places describe.

    Raises:
        UsageError: the shared matrices are missing, and no seed stands for them.
    """
    saved = "shared.vera_A" in places.shapes
    if not saved and fields["save_projection"]:
        raise UsageError("save_projection is true, and the file has no vera_A")
    return config_from_json(
        VeraConfig,
        {
            "method": VeraConfig.method,
            "targets": list(places.targets),
            "r": fields["r"],
            "dropout": fields["vera_dropout"],
            "d_initial": fields["d_initial"],
            "projection_seed": None if saved else fields["projection_prng_key"],
        },
    )


def beyond(config: VeraConfig, layout: Layout) -> list[str]:
    """Return why PEFT cannot say this VeRA."""
    reasons = ["its updates have gates, which depend on the input"] if config.gating else []
    reasons += ["it has DoRA's magnitude"] if config.magnitude != "none" else []
    reasons += ["its scale is not 1"] if config.scale != 1 else []
    return reasons + (["it has whole matrices at each map"] if config.form != "vectors" else [])


def encode(config: VeraConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of a VeRA."""
    found: dict[str, JSON] = {
        "r": config.r,
        "vera_dropout": config.dropout,
        "d_initial": config.d_initial,
        "save_projection": config.projection_seed is None,
    }
    return found if config.projection_seed is None else {**found, "projection_prng_key": config.projection_seed}


CODEC = Codec(
    type="VERA",
    config=VeraConfig,
    leaves={"vera_lambda_b": "vera_b", "vera_lambda_d": "vera_d"},
    shared={"vera_A": "vera_A", "vera_B": "vera_B"},
    meant=("r", "vera_dropout", "d_initial", "save_projection", "projection_prng_key"),
    idle=("init_weights", "fan_in_fan_out"),
    beyond=beyond,
    decode=decode,
    encode=encode,
)
