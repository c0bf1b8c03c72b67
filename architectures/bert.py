"""BERT (Devlin et al. 2019), a post-norm encoder, or a decoder with cross-attention inside an encoder-decoder.

`adapters` counts the cross-attention among the sites of attention: `mh_adapter` places a bottleneck there too.
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


def attention_sublayer(path: str) -> Sublayer:
    """Return the sublayer of an attention block, with the residual connection and norm in its module `output`."""
    return Sublayer(
        role="attention",
        path=f"{path}.output",
        output=f"{path}.output.dropout",
        residual=path,
        norm=f"{path}.output.LayerNorm",
        adapters=f"{path}.output",
    )


def attention_names(path: str, *, prefix: str, cross: bool = False) -> AttentionNames:
    """Return the names of an attention with its projections in a module `self`."""
    return AttentionNames(
        path=f"{path}.self",
        query=f"{path}.self.query",
        key=f"{path}.self.key",
        value=f"{path}.self.value",
        output=f"{path}.output.dense",
        prefix=prefix,
        cross=cross,
    )


LAYERS = Layers(
    path="encoder.layer.{i}",
    sublayers=(
        attention_sublayer("attention"),
        attention_sublayer("crossattention"),
        Sublayer(
            role="feed_forward",
            path="output",
            output="output.dropout",
            residual="intermediate",
            norm="output.LayerNorm",
            adapters="output",
        ),
    ),
    norms=("attention.output.LayerNorm", "crossattention.output.LayerNorm", "output.LayerNorm"),
    attentions=(
        attention_names("attention", prefix="self_prefix"),
        attention_names("crossattention", prefix="cross_prefix", cross=True),
    ),
    feed_forward=FeedForwardNames(intermediate="intermediate.dense", output="output.dense"),
    may_lack=("crossattention",),
    positions="embeddings.position_embeddings",
)

EMBEDDINGS = EmbeddingNames(path="embeddings", tokens="embeddings.word_embeddings", lengthens=True, sees_padding=True)


def token_heads(name: str, *, pooled: bool = True) -> tuple[HeadName, ...]:
    """Return the heads of one linear layer that most encoders have; pooled: with a choice on the pooler's output.

    name: what the family's classes begin with.
    """
    heads = (
        HeadName(classes=(f"{name}ForTokenClassification",), kind="tagging", linears=("classifier",)),
        HeadName(classes=(f"{name}ForQuestionAnswering",), kind="question_answering", linears=("qa_outputs",)),
    )
    if not pooled:
        return heads
    choice = HeadName(
        classes=(f"{name}ForMultipleChoice",), kind="multiple_choice", linears=("classifier",), pooling="pooler"
    )
    return (choice, *heads)


def prediction_head(kind: str, *classes: str) -> HeadName:
    """Return the head over the vocabulary that BERT has in its module `cls`."""
    return HeadName(
        classes=classes,
        kind=kind,
        linears=("cls.predictions.transform.dense", "cls.predictions.decoder"),
        activation="hidden_act",
        norm="cls.predictions.transform.LayerNorm",
        bias=("cls.predictions.decoder.bias", "cls.predictions.bias"),
    )


ROW = Architecture(
    name="bert",
    model_types=("bert",),
    prefixes=("bert",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    heads=(
        HeadName(classes=("BertForSequenceClassification",), linears=("classifier",), pooling="pooler"),
        *token_heads("Bert"),
        prediction_head("masked_lm", "BertForMaskedLM"),
        prediction_head("causal_lm", "BertLMHeadModel"),
    ),
    pooler="pooler",
)
