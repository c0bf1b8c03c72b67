"""CLIP (Radford et al. 2021): a pre-norm text tower and a pre-norm image tower, together or each alone.

Layers of the image tower are counted on from those of the text tower. Since transformers 5 a tower alone has no word in
front of its module paths.
"""

from __future__ import annotations

import dataclasses

from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    Layers,
    Sublayer,
)


def tower(prefix: str) -> Layers:
    """Return the layers of a tower alone; prefix: what files of `adapters` call its prefixes."""
    return Layers(
        path="encoder.layers.{i}",
        sublayers=(
            Sublayer(
                role="attention",
                path="self_attn",
                output="self_attn.out_proj",
                residual="layer_norm1",
                adapters="attention_adapters",
            ),
            Sublayer(
                role="feed_forward",
                path="mlp",
                output="mlp.fc2",
                residual="layer_norm2",
                adapters="output_adapters",
            ),
        ),
        norms=("layer_norm1", "layer_norm2"),
        attentions=(
            AttentionNames(
                path="self_attn",
                query="self_attn.q_proj",
                key="self_attn.k_proj",
                value="self_attn.v_proj",
                output="self_attn.out_proj",
                prefix=prefix,
            ),
        ),
        feed_forward=FeedForwardNames(intermediate="mlp.fc1", output="mlp.fc2"),
    )


TEXT_LAYERS, VISION_LAYERS = tower("clip_text_model_self_prefix"), tower("clip_vision_model_self_prefix")

TEXT = Architecture(
    name="clip_text_model",
    model_types=("clip_text_model",),
    prefixes=("text_model",),
    layers=(TEXT_LAYERS,),
    norms=("final_layer_norm",),
    embeddings=(EmbeddingNames(path="embeddings", tokens="embeddings.token_embedding", stack="clip_text_model_self"),),
    around=("text_projection",),
    former=tuple((f"text_model.{name}", name) for name in ("encoder.layers.{i}", "embeddings", "final_layer_norm")),
    reads="eos",
)

VISION = Architecture(
    name="clip_vision_model",
    model_types=("clip_vision_model",),
    prefixes=("vision_model",),
    layers=(VISION_LAYERS,),
    norms=("pre_layrnorm", "post_layernorm"),
    embeddings=(EmbeddingNames(path="pre_layrnorm", tokens=None, stack="clip_vision_model_self"),),
    around=("visual_projection",),
    former=tuple(
        (f"vision_model.{name}", name)
        for name in ("encoder.layers.{i}", "embeddings", "pre_layrnorm", "post_layernorm")
    ),
)


def inside(names: EmbeddingNames, tower: str) -> EmbeddingNames:
    """Return the embeddings of a tower as a part of the whole model."""
    return dataclasses.replace(
        names,
        path=f"{tower}_model.{names.path}",
        tokens=None if names.tokens is None else f"{tower}_model.{names.tokens}",
        width=tuple(f"{tower}_config.{name}" for name in names.width),
        adapters=f"{tower}_model",
    )


CLIP = Architecture(
    name="clip",
    model_types=("clip",),
    prefixes=("clip",),
    layers=(
        TEXT_LAYERS.moved("text_model.", config="text_config."),
        VISION_LAYERS.moved("vision_model.", config="vision_config."),
    ),
    norms=(
        *(f"text_model.{norm}" for norm in TEXT.norms),
        *(f"vision_model.{norm}" for norm in VISION.norms),
    ),
    embeddings=(inside(TEXT.embeddings[0], "text"), inside(VISION.embeddings[0], "vision")),
    may_lack=("text_model", "vision_model"),
    reads="",
)
