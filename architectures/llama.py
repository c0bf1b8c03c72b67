"""Llama (Touvron et al. 2023), a pre-norm decoder with a gated feed-forward block.

`adapters` calls `down_proj` the intermediate layer and `up_proj` the output.
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

LAYERS = Layers(
    path="layers.{i}",
    sublayers=(
        Sublayer(
            role="attention",
            path="self_attn",
            output="self_attn.o_proj",
            residual="input_layernorm",
            adapters="attention_adapters",
        ),
        Sublayer(
            role="feed_forward",
            path="mlp",
            output="mlp.down_proj",
            residual="post_attention_layernorm",
            adapters="output_adapters",
        ),
    ),
    norms=("input_layernorm", "post_attention_layernorm"),
    attentions=(
        AttentionNames(
            path="self_attn",
            query="self_attn.q_proj",
            key="self_attn.k_proj",
            value="self_attn.v_proj",
            output="self_attn.o_proj",
        ),
    ),
    feed_forward=FeedForwardNames(intermediate="mlp.up_proj", gate="mlp.gate_proj", output="mlp.down_proj"),
    positions="rotary_emb",
)

EMBEDDINGS = EmbeddingNames(path="embed_tokens", tokens="embed_tokens")


def heads(name: str, *, question_answering: bool = True, inverts: bool = False) -> tuple[HeadName, ...]:
    """Return the heads of the classes that begin with name; inverts: as in HeadName."""
    found = (
        HeadName(classes=(f"{name}ForSequenceClassification",), linears=("score",), pooling="last"),
        HeadName(classes=(f"{name}ForTokenClassification",), kind="tagging", linears=("score",)),
        HeadName(classes=(f"{name}ForCausalLM",), kind="causal_lm", linears=("lm_head",), inverts=inverts),
    )
    if not question_answering:
        return found
    return (
        *found,
        HeadName(classes=(f"{name}ForQuestionAnswering",), kind="question_answering", linears=("qa_outputs",)),
    )


ROW = Architecture(
    name="llama",
    model_types=("llama",),
    prefixes=("model", "transformer"),
    layers=(LAYERS,),
    norms=("norm",),
    embeddings=(EMBEDDINGS,),
    heads=heads("Llama"),
    swapped=True,
    reads="last",
)
