"""X-MOD (Pfeiffer et al. 2022): RoBERTa with a small module for each language behind the feed-forward block.

The norm of a layer stands in front of its language module, and behind it again. `adapters` gives a bottleneck after the
attention no norm, although one follows there. It takes the language modules out of the model; an adapter that was made
with it is right only without them.
"""

from __future__ import annotations

import dataclasses

from . import roberta
from .architecture import Architecture, Sublayer
from .bert import EMBEDDINGS, LAYERS, attention_sublayer

ROW = Architecture(
    name="xmod",
    model_types=("xmod",),
    prefixes=("roberta",),
    layers=(
        dataclasses.replace(
            LAYERS,
            sublayers=(
                dataclasses.replace(attention_sublayer("attention"), norm=None),
                dataclasses.replace(attention_sublayer("crossattention"), norm=None),
                Sublayer(
                    role="feed_forward",
                    path="output",
                    output="output.dense",
                    residual="output",
                    argument=1,
                    norm="output.LayerNorm",
                    adapters="output",
                ),
            ),
        ),
    ),
    norms=("embeddings.LayerNorm",),
    embeddings=(dataclasses.replace(EMBEDDINGS, sees_padding=False),),
    heads=roberta.heads("Xmod"),
    pooler="pooler",
    presumes=(("adapter_layer_norm", False), ("adapter_reuse_layer_norm", True), ("ln_before_adapter", True)),
    muted=("encoder.layer.{i}.output.adapter_modules",),
)
