"""Merging adapters with each other, comparing them, and taking a LoRA out of a fine-tuned model.

It works on Adapter values; the base model is needed only where an update depends on its weights. A new method is a file
with a pure function and a row of METHODS (table.py).
"""

from __future__ import annotations

from .combination import Combination, Options
from .comparison import Comparison, MapDifference, TensorDifference, compare
from .extraction import Extracted, Whole, extract
from .keeping import Keeper
from .lora import Site
from .merge import Merged, merge
from .request import KnownBase, Request, Source
from .table import METHODS, by_name

__all__ = [
    "METHODS",
    "Combination",
    "Comparison",
    "Extracted",
    "Keeper",
    "KnownBase",
    "MapDifference",
    "Merged",
    "Options",
    "Request",
    "Site",
    "Source",
    "TensorDifference",
    "Whole",
    "by_name",
    "compare",
    "extract",
    "merge",
]
