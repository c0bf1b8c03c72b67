"""RoBERTa (Liu et al. 2019): the layers of BERT; models with a head have no pooler."""

from __future__ import annotations

from .architecture import Architecture, HeadName
from .bert import EMBEDDINGS, LAYERS

ROW = Architecture(
    name="roberta",
    model_types=("roberta",),
    prefixes=("roberta",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    heads=(
        HeadName(
            classes=("RobertaForSequenceClassification",),
            linears=("classifier.dense", "classifier.out_proj"),
            pooling="first",
            activation="tanh",
        ),
    ),
    pooler="pooler",
)
