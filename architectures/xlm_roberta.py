"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa under another model type; `adapters` writes its keys with `roberta.`."""

from __future__ import annotations

import dataclasses

from . import roberta

ROW = dataclasses.replace(
    roberta.ROW, name="xlm-roberta", model_types=("xlm-roberta",), heads=roberta.heads("XLMRoberta")
)
