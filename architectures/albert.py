"""ALBERT (Lan et al. 2020): groups of post-norm layers whose parameters serve several times.

A site stands for all passes through its layer: the index of a layer counts the layers that have parameters.
After the attention d and x change places in `adapters`: the residual stream goes into the bottleneck, and the output of
the attention is added to the result.
"""

from __future__ import annotations

from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
)
from .bert import token_heads

ROW = Architecture(
    name="albert",
    model_types=("albert",),
    prefixes=("albert",),
    layers=(
        Layers(
            path="encoder.albert_layer_groups.{i}.albert_layers.{i}",
            sublayers=(
                Sublayer(
                    role="attention",
                    path="attention",
                    output="attention.output_dropout",
                    residual="attention",
                    norm="attention.LayerNorm",
                    adapters="attention.attention_adapters",
                    exchanged=True,
                ),
                Sublayer(
                    role="feed_forward",
                    path="ffn_output",
                    output="ffn_output",
                    residual="ffn",
                    norm="full_layer_layer_norm",
                    adapters="output_adapters",
                ),
            ),
            norms=("attention.LayerNorm", "full_layer_layer_norm"),
            attentions=(
                AttentionNames(
                    path="attention",
                    query="attention.query",
                    key="attention.key",
                    value="attention.value",
                    output="attention.dense",
                ),
            ),
            feed_forward=FeedForwardNames(intermediate="ffn", output="ffn_output"),
            positions="embeddings.position_embeddings",
        ),
    ),
    norms=("embeddings.LayerNorm",),
    embeddings=(
        EmbeddingNames(
            path="embeddings",
            tokens="embeddings.word_embeddings",
            width=("embedding_size",),
            lengthens=True,
            sees_padding=True,
        ),
    ),
    heads=(
        HeadName(classes=("AlbertForSequenceClassification",), linears=("classifier",), pooling="pooler"),
        *token_heads("Albert"),
        HeadName(
            classes=("AlbertForMaskedLM",),
            kind="masked_lm",
            linears=("predictions.dense", "predictions.decoder"),
            activation="hidden_act",
            norm="predictions.LayerNorm",
            bias=("predictions.decoder.bias", "predictions.bias"),
        ),
    ),
    pooler="pooler",
)
