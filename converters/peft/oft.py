"""OFT in files of PEFT: blocks by number or by size, Cayley transforms exact or as a series, constrained or not.

Source: PEFT 0.21.2, tuners/oft (config.py, layer.py).
"""

from __future__ import annotations

from ...adapter import JSON, MethodConfig
from ...methods import OftConfig
from ...methods.config import config_from_json
from ...sites import Layout
from .codec import Codec, Fields, Places


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the rotations that a configuration and its places describe."""
    return config_from_json(
        OftConfig,
        {
            "method": OftConfig.method,
            "targets": list(places.targets),
            "block_size": fields["oft_block_size"],
            "blocks": fields["r"],
            "shared": fields["block_share"],
            "limit": fields["eps"] if fields["coft"] else None,
            "terms": fields["num_cayley_neumann_terms"] if fields["use_cayley_neumann"] else 0,
        },
    )


def encode(config: OftConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of an OFT."""
    found: dict[str, JSON] = {
        "r": config.blocks,
        "oft_block_size": config.block_size,
        "block_share": config.shared,
        "coft": config.limit is not None,
        "use_cayley_neumann": config.terms > 0,
    }
    found |= {} if config.limit is None else {"eps": config.limit}
    return found | ({"num_cayley_neumann_terms": config.terms} if config.terms else {})


CODEC = Codec(
    type="OFT",
    config=OftConfig,
    leaves={"oft_R.weight": "oft_R", "oft_embedding_R.weight": "oft_embedding_R"},
    meant=("r", "oft_block_size", "block_share", "coft", "eps", "use_cayley_neumann", "num_cayley_neumann_terms"),
    idle=("init_weights", "module_dropout", "fan_in_fan_out"),
    decode=decode,
    encode=encode,
)
