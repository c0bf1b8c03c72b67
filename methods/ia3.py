"""(IA)³: vectors that scale what linear maps put out, or what they read (Liu et al. 2022).

    y = g(x) · α · l ∘ (W x + b)          outputs
    y = W (l ∘ x) + b                     inputs

In the paper l scales keys and values, and what the second map of a feed-forward block reads. With `outputs` the bias
is scaled too; a factor α and the gate g (UniPELT, Mao et al. 2022) are optional there. Of a map that computes query,
key and value side by side, l has the chosen parts one after the other; the others are multiplied by `rest`.

Sources: Liu et al. 2022 (arXiv 2205.05638) §3.3; Mao et al. 2022 (arXiv 2110.07577) §3.2; `adapters` 1.3.0,
methods/lora.py (outputs only), and PEFT 0.21.2, tuners/ia3, for what their files mean.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UnsupportedError
from ..sites import Layout, Linear
from .config import Config
from .linear_maps import gates
from .lora import alpha_faults
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .rows import along
from .targets import Target, at, check_names, chosen, whole, widths

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .method import Apply


@dataclass(frozen=True, kw_only=True)
class IA3Config(Config):
    """What is scaled.

    Attributes:
        targets: maps whose output is scaled: projections, module paths, or `all-linear`; see methods/targets.py.
        inputs: maps whose input is scaled, named alike.
        alpha: a factor on the outputs.
        alphas: module path or projection → its own alpha.
        rest: factor of the parts of a map that it computes beside the chosen ones.
        leave_out: layers without.
        gating: multiply by the mean over the tokens of sigmoid(w·x + b), one number per example and part.
        init_weights_seed: seed of the gates' start values, or None for torch's global generator; vectors start at 1.
    """

    method: ClassVar[str] = "ia3"
    sets: ClassVar[tuple[str, ...]] = ("targets", "inputs")

    targets: tuple[str, ...] = ("key", "value")
    inputs: tuple[str, ...] = ("output",)
    alpha: float = 1.0
    alphas: Mapping[str, float] = field(default_factory=dict)
    rest: float = 1.0
    leave_out: tuple[int, ...] = ()
    gating: bool = False
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        alphas = {"alpha": self.alpha, "rest": self.rest}
        faults = alpha_faults(alphas | {f"alphas[{name!r}]": alpha for name, alpha in self.alphas.items()})
        if not (self.targets or self.inputs):
            faults.append("targets and inputs are empty")
        return faults

    def factor(self, linear: Linear) -> float:
        """Return alpha at a map."""
        return at(self.alphas, linear, self.alpha)


def places(config: IA3Config, layout: Layout) -> tuple[list[Target], list[Target]]:
    """Return the maps whose outputs, and those whose inputs are scaled.

    Raises:
        UsageError: a name means nothing in the layout.
        UnsupportedError: the input of one of them cannot be scaled.
    """
    outputs = chosen(config.targets, layout, leave_out=config.leave_out) if config.targets else []
    inputs = chosen(config.inputs, layout, leave_out=config.leave_out) if config.inputs else []
    check_names(config.alphas, outputs)
    for target in inputs:
        if target.linear.kind == "embedding":
            raise UnsupportedError(f"{target.path} is an embedding, whose input are ids: they cannot be scaled")
        if target.parts:
            raise UnsupportedError(
                f"{target.path} computes several projections from one input",
                hint=f"name the module {target.path} in inputs",
            )
    for target in outputs:
        if config.gating and target.linear.kind not in ("linear", "conv1d"):
            raise UnsupportedError(f"a gate has no meaning at {target.path}, which is a {target.linear.kind}")
    return outputs, inputs


def shapes(config: IA3Config, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    outputs, inputs = places(config, layout)
    found: Shapes = {}
    for target in outputs:
        parts = max(1, len(target.parts))
        found[f"{target.path}.ia3_outputs"] = (parts * target.part_size,)
        if config.gating:
            found[f"{target.path}.ia3_gate.weight"] = (parts, target.linear.inputs)
            found[f"{target.path}.ia3_gate.bias"] = (parts,)
    return found | {f"{target.path}.ia3_inputs": (target.linear.inputs,) for target in inputs}


def initial(config: IA3Config, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: vectors of ones."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return {key: _start(key, shape, generator) for key, shape in shapes(config, layout).items()}


def _start(key: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch

    if key.endswith(".ia3_gate.weight"):
        return torch.zeros(shape).normal_(std=0.02, generator=generator)
    return torch.zeros(shape) if key.endswith(".ia3_gate.bias") else torch.ones(shape)


def bind(config: IA3Config, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all maps, on the given tensors themselves, so that training reaches them."""
    outputs, inputs = places(config, live.layout)
    ops: dict[str, LinearOp] = {}
    for path, target in {target.path: target for target in (*inputs, *outputs)}.items():
        gated = config.gating and target in outputs
        ops[path] = Scaling(
            target,
            outputs=tensors.get(f"{path}.ia3_outputs"),
            inputs=tensors.get(f"{path}.ia3_inputs"),
            gate=(tensors[f"{path}.ia3_gate.weight"], tensors[f"{path}.ia3_gate.bias"]) if gated else None,
            alpha=config.factor(target.linear),
            rest=config.rest,
        )
    return Binding(linears=ops)


class Scaling:
    """Vectors around one map."""

    __slots__ = ("alpha", "gate", "inputs", "outputs", "rest", "target")

    def __init__(
        self,
        target: Target,
        *,
        outputs: Tensor | None,
        inputs: Tensor | None,
        gate: tuple[Tensor, Tensor] | None,
        alpha: float,
        rest: float,
    ) -> None:
        self.target = target
        self.outputs = outputs
        self.inputs = inputs
        self.gate = gate
        self.alpha = alpha
        self.rest = rest

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        y = forward(x if self.inputs is None else x * self._along(self.inputs).to(x.dtype))
        if self.outputs is None:
            return y
        gate = None if self.gate is None else gates(x, self.gate)
        return y * self._along(self._factor(self.outputs, gate)).to(y.dtype)

    @property
    def alike(self) -> Hashable:
        """What scalings must have in common to be computed at once, or None where that cannot be; see rows.py."""
        plain = self.gate is None and not self.target.linear.kernel
        return ("scaling", self.target.path) if plain else None

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        gate = self.gate or ()
        return tuple(t for t in (self.inputs, self.outputs, *gate) if t is not None)

    def stacked(self, rows: Sequence[Scaling | None]) -> RowsScaling:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        return RowsScaling(rows)

    @property
    def factor(self) -> Tensor | None:
        """What the whole output is multiplied by (outputs,), or None."""
        return None if self.outputs is None else self._factor(self.outputs, None)

    @property
    def chains(self) -> bool:
        """Whether `adapters` puts it into compositions; see method.Chainable."""
        return self.inputs is None and not self.target.parts

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return h, or 1, times the vector and the gate (…, outputs); see method.Chainable."""
        if self.outputs is None:
            raise UnsupportedError(f"the (IA)³ at {self.target.path} scales no outputs")
        gate = None if self.gate is None else gates(x, self.gate)
        factor = self._factor(self.outputs, gate).expand(*x.shape[:-1], -1)
        return factor if h is None else h * factor

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y times the last change; see method.Chainable."""
        return y * change

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weight with its columns scaled, then weight and bias with their rows scaled."""
        if self.gate is not None:
            raise UnsupportedError(
                f"the (IA)³ at {self.target.path} has a gate, which depends on the input: no weight computes the same"
            )
        if self.inputs is not None:
            groups = self.target.linear.groups
            by_group = weight.view(groups, -1, *weight.shape[1:])
            columns = self.inputs.to(weight.dtype).view(groups, 1, -1, *(1,) * (weight.ndim - 2))
            weight = (by_group * columns).view(weight.shape)
        if self.outputs is None:
            return weight, bias
        rows = self._factor(self.outputs.to(weight.dtype), None)
        return weight * rows.view(-1, *(1,) * (weight.ndim - 1)), None if bias is None else bias * rows

    def _factor(self, vector: Tensor, gate: Tensor | None) -> Tensor:
        """Return what the whole output is multiplied by (outputs,), or (…, 1, outputs) with a gate (…, 1, parts)."""
        import torch

        vector = vector if self.alpha == 1 else vector * self.alpha
        parts = self.target.parts
        if not parts:
            return vector if gate is None else vector * gate
        chunks = vector.chunk(len(parts))
        if gate is not None:
            chunks = tuple(chunk * one for chunk, one in zip(chunks, gate.split(1, -1), strict=True))
        rest = torch.full_like(chunks[0], self.rest)
        own = dict(zip(parts, chunks, strict=True))
        return torch.cat([own.get(place, rest) for place in range(len(self.target.linear.roles))], dim=-1)

    def _along(self, vector: Tensor) -> Tensor:
        """Return a vector in the shape in which it multiplies inputs or outputs."""
        kernel = self.target.linear.kernel
        return vector.view(-1, *(1,) * len(kernel)) if kernel else vector


class RowsScaling:
    """Vectors around one map, others for each row of a batch."""

    __slots__ = ("inputs", "outputs")

    def __init__(self, rows: Sequence[Scaling | None]) -> None:
        self.inputs = _filled([None if op is None else op.inputs for op in rows])
        self.outputs = _filled([None if op is None else op.factor for op in rows])

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (rows, …, outputs)."""
        y = forward(x if self.inputs is None else x * along(self.inputs, x).to(x.dtype))
        return y if self.outputs is None else y * along(self.outputs, y).to(y.dtype)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from row to row."""
        raise UnsupportedError("several adapters for the rows of one batch cannot be merged into one weight")


def _filled(vectors: Sequence[Tensor | None]) -> Tensor | None:
    """Return vectors (rows, size) with ones where there is none, or None where no row has one."""
    import torch

    present = [vector for vector in vectors if vector is not None]
    if not present:
        return None
    return torch.stack([torch.ones_like(present[0]) if vector is None else vector for vector in vectors])


def facts(config: IA3Config, have: Shapes, roles: Roles) -> Facts:
    """Return the linear maps that the sizes of vectors and gates describe; what nothing says is 0."""
    found = {}
    for key in have:
        path, _, name = key.rpartition(".")
        if name in ("ia3_outputs", "ia3_inputs"):
            rows = have.get(f"{path}.ia3_outputs", ())[:1]
            columns = have.get(f"{path}.ia3_inputs", ())[:1] or have.get(f"{path}.ia3_gate.weight", ())[1:2]
            outputs = whole(path, rows[0], config.targets, roles) if rows else 0
            found[path] = Linear(path=path, roles=roles(path), inputs=columns[0] if columns else 0, outputs=outputs)
    return Facts(widths=widths(found.values()), linears=found, left_out=config.leave_out)


METHOD = Method(config=IA3Config, presets={"ia3": IA3Config()}, shapes=shapes, initial=initial, bind=bind, facts=facts)
