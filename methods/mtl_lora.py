"""MTL-LoRA: LoRA with a matrix for each task between A and several B, which a task weighs (Yang et al. 2024).

    y = W x + b + s · g(x) · Σ_k p_k B_k Λ A x,      p = softmax(w / τ), A: r × inputs, B_k: outputs × r, s = alpha / r

Several tasks may share A and the B_k; Λ and w are those of one task. Λ is a diagonal (`singular_values`) or any matrix
(`linear`). The gate is that of methods/low_rank.py.

Sources: Yang et al. 2024 (arXiv 2410.09437) §3.2; `adapters` 1.3.0, methods/lora.py, for what its files mean. There the
class behind `linear` cannot be made, so that no file of it has such a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError
from ..sites import Layout, Linear
from .config import Config
from .lora import alpha_faults, rank_faults
from .low_rank import check, operation
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .targets import Target, chosen, widths

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_UPS = 1024


@dataclass(frozen=True, kw_only=True)
class MtlLoraConfig(Config):
    """Where the updates stand and how they are scaled.

    Attributes:
        targets: projections, module paths, or `all-linear`; see methods/targets.py.
        r: the rank.
        alpha: the numerator of the scale.
        ups: how many B there are.
        task_matrix: what Λ is.
        sharpness: τ; the smaller, the more the largest of w counts.
        leave_out: layers without.
        dropout: probability, on the input of A, while training.
        gating: multiply the update by the mean over the tokens of sigmoid(w·x + b), one number per example.
        init_weights: `lora` A uniform after Kaiming, `bert` A N(0, 0.02²); B is zero in both.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "mtl_lora"
    sets: ClassVar[tuple[str, ...]] = ("targets",)

    targets: tuple[str, ...] = ("query", "value")
    r: int = 8
    alpha: float = 8.0
    ups: int = 1
    task_matrix: Literal["singular_values", "linear"] = "singular_values"
    sharpness: float = 0.05
    leave_out: tuple[int, ...] = ()
    dropout: float = 0.0
    gating: bool = False
    init_weights: Literal["lora", "bert"] = "lora"
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [*rank_faults({"r": self.r}), *alpha_faults({"alpha": self.alpha})]
        if not self.targets:
            faults.append("targets is empty")
        if not 1 <= self.ups <= MOST_UPS:
            faults.append(f"ups is {self.ups}, expected 1 to {MOST_UPS}")
        if not 1e-6 <= abs(self.sharpness) <= 1e6:
            faults.append(f"sharpness is {self.sharpness}, expected 1e-6 to 1e6")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        return faults

    @property
    def scale(self) -> float:
        """The scale s."""
        return self.alpha / self.r


def places(config: MtlLoraConfig, layout: Layout) -> list[Target]:
    """Return the maps that are adapted.

    Raises:
        UsageError: a name means nothing in the layout.
        UnsupportedError: one of them is no map that MTL-LoRA can act on.
    """
    targets = chosen(config.targets, layout, leave_out=config.leave_out)
    for target in targets:
        if target.linear.kind not in ("linear", "conv1d"):
            raise UnsupportedError(f"MTL-LoRA has no meaning at {target.path}, which is a {target.linear.kind}")
        if target.parts:
            raise UnsupportedError(
                f"MTL-LoRA is defined for whole maps, and {target.path} is targeted in parts",
                hint=f"name the module {target.path} in targets",
            )
        check(target, r=config.r, gating=config.gating, magnitude="none")
    return targets


def shapes(config: MtlLoraConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    return {
        f"{target.path}.{name}": shape
        for target in places(config, layout)
        for name, shape in _own_shapes(config, target.linear).items()
    }


def _own_shapes(config: MtlLoraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    r = config.r
    found: Shapes = {
        "mtl_A": (r, linear.inputs),
        "mtl_B": (config.ups, linear.outputs, r),
        "mtl_weights": (config.ups,),
        "mtl_task": (r,) if config.task_matrix == "singular_values" else (r, r),
    }
    if config.gating:
        found |= {"mtl_gate.weight": (1, linear.inputs), "mtl_gate.bias": (1,)}
    return found


def initial(config: MtlLoraConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: an update of zero, Λ the identity, all B of the same weight."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return {key: _start(config, key, shape, generator) for key, shape in shapes(config, layout).items()}


def _start(config: MtlLoraConfig, key: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch
    from torch.nn import init

    name = key.rpartition(".mtl_")[2]
    if name == "task" and len(shape) == 2:
        return torch.eye(shape[0])
    if name in ("task", "weights"):
        return torch.ones(shape)
    tensor = torch.zeros(shape)
    if name == "A" and config.init_weights == "lora":
        return init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
    return tensor.normal_(std=0.02, generator=generator) if name in ("A", "gate.weight") else tensor


def bind(config: MtlLoraConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all maps, on the given tensors themselves, so that training reaches them."""
    ops: dict[str, LinearOp] = {}
    for target in places(config, live.layout):
        own = {name: tensors[f"{target.path}.{name}"] for name in _own_shapes(config, target.linear)}
        ops[target.path] = operation(
            Weighted(own["mtl_A"], own["mtl_B"], own["mtl_task"], own["mtl_weights"], config.sharpness),
            target,
            live,
            {name.removeprefix("mtl_"): tensor for name, tensor in own.items()},
            scale=config.scale,
            dropout=config.dropout,
        )
    return Binding(linears=ops)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A, and Σ_k p_k B_k Λ, at one map."""

    a: Tensor
    ups: Tensor
    task: Tensor
    weights: Tensor
    sharpness: float

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that they are made of."""
        return self.a, self.ups, self.task, self.weights

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return both."""
        import torch

        b = torch.tensordot((self.weights / self.sharpness).softmax(0), self.ups, dims=1)
        return self.a, b * self.task if self.task.ndim == 1 else b @ self.task


def facts(config: MtlLoraConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the linear maps that the shapes of A and B describe."""
    found = {}
    for key, a in have.items():
        path, _, name = key.rpartition(".")
        b = have.get(f"{path}.mtl_B", ())
        if name == "mtl_A" and len(a) == 2 and len(b) == 3:
            found[path] = Linear(path=path, roles=roles(path), inputs=a[1], outputs=b[1])
    return Facts(widths=widths(found.values()), linears=found, left_out=config.leave_out)


METHOD = Method(
    config=MtlLoraConfig,
    presets={"mtl_lora": MtlLoraConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    alone=lambda config: True,
)
