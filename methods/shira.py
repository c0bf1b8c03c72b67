"""SHiRA: a few entries of a weight are trained, the others stay (Bhardwaj et al. 2024).

    D[p] = v,      p: 2 × n places (row, column), v: n values, n = r (inputs + outputs)

Source: Bhardwaj et al. 2024 (arXiv 2406.13175) §3; PEFT 0.21.2, tuners/shira/layer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..sites import Linear
from .method import Shapes
from .updating import Added, Base, Rule, UpdatingConfig, bounds, method

if TYPE_CHECKING:
    from torch import Tensor

    from .updating import Own


@dataclass(frozen=True, kw_only=True)
class ShiraConfig(UpdatingConfig):
    """How many entries.

    Attributes:
        r: the rank of a low-rank update with as many parameters.
        dropout: probability, on the input of the update, while training.
    """

    method: ClassVar[str] = "shira"

    r: int = 32
    dropout: float = 0.0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        return bounds(r=self.r)


def shapes(config: ShiraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    count = config.r * (linear.inputs + linear.outputs)
    return {"shira_weight": (count,), "shira_indices": (2, count)}


def start(config: ShiraConfig, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: zeros at places that are drawn at random."""
    import torch

    if name == "shira_weight":
        return torch.zeros(shape)
    places = torch.randperm(linear.inputs * linear.outputs)[: shape[1]].sort().values
    return torch.stack([places // linear.inputs, places % linear.inputs]).to(torch.int32)


def delta(config: ShiraConfig, own: Own, linear: Linear, weight: Tensor) -> Tensor:
    """Return D (outputs, inputs)."""
    values, places = own["shira_weight"], own["shira_indices"].long()
    dense = values.new_zeros((linear.outputs, linear.inputs))
    return dense.index_put((places[0], places[1]), values, accumulate=True)


def seen(config: ShiraConfig, path: str, own: Shapes) -> Linear | None:
    """Return a map with as many parameters; the shapes do not tell inputs from outputs."""
    values = own.get("shira_weight", ())
    total = values[0] // config.r if len(values) == 1 else 0
    return Linear(path=path, inputs=total - 1, outputs=1) if total > 1 else None


def places(config: ShiraConfig, linear: Linear) -> Mapping[str, tuple[int, ...]]:
    """Return what rows and columns are below; a map with one output is one that shapes alone describe, see seen."""
    return {} if linear.outputs == 1 else {"shira_indices": (linear.outputs, linear.inputs)}


METHOD = method(
    Rule(
        config=ShiraConfig,
        presets={"shira": ShiraConfig()},
        shapes=shapes,
        start=start,
        op=partial(Added, delta),
        seen=seen,
        sized=False,
        frozen=("shira_indices",),
        places=places,
        kinds=("linear",),
    )
)
