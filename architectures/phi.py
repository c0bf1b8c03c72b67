"""Phi (Gunasekar et al. 2023), a decoder whose attention and feed-forward block run side by side.

In `adapters` no residual stream enters the feed-forward site: with `original_ln_before` the adapter reads d there.
A parallel adapter, which `adapters` cannot place there, reads the stream with the attention's output in it as in GPT-J.
"""

from __future__ import annotations

from . import llama
from .architecture import Architecture, AttentionNames, FeedForwardNames, Layers, Sublayer

ROW = Architecture(
    name="phi",
    model_types=("phi",),
    prefixes=("model",),
    layers=(
        Layers(
            path="layers.{i}",
            sublayers=(
                Sublayer(
                    role="attention",
                    path="self_attn",
                    output="self_attn.dense",
                    residual="input_layernorm",
                    adapters="attention_adapters",
                ),
                Sublayer(
                    role="feed_forward",
                    path="mlp",
                    output="mlp.fc2",
                    residual="input_layernorm",
                    beside="self_attn.dense",
                    adapters="output_adapters",
                    summed=False,
                ),
            ),
            norms=("input_layernorm",),
            attentions=(
                AttentionNames(
                    path="self_attn",
                    query="self_attn.q_proj",
                    key="self_attn.k_proj",
                    value="self_attn.v_proj",
                    output="self_attn.dense",
                ),
            ),
            feed_forward=FeedForwardNames(intermediate="mlp.fc1", output="mlp.fc2"),
            positions="rotary_emb",
        ),
    ),
    norms=("final_layernorm",),
    embeddings=(llama.EMBEDDINGS,),
    heads=llama.heads("Phi", question_answering=False, inverts=True),
    reads="last",
)
