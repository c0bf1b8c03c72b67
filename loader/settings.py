"""What the configuration of a live model says that prediction heads depend on."""

from __future__ import annotations

from typing import Any

from ..methods import Settings
from .layout import Ground, setting


def settings_of(ground: Ground) -> Settings:
    """Return what heads take from a model's configuration.

    Source: `adapters` 1.3.0, heads/base.py (`_get_dropout_prob`) and heads/language_modeling.py for names and defaults.
    """
    config, row = ground.bare.config, ground.architecture
    scales = row.scales and setting(config, "scale_decoder_outputs", False)
    return Settings(
        dropout=_first(config, ("classifier_dropout", "hidden_dropout_prob"), 0.0),
        activation=_first(config, ("classifier_activation", "hidden_act", "activation", "activation_function"), ""),
        norm_eps=_first(config, ("layer_norm_eps", "norm_eps"), 1e-12),
        scale=ground.layout.width**-0.5 if scales else 1.0,
        padding=setting(config, "pad_token_id"),
        end=_ids(setting(config, "eos_token_id")),
        start=setting(config, "decoder_start_token_id"),
        shifts=("wrap" if row.wraps else "start") if config.is_encoder_decoder else "",
    )


def _first(config: Any, names: tuple[str, ...], default: Any) -> Any:
    """Return the first attribute of several that the configuration has."""
    return next((found for name in names if (found := setting(config, name)) is not None), default)


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
