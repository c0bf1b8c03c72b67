"""BART (Lewis et al. 2020), a post-norm encoder-decoder, and PLBART (Ahmad et al. 2021), which has its layers.

The dropout behind a sublayer is no module: while training, an adapter reads d in front of it.
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


def attention(path: str, prefix: str, *, cross: bool = False) -> AttentionNames:
    """Return the names of an attention."""
    return AttentionNames(
        path=path,
        query=f"{path}.q_proj",
        key=f"{path}.k_proj",
        value=f"{path}.v_proj",
        output=f"{path}.out_proj",
        prefix=prefix,
        cross=cross,
    )


SELF_ATTENTION = Sublayer(
    role="attention",
    path="self_attn",
    output="self_attn.out_proj",
    residual="self_attn",
    norm="self_attn_layer_norm",
    adapters="attention_adapters",
)

CROSS_ATTENTION = Sublayer(
    role="cross_attention",
    path="encoder_attn",
    output="encoder_attn.out_proj",
    residual="encoder_attn",
    norm="encoder_attn_layer_norm",
    adapters="cross_attention_adapters",
)

FEED_FORWARD = Sublayer(
    role="feed_forward",
    path="fc2",
    output="fc2",
    residual="fc1",
    norm="final_layer_norm",
    adapters="output_adapters",
)

ENCODER = Layers(
    path="encoder.layers.{i}",
    sublayers=(SELF_ATTENTION, FEED_FORWARD),
    norms=("self_attn_layer_norm", "final_layer_norm"),
    attentions=(attention("self_attn", "encoder_prefix"),),
    feed_forward=FeedForwardNames(intermediate="fc1", output="fc2"),
    width="d_model",
    heads=("encoder_attention_heads",),
    query_heads="encoder_attention_heads",
)

DECODER = dataclasses.replace(
    ENCODER,
    path="decoder.layers.{i}",
    sublayers=(SELF_ATTENTION, CROSS_ATTENTION, FEED_FORWARD),
    norms=("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    attentions=(attention("self_attn", "self_prefix"), attention("encoder_attn", "cross_prefix", cross=True)),
    heads=("decoder_attention_heads",),
    query_heads="decoder_attention_heads",
    positions="decoder.embed_positions",
)

EMBEDDINGS = EmbeddingNames(
    path="encoder.layernorm_embedding",
    tokens="encoder.embed_tokens",
    width=("d_model",),
    stack="encoder",
    adapters="encoder",
    model="encoder",
    reader="decoder",
)


def heads(name: str, *, question_answering: bool = True) -> tuple[HeadName, ...]:
    """Return the heads of the classes that begin with name."""
    found = (
        HeadName(
            classes=(f"{name}ForSequenceClassification",),
            linears=("classification_head.dense", "classification_head.out_proj"),
            pooling="eos",
            activation="tanh",
        ),
        HeadName(
            classes=(f"{name}ForConditionalGeneration",),
            kind="seq2seq_lm",
            linears=("lm_head",),
            bias=("final_logits_bias",),
            bias_row=True,
        ),
        HeadName(classes=(f"{name}ForCausalLM",), kind="causal_lm", linears=("lm_head",)),
    )
    if not question_answering:
        return found
    return (
        *found,
        HeadName(classes=(f"{name}ForQuestionAnswering",), kind="question_answering", linears=("qa_outputs",)),
    )


BART = Architecture(
    name="bart",
    model_types=("bart",),
    prefixes=("model",),
    layers=(ENCODER, DECODER),
    norms=("encoder.layernorm_embedding", "decoder.layernorm_embedding"),
    embeddings=(EMBEDDINGS,),
    heads=heads("Bart"),
    may_lack=("encoder", "decoder"),
    reads="eos",
)

PLBART = dataclasses.replace(
    BART, name="plbart", model_types=("plbart",), heads=heads("PLBart", question_answering=False), wraps=True
)
