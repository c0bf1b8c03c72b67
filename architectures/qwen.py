"""Qwen2 (Yang et al. 2024) and Qwen3 (Yang et al. 2025): the layers of Llama.

Here `adapters` calls the linear layers of the feed-forward block what they are.
"""

from __future__ import annotations

import dataclasses

from . import llama

QWEN2 = dataclasses.replace(
    llama.ROW,
    name="qwen2",
    model_types=("qwen2",),
    prefixes=("model", "transformer"),
    heads=llama.heads("Qwen2", inverts=True),
    swapped=False,
)

QWEN3 = dataclasses.replace(
    QWEN2,
    name="qwen3",
    model_types=("qwen3",),
    layers=(dataclasses.replace(llama.LAYERS, norms=(*llama.LAYERS.norms, "self_attn.q_norm", "self_attn.k_norm")),),
    heads=llama.heads("Qwen3", inverts=True),
)
