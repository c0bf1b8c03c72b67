"""ModernBERT (Warner et al. 2024), a pre-norm encoder with rotary positions; the first layer has no norm in front.

`adapters` takes for x what the attention and the feed-forward block get, which is normalised, and for LN behind the
attention the norm in front of the feed-forward block, that of the last layer for all layers. `Wi` computes the
intermediate values and their gate side by side; it is one map for a LoRA.
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


def head(task: str, kind: str, last: str = "classifier") -> HeadName:
    """Return the head of a class: a layer with a norm, and the last layer behind it."""
    return HeadName(
        classes=(f"ModernBertFor{task}",),
        kind=kind,
        linears=("head.dense", last),
        pooling=None,
        activation="hidden_act",
        norm="head.norm",
        inverts=True,
        may_lack_bias=True,
    )


ROW = Architecture(
    name="modernbert",
    model_types=("modernbert",),
    prefixes=("model",),
    layers=(
        Layers(
            path="layers.{i}",
            sublayers=(
                Sublayer(
                    role="attention",
                    path="attn",
                    output="attn.Wo",
                    residual="attn",
                    stream="attn_norm",
                    inner="mlp_norm",
                    adapters="attention_adapters",
                ),
                Sublayer(
                    role="feed_forward",
                    path="mlp",
                    output="mlp.Wo",
                    residual="mlp",
                    stream="mlp_norm",
                    adapters="output_adapters",
                ),
            ),
            norms=("attn_norm", "mlp_norm"),
            may_lack=("attn_norm",),
            attentions=(
                AttentionNames(path="attn", query="attn.Wqkv", key="attn.Wqkv", value="attn.Wqkv", output="attn.Wo"),
            ),
            feed_forward=FeedForwardNames(intermediate="mlp.Wi", output="mlp.Wo"),
        ),
    ),
    norms=("embeddings.norm", "final_norm"),
    embeddings=(EmbeddingNames(path="embeddings", tokens="embeddings.tok_embeddings"),),
    heads=(
        head("SequenceClassification", "classification"),
        head("TokenClassification", "tagging"),
        head("QuestionAnswering", "question_answering"),
        head("MaskedLM", "masked_lm", "decoder"),
    ),
)
