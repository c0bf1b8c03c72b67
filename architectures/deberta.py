"""DeBERTa (He et al. 2021): the layers of BERT with an attention of its own.

The first version computes queries, keys and values in one module, whose rows are ordered by heads. `adapters` splits
them into thirds all the same; what it calls the query adapts the first third of the rows.
"""

from __future__ import annotations

import dataclasses

from .architecture import Architecture, AttentionNames, HeadName
from .bert import EMBEDDINGS, LAYERS, attention_sublayer, prediction_head, token_heads

LAYERS_WITHOUT_CROSS = dataclasses.replace(
    LAYERS,
    sublayers=(attention_sublayer("attention"), LAYERS.sublayers[-1]),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    may_lack=(),
    form="deberta",
    positions=None,
)


def attention(query: str, key: str, value: str) -> AttentionNames:
    """Return the names of the attention, with those of the projections relative to it."""
    return AttentionNames(
        path="attention.self",
        query=f"attention.self.{query}",
        key=f"attention.self.{key}",
        value=f"attention.self.{value}",
        output="attention.output.dense",
    )


def heads(name: str) -> tuple[HeadName, ...]:
    """Return the heads of the classes that begin with name; the pooler is a part of them."""
    pooled = ("pooler.dense", "classifier")
    return (
        HeadName(classes=(f"{name}ForSequenceClassification",), linears=pooled, pooling="first", activation="gelu"),
        *token_heads(name, pooled=False),
        prediction_head("masked_lm", f"{name}ForMaskedLM"),
    )


ROW = Architecture(
    name="deberta",
    model_types=("deberta",),
    prefixes=("deberta",),
    layers=(dataclasses.replace(LAYERS_WITHOUT_CROSS, attentions=(attention("in_proj", "in_proj", "in_proj"),)),),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    unasked=("encoder.rel_embeddings",),
    heads=heads("Deberta"),
)
