"""DistilBERT (Sanh et al. 2019), a post-norm encoder without pooler."""

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
    name="distilbert",
    model_types=("distilbert",),
    prefixes=("distilbert",),
    layers=(
        Layers(
            path="transformer.layer.{i}",
            sublayers=(
                Sublayer(
                    role="attention",
                    path="attention",
                    output="attention.out_lin",
                    residual="attention",
                    norm="sa_layer_norm",
                    adapters="attention_adapters",
                ),
                Sublayer(
                    role="feed_forward",
                    path="ffn",
                    output="ffn.dropout",
                    residual="ffn",
                    norm="output_layer_norm",
                    adapters="output_adapters",
                ),
            ),
            norms=("sa_layer_norm", "output_layer_norm"),
            attentions=(
                AttentionNames(
                    path="attention",
                    query="attention.q_lin",
                    key="attention.k_lin",
                    value="attention.v_lin",
                    output="attention.out_lin",
                    prefix="self",
                ),
            ),
            feed_forward=FeedForwardNames(intermediate="ffn.lin1", output="ffn.lin2"),
            positions="embeddings.position_embeddings",
            padded_bonus=1.0,
            width="dim",
            heads=("n_heads",),
            query_heads="n_heads",
        ),
    ),
    norms=("embeddings.LayerNorm",),
    embeddings=(
        EmbeddingNames(
            path="embeddings", tokens="embeddings.word_embeddings", width=("dim",), lengthens=True, sees_padding=True
        ),
    ),
    heads=(
        *(
            HeadName(
                classes=(f"DistilBertFor{task}",),
                kind=kind,
                linears=("pre_classifier", "classifier"),
                pooling="first",
                activation="relu",
            )
            for kind, task in (("classification", "SequenceClassification"), ("multiple_choice", "MultipleChoice"))
        ),
        *token_heads("DistilBert", pooled=False),
        HeadName(
            classes=("DistilBertForMaskedLM",),
            kind="masked_lm",
            linears=("vocab_transform", "vocab_projector"),
            activation="hidden_act",
            norm="vocab_layer_norm",
        ),
    ),
)
