"""T5 (Raffel et al. 2020) and mT5 (Xue et al. 2021), pre-norm encoder-decoders; since version 1.1 gated."""

from __future__ import annotations

import dataclasses

from ..sites import Role
from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
)


def sublayer(number: int, role: Role) -> Sublayer:
    """Return the sublayer that stands at a number in a block; each is a module with its norm and dropout."""
    path = f"layer.{number}"
    return Sublayer(role=role, path=path, output=f"{path}.dropout", residual=f"{path}.layer_norm", adapters=path)


def attention(path: str, prefix: str, *, cross: bool = False) -> AttentionNames:
    """Return the names of an attention."""
    q, k, v, o = (f"{path}.{name}" for name in "qkvo")
    return AttentionNames(path=path, query=q, key=k, value=v, output=o, prefix=prefix, cross=cross)


def feed_forward(number: int) -> FeedForwardNames:
    """Return the linear layers of the feed-forward block at a number."""
    path = f"layer.{number}.DenseReluDense"
    return FeedForwardNames(intermediate=f"{path}.wi_1", gate=f"{path}.wi_0", output=f"{path}.wo", ungated=f"{path}.wi")


ENCODER = Layers(
    path="encoder.block.{i}",
    sublayers=(sublayer(0, "attention"), sublayer(1, "feed_forward")),
    norms=("layer.0.layer_norm", "layer.1.layer_norm"),
    attentions=(attention("layer.0.SelfAttention", "encoder_prefix"),),
    feed_forward=feed_forward(1),
    may_lack=tuple(f"layer.1.DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1")),
    width="d_model",
    heads=("num_heads",),
    query_heads="num_heads",
    head_size="d_kv",
    bias=True,
)

DECODER = dataclasses.replace(
    ENCODER,
    path="decoder.block.{i}",
    sublayers=(sublayer(0, "attention"), sublayer(1, "cross_attention"), sublayer(2, "feed_forward")),
    norms=("layer.0.layer_norm", "layer.1.layer_norm", "layer.2.layer_norm"),
    attentions=(
        attention("layer.0.SelfAttention", "self_prefix"),
        attention("layer.1.EncDecAttention", "cross_prefix", cross=True),
    ),
    feed_forward=feed_forward(2),
    may_lack=tuple(f"layer.2.DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1")),
)


def heads(name: str) -> tuple[HeadName, ...]:
    """Return the heads of the classes that begin with name."""
    return (
        HeadName(
            classes=(f"{name}ForSequenceClassification",),
            linears=("classification_head.dense", "classification_head.out_proj"),
            pooling="eos",
            activation="tanh",
        ),
        HeadName(classes=(f"{name}ForTokenClassification",), kind="tagging", linears=("classifier",)),
        HeadName(
            classes=(f"{name}ForQuestionAnswering",),
            kind="question_answering",
            linears=("qa_outputs",),
            own_base=True,
        ),
        HeadName(classes=(f"{name}ForConditionalGeneration",), kind="seq2seq_lm", linears=("lm_head",), own_base=True),
    )


T5 = Architecture(
    name="t5",
    model_types=("t5",),
    prefixes=("transformer",),
    layers=(ENCODER, DECODER),
    norms=("encoder.final_layer_norm", "decoder.final_layer_norm"),
    embeddings=(
        EmbeddingNames(
            path="encoder.embed_tokens",
            tokens="encoder.embed_tokens",
            width=("d_model",),
            stack="encoder",
            adapters="encoder",
            model="encoder",
            reader="decoder",
        ),
    ),
    heads=heads("T5"),
    may_lack=("decoder",),
    reads="eos",
    scales=True,
)

MT5 = dataclasses.replace(T5, name="mt5", model_types=("mt5",), heads=heads("MT5"))
