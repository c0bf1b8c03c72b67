"""ViT (Dosovitskiy et al. 2021), a pre-norm encoder of images, and BEiT (Bao et al. 2022) with scales on its sublayers.

One dropout, or one module that drops paths, serves both sublayers of a layer. transformers 5 renamed both models.
"""

from __future__ import annotations

import dataclasses

from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
)


def sublayers(output: str, feed_forward: str) -> tuple[Sublayer, ...]:
    """Return the sublayers of a layer; output: the module that serves both, feed_forward: the place in old files."""
    return (
        Sublayer(
            role="attention",
            path="attention",
            output=output,
            residual="layernorm_before",
            adapters="attention_adapters",
        ),
        Sublayer(
            role="feed_forward",
            path="mlp",
            output=output,
            residual="layernorm_after",
            adapters=feed_forward,
        ),
    )


LAYERS = Layers(
    path="layers.{i}",
    sublayers=sublayers("dropout", "output.output_adapters"),
    norms=("layernorm_before", "layernorm_after"),
    attentions=(
        AttentionNames(
            path="attention",
            query="attention.q_proj",
            key="attention.k_proj",
            value="attention.v_proj",
            output="attention.o_proj",
        ),
    ),
    feed_forward=FeedForwardNames(intermediate="mlp.fc1", output="mlp.fc2"),
)

FORMER = (
    ("encoder.layer.{i}.attention.attention.query", "layers.{i}.attention.q_proj"),
    ("encoder.layer.{i}.attention.attention.key", "layers.{i}.attention.k_proj"),
    ("encoder.layer.{i}.attention.attention.value", "layers.{i}.attention.v_proj"),
    ("encoder.layer.{i}.attention.output.dense", "layers.{i}.attention.o_proj"),
    ("encoder.layer.{i}.attention.attention", "layers.{i}.attention"),
    ("encoder.layer.{i}.intermediate.dense", "layers.{i}.mlp.fc1"),
    ("encoder.layer.{i}.output.dense", "layers.{i}.mlp.fc2"),
    ("encoder.layer.{i}", "layers.{i}"),
)

VIT = Architecture(
    name="vit",
    model_types=("vit",),
    prefixes=("vit",),
    layers=(LAYERS,),
    norms=("layernorm",),
    embeddings=(EmbeddingNames(path="embeddings", tokens=None, lengthens=True),),
    heads=(
        HeadName(
            classes=("ViTForImageClassification",),
            kind="image_classification",
            linears=("classifier",),
            pooling="first",
        ),
    ),
    pooler="pooler",
    former=FORMER,
)

BEIT = Architecture(
    name="beit",
    model_types=("beit",),
    prefixes=("beit",),
    layers=(dataclasses.replace(LAYERS, sublayers=sublayers("drop_path", "output_adapters")),),
    norms=("layernorm", "pooler.layernorm"),
    embeddings=(
        EmbeddingNames(
            path="embeddings",
            tokens=None,
            lengthens=True,
            fixed_by=("use_relative_position_bias", "use_shared_relative_position_bias"),
        ),
    ),
    heads=(
        HeadName(
            classes=("BeitForImageClassification",),
            kind="image_classification",
            linears=("classifier",),
            pooling="pooler",
        ),
    ),
    pooler="pooler",
    may_lack=("layernorm", "pooler.layernorm"),
    reads="pooler",
    former=(
        ("encoder.layer.{i}.attention.attention.relative_position_bias", "layers.{i}.relative_position_bias"),
        *FORMER,
    ),
)
