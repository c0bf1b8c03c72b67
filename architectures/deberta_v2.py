"""DeBERTa version 2 and 3 (He et al. 2021, 2023), with one linear map for each of queries, keys and values."""

from __future__ import annotations

import dataclasses

from . import deberta
from .architecture import Architecture, HeadName
from .bert import EMBEDDINGS

ROW = Architecture(
    name="deberta-v2",
    model_types=("deberta-v2",),
    prefixes=("deberta",),
    layers=(
        dataclasses.replace(
            deberta.LAYERS_WITHOUT_CROSS,
            attentions=(deberta.attention("query_proj", "key_proj", "value_proj"),),
            form="deberta_v2",
        ),
    ),
    norms=("embeddings.LayerNorm",),
    embeddings=(EMBEDDINGS,),
    unasked=("encoder.rel_embeddings",),
    heads=(
        *deberta.heads("DebertaV2"),
        HeadName(
            classes=("DebertaV2ForMultipleChoice",),
            kind="multiple_choice",
            linears=("pooler.dense", "classifier"),
            pooling="first",
            activation="gelu",
        ),
    ),
)
