"""Super-tuning: the largest (or smallest) entries of a weight are trained, with a low-rank update beside if wanted.

    D = S + (alpha / r) B A,      S: outputs × inputs with n = (1 - sparsity) · outputs · inputs entries

The adapter holds the entries and their places, counted along the rows of W.

Source: PEFT 0.21.2, tuners/supertuning (config.py, layer.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import UsageError
from ..sites import Linear
from .method import Shapes
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class SupertuningConfig(UpdatingConfig):
    """How many entries, and the rank beside them.

    Attributes:
        sparsity: share of the entries that stay as they are.
        largest: whether the entries are chosen among the largest, rather than the smallest.
        r: rank of the update beside them, None for none.
        alpha: numerator of its scale; None is twice the rank.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "supertuning"

    sparsity: float = 0.995
    largest: bool = True
    r: int | None = None
    alpha: float | None = None
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [] if self.r is None else bounds(r=self.r)
        return faults if 0 <= self.sparsity < 1 else [*faults, "sparsity must lie in [0, 1)"]

    def count(self, entries: int) -> int:
        """Return how many of so many entries are trained."""
        return int(entries * (1 - self.sparsity))


def shapes(config: SupertuningConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UsageError: nothing would be trained.
    """
    count = config.count(linear.outputs * linear.inputs)
    if not count:
        raise UsageError(f"a sparsity of {config.sparsity} leaves no entry of {linear.path} to train")
    found: Shapes = {"supertuning_values": (count,), "supertuning_indices": (count,)}
    if config.r is not None:
        found |= {"supertuning_lora_A": (config.r, linear.inputs), "supertuning_lora_B": (linear.outputs, config.r)}
    return found


def start(config: SupertuningConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: no change, at the largest or smallest entries of W."""
    import torch
    from torch.nn import init

    if name == "supertuning_indices":
        size = base(f"{linear.path}.weight").detach().abs().flatten()
        return size.topk(shape[0], largest=config.largest).indices.to(torch.int32)
    if name == "supertuning_lora_A":
        return init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
    return torch.zeros(shape)


def delta(config: SupertuningConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    values = own["supertuning_values"].to(weight.dtype)
    flat = values.new_zeros(linear.outputs * linear.inputs)
    found = flat.scatter_add(0, own["supertuning_indices"].long(), values).view(linear.outputs, linear.inputs)
    if config.r is None:
        return found
    scale = 2.0 if config.alpha is None else config.alpha / config.r
    update = own["supertuning_lora_B"] @ own["supertuning_lora_A"] * scale
    return found + update.to(weight.dtype)


def seen(config: SupertuningConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with as many entries to train; only those with a low-rank update tell their sizes."""
    values = own.get("supertuning_values", ())
    if len(values) != 1:
        return None
    a, b = own.get("supertuning_lora_A", ()), own.get("supertuning_lora_B", ())
    if len(a) == len(b) == 2:
        return Linear(path=path, inputs=a[1], outputs=b[0])
    about = int(values[0] / (1 - config.sparsity))
    entries = next((n for n in range(max(1, about - 2), about + 8) if config.count(n) == values[0]), 0)
    return Linear(path=path, inputs=entries, outputs=1) if entries else None


METHOD = method(
    Rule(
        config=SupertuningConfig,
        presets={"supertuning": SupertuningConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        sized=False,
        frozen=("supertuning_indices",),
        places=lambda config, linear: {"supertuning_indices": (linear.outputs * linear.inputs,)},
        kinds=("linear",),
    )
)
