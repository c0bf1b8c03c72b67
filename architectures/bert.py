"""BERT (Devlin et al. 2019), a post-norm encoder."""

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

LAYERS = Layers(
    path="encoder.layer.{i}",
    sublayers=(
        Sublayer(
            role="attention",
            path="attention.output",
            output="attention.output.dropout",
            residual="attention",
            norm="attention.output.LayerNorm",
            adapters="attention.output",
        ),
        Sublayer(
            role="feed_forward",
            path="output",
            output="output.dropout",
            residual="intermediate",
            norm="output.LayerNorm",
            adapters="output",
        ),
    ),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    attentions=(
        AttentionNames(
            path="attention.self",
            query="attention.self.query",
            key="attention.self.key",
            value="attention.self.value",
            output="attention.output.dense",
        ),
    ),
    feed_forward=FeedForwardNames(intermediate="intermediate.dense", output="output.dense"),
)

EMBEDDINGS = EmbeddingNames(path="embeddings", tokens="embeddings.word_embeddings")

ROW = Architecture(
    name="bert",
    model_types=("bert",),
    prefixes=("bert",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    heads=(HeadName(classes=("BertForSequenceClassification",), linears=("classifier",), pooling="pooler"),),
    pooler="pooler",
)
