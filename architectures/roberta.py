"""RoBERTa (Liu et al. 2019): the layers of BERT; most models with a head have no pooler."""

from __future__ import annotations

from .architecture import Architecture, HeadName
from .bert import EMBEDDINGS, LAYERS, token_heads


def heads(name: str) -> tuple[HeadName, ...]:
    """Return the heads of the classes that begin with name."""
    return (
        HeadName(
            classes=(f"{name}ForSequenceClassification",),
            linears=("classifier.dense", "classifier.out_proj"),
            pooling="first",
            activation="tanh",
        ),
        *token_heads(name),
        *(
            HeadName(
                classes=(f"{name}{suffix}",),
                kind=kind,
                linears=("lm_head.dense", "lm_head.decoder"),
                activation="gelu",
                norm="lm_head.layer_norm",
                bias=("lm_head.decoder.bias", "lm_head.bias"),
            )
            for kind, suffix in (("masked_lm", "ForMaskedLM"), ("causal_lm", "ForCausalLM"))
        ),
    )


ROW = Architecture(
    name="roberta",
    model_types=("roberta",),
    prefixes=("roberta",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    heads=heads("Roberta"),
    pooler="pooler",
)
