"""Mistral 7B (Jiang et al. 2023): the layers of Llama, also in what `adapters` calls them."""

from __future__ import annotations

import dataclasses

from . import llama

ROW = dataclasses.replace(
    llama.ROW, name="mistral", model_types=("mistral",), prefixes=("model",), heads=llama.heads("Mistral")
)
