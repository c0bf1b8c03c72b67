"""VeRA: low-rank updates from one pair of random matrices that all maps share (Kopiczko et al. 2024).

    y = W x + b + s · g(x) · Λ_b B Λ_d A x,      A: r × inputs, B: outputs × r

A and B are the same for every map and stay as they are; each map trains Λ_d and Λ_b:

    form="vectors"     the diagonals of Λ_d (r,) and Λ_b (outputs,); a map takes the first columns of A and the first
                       rows of B, as many as it has inputs and outputs (the paper; PEFT)
    form="matrices"    Λ_d (r, r) and Λ_b (outputs, outputs) as they are; all maps have the same size (`adapters`)

The paper and PEFT have s = 1, `adapters` alpha / r. Gate and magnitude (DVoRA: VeRA with DoRA's magnitude) are those
of methods/low_rank.py.

Sources: Kopiczko et al. 2024 (arXiv 2310.11454) §3; `adapters` 1.3.0, methods/lora.py, and PEFT 0.21.2, tuners/vera,
for what their files mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError
from ..sites import Layout, Linear
from .config import Config
from .dora import Magnitude
from .linear_maps import magnitudes
from .lora import alpha_faults, rank_faults
from .low_rank import check, operation
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .targets import Target, chosen, widths

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARED_A, SHARED_B = "shared.vera_A", "shared.vera_B"


@dataclass(frozen=True, kw_only=True)
class VeraConfig(Config):
    """Where the updates stand and how they are scaled.

    Attributes:
        targets: projections, module paths, or `all-linear`; see methods/targets.py.
        r: the rank.
        alpha: the numerator of the scale alpha / r, or None for a scale of 1.
        form: what Λ_d and Λ_b are.
        leave_out: layers without.
        dropout: probability, on the input of A, while training.
        gating: multiply the update by the mean over the tokens of sigmoid(w·x + b), one number per example.
        magnitude: `none`; `dora` as in the paper; `dora_adapters` as in `adapters`.
        d_initial: what Λ_d starts with on its diagonal.
        b_initial: what Λ_b starts with on its diagonal.
        init_weights_seed: seed of A and B and of the gates' start values, or None for torch's global generator.
        projection_seed: what A and B are drawn with whenever the adapter is bound, None where they are its tensors;
            PEFT may leave them out of its files.
    """

    method: ClassVar[str] = "vera"
    sets: ClassVar[tuple[str, ...]] = ("targets",)

    targets: tuple[str, ...] = ("query", "value")
    r: int = 256
    alpha: float | None = None
    form: Literal["vectors", "matrices"] = "vectors"
    leave_out: tuple[int, ...] = ()
    dropout: float = 0.0
    gating: bool = False
    magnitude: Magnitude = "none"
    d_initial: float = 0.1
    b_initial: float = 0.0
    init_weights_seed: int | None = None
    projection_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        numbers = {"alpha": self.alpha or 0.0, "d_initial": self.d_initial, "b_initial": self.b_initial}
        faults = [*rank_faults({"r": self.r}), *alpha_faults(numbers)]
        if not self.targets:
            faults.append("targets is empty")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        if self.gating and self.magnitude == "dora":
            faults.append("gating excludes magnitude 'dora'")
        return faults

    @property
    def scale(self) -> float:
        """The scale s."""
        return 1.0 if self.alpha is None else self.alpha / self.r


def places(config: VeraConfig, layout: Layout) -> list[Target]:
    """Return the maps that are adapted.

    Raises:
        UsageError: a name means nothing in the layout.
        UnsupportedError: one of them is no map that this form of VeRA can act on.
    """
    targets = chosen(config.targets, layout, leave_out=config.leave_out)
    for target in targets:
        linear, first = target.linear, targets[0].linear
        if linear.kind not in ("linear", "conv1d"):
            raise UnsupportedError(f"VeRA has no meaning at {target.path}, which is a {linear.kind}")
        if target.parts:
            raise UnsupportedError(
                f"VeRA is defined for whole maps, and {target.path} is targeted in parts",
                hint=f"name the module {target.path} in targets",
            )
        if config.form == "matrices" and (linear.inputs, linear.outputs) != (first.inputs, first.outputs):
            raise UnsupportedError(
                f"one pair of matrices cannot serve {first.path} ({first.outputs} × {first.inputs}) and {linear.path} "
                f"({linear.outputs} × {linear.inputs})",
                hint="target maps of one size, or take form=vectors",
            )
        check(target, r=config.r, gating=config.gating, magnitude=config.magnitude)
    return targets


def shapes(config: VeraConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    targets, r = places(config, layout), config.r
    found: Shapes = {}
    if targets and config.projection_seed is None:
        found[SHARED_A], found[SHARED_B] = _projection_shapes(targets, r)
    for target in targets:
        found |= {f"{target.path}.{name}": shape for name, shape in _own_shapes(config, target.linear).items()}
    return found


def _projection_shapes(targets: Sequence[Target], r: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of A and B."""
    inputs = max(target.linear.inputs for target in targets)
    return (r, inputs), (max(target.linear.outputs for target in targets), r)


def _own_shapes(config: VeraConfig, linear: Linear) -> Shapes:
    """Return parameter name → shape at one map."""
    dimensions = 1 if config.form == "vectors" else 2
    found: Shapes = {"vera_d": (config.r,) * dimensions, "vera_b": (linear.outputs,) * dimensions}
    if config.gating:
        found |= {"vera_gate.weight": (1, linear.inputs), "vera_gate.bias": (1,)}
    if config.magnitude != "none":
        found["vera_magnitude"] = (linear.outputs,)
    return found


def initial(config: VeraConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: an update of zero where b_initial is 0; magnitudes are norms of rows."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    sizes = shapes(config, layout)
    if SHARED_A in sizes:
        found[SHARED_A], found[SHARED_B] = projections(sizes[SHARED_A], sizes[SHARED_B], generator)
    for target in places(config, layout):
        for name, shape in _own_shapes(config, target.linear).items():
            if name == "vera_magnitude":
                found[f"{target.path}.{name}"] = magnitudes(base(f"{target.path}.weight"), target.linear)
            else:
                found[f"{target.path}.{name}"] = _start(config, name, shape, generator)
    return found


def projections(a: tuple[int, ...], b: tuple[int, ...], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return random A and B of these shapes, float32: uniform after Kaiming, in the order in which PEFT draws them."""
    import torch
    from torch.nn import init

    first, second = (init.kaiming_uniform_(torch.empty(shape), generator=generator) for shape in (a, b))
    return first, second


def _start(config: VeraConfig, name: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch

    if name in ("vera_d", "vera_b"):
        diagonal = torch.full(shape[:1], config.d_initial if name == "vera_d" else config.b_initial)
        return diagonal if len(shape) == 1 else diagonal.diag()
    tensor = torch.zeros(shape)
    return tensor.normal_(std=0.02, generator=generator) if name == "vera_gate.weight" else tensor


def bind(config: VeraConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all maps, on the given tensors themselves, so that training reaches them."""
    ops: dict[str, LinearOp] = {}
    targets = places(config, live.layout)
    shared = _projections(config, targets, tensors)
    for target in targets:
        linear = target.linear
        own = {name: tensors[f"{target.path}.{name}"] for name in _own_shapes(config, linear)}
        ops[target.path] = operation(
            Scaled(*shared, own["vera_d"], own["vera_b"], linear.inputs, linear.outputs),
            target,
            live,
            {name.removeprefix("vera_"): tensor for name, tensor in own.items()},
            scale=config.scale,
            dropout=config.dropout,
            magnitude=config.magnitude,
        )
    return Binding(linears=ops)


def _projections(config: VeraConfig, targets: Sequence[Target], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and B: the adapter's tensors, or what its seed draws."""
    import torch

    if config.projection_seed is None:
        return tensors[SHARED_A], tensors[SHARED_B]
    like = tensors[f"{targets[0].path}.vera_b"]
    generator = torch.Generator().manual_seed(config.projection_seed)
    a, b = projections(*_projection_shapes(targets, config.r), generator)
    return a.to(like), b.to(like)


@dataclass(frozen=True, slots=True)
class Scaled:
    """A, and Λ_b B Λ_d, at one map."""

    a: Tensor
    b: Tensor
    inner: Tensor
    outer: Tensor
    inputs: int
    outputs: int

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that they are made of."""
        return self.a, self.b, self.inner, self.outer

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return both, cut to the map's size."""
        # Drawn ones are no parameters, so that they do not follow where the model is moved.
        a, b = self.a[:, : self.inputs].to(self.inner), self.b[: self.outputs].to(self.inner)
        if self.inner.ndim == 1:
            return a, b * self.inner * self.outer.unsqueeze(1)
        return a, self.outer @ (b @ self.inner)


def facts(config: VeraConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the linear maps that the shapes describe; those that read less than the widest are not told apart."""
    inputs = have.get(SHARED_A, ())[1:2] or (0,)
    found = {}
    for key, shape in have.items():
        path, _, name = key.rpartition(".")
        if name == "vera_b" and shape:
            found[path] = Linear(path=path, roles=roles(path), inputs=inputs[0], outputs=shape[0])
    known = found.values() if config.form == "matrices" else ()
    return Facts(widths=widths(known), linears=found, left_out=config.leave_out)


def frozen(config: VeraConfig, key: str) -> bool:
    """Return whether a tensor is one of the shared random matrices."""
    return key in (SHARED_A, SHARED_B)


METHOD = Method(
    config=VeraConfig,
    presets={"vera": VeraConfig(), "dvora": VeraConfig(magnitude="dora")},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    frozen=frozen,
    # Diagonals do not tell the inputs of maps that read less than the widest one.
    alone=lambda config: config.form == "matrices" and config.magnitude == "none",
)
