"""ELECTRA (Clark et al. 2020): the layers of BERT behind embeddings of their own size."""

from __future__ import annotations

import dataclasses

from .architecture import Architecture, HeadName
from .bert import EMBEDDINGS, LAYERS, token_heads

ROW = Architecture(
    name="electra",
    model_types=("electra",),
    prefixes=("electra",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(dataclasses.replace(EMBEDDINGS, width=("embedding_size",), sees_padding=False),),
    heads=(
        HeadName(
            classes=("ElectraForSequenceClassification",),
            linears=("classifier.dense", "classifier.out_proj"),
            pooling="first",
            activation="gelu",
        ),
        HeadName(
            classes=("ElectraForMultipleChoice",),
            kind="multiple_choice",
            linears=("sequence_summary.summary", "classifier"),
            pooling="first",
            activation="gelu",
        ),
        *token_heads("Electra", pooled=False),
        *(
            HeadName(
                classes=(name,),
                kind=kind,
                linears=("generator_predictions.dense", "generator_lm_head"),
                activation="gelu",
                norm="generator_predictions.LayerNorm",
            )
            for kind, name in (("masked_lm", "ElectraForMaskedLM"), ("causal_lm", "ElectraForCausalLM"))
        ),
    ),
)
