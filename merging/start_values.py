"""The random numbers that PEFT has drawn for the start values of the result before it drops anything.

With the seed that was set in front of `add_weighted_adapter`, PEFT first makes a LoRA at every map, and only then draws
masks; to drop the same entries as it does, the same numbers have to be passed over.

Source: PEFT 0.21.2, tuners/lora/layer.py (update_layer, reset_lora_parameters).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..methods.low_rank import factor_shapes
from ..sites import Linear


def pass_over(linears: Iterable[Linear], rank: int, generator: torch.Generator | None) -> None:
    """Draw what PEFT draws for LoRAs of a rank at linear maps."""
    if generator is None:
        return
    for linear in linears:
        a, b = factor_shapes(linear, rank)
        if linear.kind == "embedding":
            for shape in (a, b, b):
                torch.empty(shape).normal_(generator=generator)
            continue
        # Modules start at random by themselves; A is then drawn once more.
        for shape in (a, b, a):
            torch.empty(shape).uniform_(generator=generator)
