"""BertGeneration (Rothe et al. 2020): BERT without token types and pooler, as encoder or decoder of text generation."""

from __future__ import annotations

import dataclasses

from .architecture import Architecture, HeadName
from .bert import EMBEDDINGS, LAYERS

ROW = Architecture(
    name="bert-generation",
    model_types=("bert-generation",),
    prefixes=("bert",),
    layers=(LAYERS,),
    norms=("embeddings.LayerNorm",),
    embeddings=(dataclasses.replace(EMBEDDINGS, sees_padding=False),),
    heads=(
        HeadName(
            classes=("BertGenerationDecoder",),
            kind="causal_lm",
            linears=("lm_head.decoder",),
            bias=("lm_head.decoder.bias", "lm_head.bias"),
        ),
    ),
)
