"""A tiny encoder and a tiny decoder in one model, of the families and sizes that an adapter tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..architectures import Layers
from .random_bases import IDS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PARTS: Mapping[str, str] = {
    "encoder.encoder.layer.": "bert",
    "encoder.transformer.": "distilbert",
    "encoder.encoder.albert_layer_groups.": "albert",
    "decoder.bert.": "bert",
    "decoder.roberta.": "roberta",
    "decoder.electra.": "electra",
    "decoder.transformer.": "gpt2",
}
"""Beginning of the paths of layers → the family that has them there."""

DECODES: Mapping[str, Any] = {"is_decoder": True, "add_cross_attention": True}


def front(stack: Layers) -> str:
    """Return what stands in front of the paths of the model that a stack is of."""
    decoders = (start for start in PARTS if start.startswith("decoder."))
    return next((start for start in decoders if stack.path.startswith(start)), "encoder.")


def configuration(sizes: Mapping[Layers, Mapping[str, Any]], known: Callable[..., dict[str, Any]]) -> PretrainedConfig:
    """Return the configuration of both models in one.

    sizes: stack that the adapter stands in → what its model's configuration says; a model that it leaves alone is a
    BERT of the same sizes. known: class of a configuration and sizes → those that it can be told, by its own names.
    """
    from transformers import AutoConfig, EncoderDecoderConfig

    parts = {}
    for side in ("encoder", "decoder"):
        named = {stack.path: found for stack, found in sizes.items() if stack.path.startswith(f"{side}.")}
        path, found = next(iter(named.items()), (f"{side}.bert.", next(iter(sizes.values()))))
        kind = next((kind for start, kind in PARTS.items() if path.startswith(start)), "bert")
        if kind == "bert" and found.get("embedding_size", found["hidden_size"]) != found["hidden_size"]:
            kind = "electra"  # whose layers have the same paths
        made = type(AutoConfig.for_model(kind))
        parts[side] = made(**known(made, found), **(DECODES if side == "decoder" else {}))
    both = EncoderDecoderConfig.from_encoder_decoder_configs(parts["encoder"], parts["decoder"], **IDS)
    both.architectures = ["EncoderDecoderModel"]
    return both
