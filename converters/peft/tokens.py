"""Trained tokens as a type of their own in files of PEFT.

Source: PEFT 0.21.2, tuners/trainable_tokens (config.py, model.py).
"""

from __future__ import annotations

from ...adapter import JSON, MethodConfig
from ...errors import UnsupportedError
from ...methods import TrainableTokensConfig
from ...methods.config import config_from_json
from ...sites import Layout
from .codec import Codec, Fields, Places


def decode(fields: Fields, places: Places) -> MethodConfig:
    """Return the rows that a configuration and its places describe."""
    return config_from_json(
        TrainableTokensConfig,
        {
            "method": TrainableTokensConfig.method,
            "tokens": dict.fromkeys(places.theirs, tuple(fields["token_indices"] or ())),
            "keeps_bias": False,
        },
    )


def encode(config: TrainableTokensConfig, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of trained tokens.

    Raises:
        UnsupportedError: several maps have rows of other tokens.
    """
    rows = set(config.tokens.values())
    if len(rows) > 1:
        raise UnsupportedError("PEFT has one list of tokens for all maps, and these have different ones")
    return {"token_indices": list(rows.pop())}


CODEC = Codec(
    type="TRAINABLE_TOKENS",
    config=TrainableTokensConfig,
    leaves={"trainable_tokens_delta": "trained_rows"},
    meant=("token_indices",),
    idle=("init_weights",),
    decode=decode,
    encode=encode,
)
