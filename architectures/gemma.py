"""Gemma 2 and Gemma 3 (Gemma Team 2024, 2025), with norms in front of and behind each sublayer.

A sublayer gives x + LN(d): the norm acts on d before the residual connection. In `adapters` d is the output of the last
projection, so the model's own norm and residual connection follow the adapter. Where a configuration has
`original_ln_before`, the adapter reads LN(d + x), with the norm behind the sublayer *of the last layer* for all layers.

Gemma 3 with images is described as its language model; the maps of its image tower are targets by their paths alone.
"""

from __future__ import annotations

import dataclasses

from . import llama
from .architecture import Architecture, HeadName, Sublayer

LAYERS = dataclasses.replace(
    llama.LAYERS,
    sublayers=(
        Sublayer(
            role="attention",
            path="self_attn",
            output="self_attn.o_proj",
            residual="input_layernorm",
            inner="post_attention_layernorm",
            adapters="attention_adapters",
        ),
        Sublayer(
            role="feed_forward",
            path="mlp",
            output="mlp.down_proj",
            residual="pre_feedforward_layernorm",
            inner="post_feedforward_layernorm",
            adapters="output_adapters",
        ),
    ),
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
)

GEMMA2 = Architecture(
    name="gemma2",
    model_types=("gemma2",),
    prefixes=("model",),
    layers=(LAYERS,),
    norms=("norm",),
    embeddings=(llama.EMBEDDINGS,),
    heads=llama.heads("Gemma2", question_answering=False, inverts=True),
    reads="last",
)

GEMMA3_TEXT = dataclasses.replace(
    GEMMA2,
    name="gemma3_text",
    model_types=("gemma3_text",),
    layers=(dataclasses.replace(LAYERS, norms=(*LAYERS.norms, "self_attn.q_norm", "self_attn.k_norm")),),
    heads=tuple(
        dataclasses.replace(head, classes=(name,))
        for head, name in zip(
            llama.heads("Gemma3Text", question_answering=False, inverts=True)[::2],
            ("Gemma3TextForSequenceClassification", "Gemma3ForCausalLM"),
            strict=True,
        )
    ),
)

GEMMA3 = dataclasses.replace(
    GEMMA3_TEXT,
    name="gemma3",
    model_types=("gemma3",),
    layers=(GEMMA3_TEXT.layers[0].moved("language_model.", config="text_config."),),
    norms=("language_model.norm",),
    embeddings=(),  # what enters the language model are tokens and images
    heads=(HeadName(classes=("Gemma3ForConditionalGeneration",), kind="causal_lm", linears=("lm_head",)),),
    former=(("vision_tower.vision_model", "vision_tower"),),
    older=(("language_model.model", "language_model"),),  # before transformers 4.52
    common=True,
)
