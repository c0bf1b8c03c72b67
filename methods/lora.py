"""LoRA: low-rank updates of linear maps (Hu et al. 2022), rsLoRA (Kalajdzievski 2023), DoRA (Liu et al. 2024).

    y = W x + b + s · g(x) · (B A x + c),      A: r × inputs, B: outputs × r

with s = alpha / r, or alpha / √r where it is rank-stabilised; the gate g (UniPELT, Mao et al. 2022) and the bias c are
optional. DoRA splits the updated weight into a magnitude m and a direction, row by row:

    y = (m / ‖W + s B A‖) · (W x + s B A x) + b                        magnitude="dora" (the paper; PEFT)
    y = (m / ‖W + B A‖) · (W x + b + s B A x)                          magnitude="dora_adapters" (`adapters` 1.3.0)

Of a map that computes query, key and value side by side, a part for each chosen projection: A has their r rows one
after the other, B their outputs. An embedding is a map of one-hot vectors; of a convolution, A is a convolution to r
channels and B one with a kernel of 1.

Sources: Hu et al. 2022 (arXiv 2106.09685) §4.1; Kalajdzievski 2023 (arXiv 2312.03732); Liu et al. 2024 (arXiv
2402.09353) equation 5; Mao et al. 2022 (arXiv 2110.07577) §3.2; `adapters` 1.3.0, methods/lora.py, and PEFT 0.21.2,
tuners/lora, for what their files mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError
from ..sites import Layout, Linear
from .config import Config
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .rows import affine, along, stack
from .targets import Target, chosen

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .method import Apply

MOST_RANKS = 65_536


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Config):
    """Where the updates stand and how they are scaled.

    Attributes:
        targets: projections, module paths, or `all-linear`; see methods/targets.py.
        r: the rank.
        alpha: the numerator of the scale.
        rank_stabilised: divide by √r in place of r.
        ranks: module path or projection → its own r.
        alphas: module path or projection → its own alpha.
        leave_out: layers without.
        dropout: probability, on the input of A, while training.
        gating: multiply the update by the mean over the tokens of sigmoid(w·x + b), one number per example and part.
        magnitude: `none`; `dora` as in the paper and PEFT; `dora_adapters` as in `adapters`.
        update_bias: whether B has a bias c.
        init_weights: `lora` A uniform after Kaiming, B zero; `bert` A N(0, 0.02²), B zero.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "lora"

    targets: tuple[str, ...] = ("query", "value")
    r: int = 8
    alpha: float = 8.0
    rank_stabilised: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    leave_out: tuple[int, ...] = ()
    dropout: float = 0.0
    gating: bool = False
    magnitude: Literal["none", "dora", "dora_adapters"] = "none"
    update_bias: bool = False
    init_weights: Literal["lora", "bert"] = "lora"
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        ranks = [("r", self.r), *((f"ranks[{path!r}]", r) for path, r in self.ranks.items())]
        faults = [f"{name} is {r}, expected 1 to {MOST_RANKS}" for name, r in ranks if not 1 <= r <= MOST_RANKS]
        alphas = [("alpha", self.alpha), *((f"alphas[{path!r}]", a) for path, a in self.alphas.items())]
        faults += [f"{name} is {a}, expected a finite number" for name, a in alphas if not math.isfinite(a)]
        if not self.targets:
            faults.append("targets is empty")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        if self.gating and (self.magnitude != "none" or self.update_bias):
            faults.append("gating goes with neither magnitude nor update_bias")
        return faults

    def rank(self, linear: Linear) -> int:
        """Return r at a map."""
        return next((self.ranks[name] for name in (linear.path, *linear.roles) if name in self.ranks), self.r)

    def scale(self, linear: Linear) -> float:
        """Return s at a map."""
        r = self.rank(linear)
        names = (linear.path, *linear.roles)
        alpha = next((self.alphas[name] for name in names if name in self.alphas), self.alpha)
        return alpha / (math.sqrt(r) if self.rank_stabilised else r)


def shapes(config: LoraConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    found: Shapes = {}
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        found |= {f"{target.path}.{name}": shape for name, shape in target_shapes(config, target).items()}
    return found


def target_shapes(config: LoraConfig, target: Target) -> Shapes:
    """Return parameter name → shape at one map.

    Raises:
        UnsupportedError: the configuration has no meaning for a map of this kind.
    """
    linear, r, parts = target.linear, config.rank(target.linear), max(1, len(target.parts))
    _check(config, target)
    ones = (1,) * len(linear.kernel)
    found: Shapes = {
        "lora_A": (r * parts, linear.inputs // linear.groups, *linear.kernel),
        "lora_B": (parts * target.part_size, r, *ones),
    }
    if config.gating:
        found |= {"lora_gate.weight": (parts, linear.inputs), "lora_gate.bias": (parts,)}
    if config.magnitude != "none":
        found["lora_magnitude"] = (linear.outputs,)
    if config.update_bias:
        found["lora_bias"] = (linear.outputs,)
    return found


def _check(config: LoraConfig, target: Target) -> None:
    if config.gating and target.linear.kind not in ("linear", "conv1d"):
        raise UnsupportedError(f"a gate has no meaning at {target.path}, which is a {target.linear.kind}")
    if target.parts and (config.magnitude != "none" or config.update_bias):
        raise UnsupportedError(
            f"DoRA and a bias of the update are defined for whole maps, and {target.path} is targeted in parts",
            hint=f"name the module {target.path} in targets",
        )


def initial(config: LoraConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: an update of zero; magnitudes are the norms of the base's rows."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = {}
    for target in chosen(config.targets, layout, leave_out=config.leave_out):
        for name, shape in target_shapes(config, target).items():
            found[f"{target.path}.{name}"] = _start(config, name, shape, target, base, generator)
    return found


def _start(
    config: LoraConfig,
    name: str,
    shape: tuple[int, ...],
    target: Target,
    base: Callable[[str], Tensor],
    generator: torch.Generator | None,
) -> Tensor:
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    if name == "lora_magnitude":
        weight = oriented(base(f"{target.path}.weight").detach(), target).float()
        norms: Tensor = weight.flatten(1).norm(dim=1).cpu()
        return norms
    if name == "lora_A" and config.init_weights == "lora":
        return init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
    if name in ("lora_A", "lora_gate.weight"):
        return tensor.normal_(std=0.02, generator=generator)
    return tensor


def bind(config: LoraConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all maps, on the given tensors themselves, so that training reaches them."""
    ops: dict[str, LinearOp] = {}
    for target in chosen(config.targets, live.layout, leave_out=config.leave_out):
        own = {name: tensors[f"{target.path}.{name}"] for name in target_shapes(config, target)}
        if config.gating or target.parts:
            ops[target.path] = PartsUpdate(config, own, target, live.mode)
        elif config.magnitude != "none":
            ops[target.path] = Dora(config, own, target, live)
        else:
            ops[target.path] = Update(config, own, target, live.mode)
    return Binding(linears=ops)


class Update:
    """y + s · (B A x + c) at one map, of any kind."""

    __slots__ = ("a", "b", "c", "config", "mode", "scale", "target")

    def __init__(self, config: LoraConfig, own: Mapping[str, Tensor], target: Target, mode: nn.Module) -> None:
        self.config = config
        self.target = target
        self.mode = mode
        self.scale = config.scale(target.linear)
        self.a, self.b, self.c = own["lora_A"], own["lora_B"], own.get("lora_bias")

    @property
    def alike(self) -> Hashable:
        """What updates must have in common to be computed at once, or None where that cannot be."""
        kind = self.target.linear.kind
        if type(self) is not Update or kind not in ("linear", "conv1d"):
            return None
        return (self.target.path, self.config.dropout, self.c is None)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        return (self.a, self.b) if self.c is None else (self.a, self.b, self.c)

    def stacked(self, rows: Sequence[Update | None]) -> RowsUpdate:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        return RowsUpdate(self, rows)

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        import torch

        y = forward(x)
        h = self.reduced(x)
        if self.target.linear.kind == "convolution":
            return torch.add(y, self._widened(h), alpha=self.scale)
        if self.c is not None:
            y = torch.add(y, self.c, alpha=self.scale)
        # One kernel for the product, the scale and the sum.
        flat = torch.addmm(y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1]), self.b.t(), alpha=self.scale)
        return flat.view(y.shape)

    def reduced(self, x: Tensor) -> Tensor:
        """Return A x (…, r)."""
        from torch.nn import functional

        kind = self.target.linear.kind
        if kind == "embedding":
            return functional.embedding(x, self.a.t())
        if self.config.dropout and self.mode.training:
            x = functional.dropout(x, self.config.dropout)
        if kind == "convolution":
            return _convolve(x, self.a, self.target)
        return functional.linear(x, self.a)

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return s · (B A h + c); see Chainable."""
        from torch.nn.functional import linear

        return linear(self.reduced(x if h is None else h), self.b, self.c) * self.scale

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y with the last change added; see Chainable."""
        return y + change

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + s B A, and b + s c."""
        weight = weight + self.scale * product(self.b, self.a)
        if self.c is None:
            return weight, bias
        c = self.scale * self.c.float()
        return weight, c if bias is None else bias + c

    def _widened(self, h: Tensor) -> Tensor:
        import torch

        dimensions = len(self.target.linear.kernel)
        convolve = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dimensions]
        found: Tensor = convolve(h, self.b, self.c)
        return found


class RowsUpdate:
    """y + s · (B A x + c) with other matrices for each row of a batch; the scales are in B and c."""

    __slots__ = ("a", "b", "c", "dropout", "mode")

    def __init__(self, like: Update, rows: Sequence[Update | None]) -> None:
        self.mode, self.dropout = like.mode, like.config.dropout
        self.a = stack([None if op is None else op.a for op in rows])
        self.b = stack([None if op is None else op.b * op.scale for op in rows])
        biases = [None if op is None or op.c is None else op.c * op.scale for op in rows]
        self.c = None if like.c is None else stack(biases)

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (rows, …, outputs)."""
        import torch
        from torch.nn.functional import dropout

        y = forward(x)
        if self.dropout and self.mode.training:
            x = dropout(x, self.dropout)
        h = affine(x.reshape(x.shape[0], -1, x.shape[-1]), self.a)
        moved = torch.baddbmm(y.reshape(y.shape[0], -1, y.shape[-1]), h, self.b.transpose(1, 2)).view(y.shape)
        return moved if self.c is None else moved + along(self.c, moved)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: one weight cannot hold what differs from row to row."""
        raise UnsupportedError("several adapters for the rows of one batch cannot be merged into one weight")


class PartsUpdate:
    """y + s · g(x) · B A x, part by part, each with a gate of its own where there are gates."""

    __slots__ = ("config", "gate", "mode", "own", "scale", "target")

    def __init__(self, config: LoraConfig, own: Mapping[str, Tensor], target: Target, mode: nn.Module) -> None:
        self.config = config
        self.target = target
        self.mode = mode
        self.own = own
        self.scale = config.scale(target.linear)

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        import torch
        from torch.nn import functional

        y = forward(x)
        gates = None
        if self.config.gating:
            gate = functional.linear(x, self.own["lora_gate.weight"], self.own["lora_gate.bias"])
            gates = gate.sigmoid().mean(dim=-2, keepdim=True)
        if self.config.dropout and self.mode.training:
            x = functional.dropout(x, self.config.dropout)
        pieces = list(y.split(self.target.part_size, dim=-1))
        places = self.target.parts or (0,)
        for i, (place, a, b) in enumerate(zip(places, *self._factors(), strict=True)):
            delta = functional.linear(functional.linear(x, a), b)
            delta = delta if gates is None else delta * gates[..., i : i + 1]
            pieces[place] = torch.add(pieces[place], delta, alpha=self.scale)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W with s B A added to the rows of each part."""
        import torch

        if self.config.gating:
            raise UnsupportedError(
                f"the LoRA at {self.target.path} has a gate, which depends on the input: no weight computes the same"
            )
        pieces = list(weight.split(self.target.part_size))
        for place, a, b in zip(self.target.parts, *self._factors(), strict=True):
            pieces[place] = pieces[place] + self.scale * (b.float() @ a.float())
        return torch.cat(pieces), bias

    def _factors(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        count = max(1, len(self.target.parts))
        return self.own["lora_A"].chunk(count), self.own["lora_B"].chunk(count)


class Dora(Update):
    """The update split into magnitude and direction."""

    __slots__ = ("bias", "m", "weight")

    def __init__(self, config: LoraConfig, own: Mapping[str, Tensor], target: Target, live: Live) -> None:
        super().__init__(config, own, target, live.mode)
        self.m = own["lora_magnitude"]
        self.weight = live.base(f"{target.path}.weight")
        # What the scaling leaves alone.
        keeps_bias = config.magnitude == "dora" and target.linear.bias
        self.bias = live.base(f"{target.path}.bias") if keeps_bias else None

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        ones = (1,) * len(self.target.linear.kernel)
        bias = None if self.bias is None else self.bias.view(-1, *ones)
        factor = self.factor(oriented(self.weight, self.target))

        def unbiased(x: Tensor) -> Tensor:
            return forward(x) if bias is None else forward(x) - bias

        moved = super().__call__(unbiased, x)
        moved = moved * factor.to(moved.dtype).view(-1, *ones)
        return moved if bias is None else moved + bias

    def factor(self, weight: Tensor) -> Tensor:
        """Return m / ‖W + …‖ (outputs,), float32; no gradient flows through the norm, as §4.3 of the paper advises."""
        scale = self.scale if self.config.magnitude == "dora" else 1.0
        with_update = weight.detach().float() + scale * product(self.b, self.a).detach()
        found: Tensor = self.m.float() / with_update.flatten(1).norm(dim=1)
        return found

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the scaled weight; as in `adapters` the bias is scaled too with magnitude `dora_adapters`."""
        factor = self.factor(weight)
        updated, bias = super().merged(weight, bias)
        updated = updated * factor.view(-1, *(1,) * (weight.ndim - 1))
        if bias is None or self.config.magnitude == "dora":
            return updated, bias
        return updated, bias * factor


def product(b: Tensor, a: Tensor) -> Tensor:
    """Return B A in float32, in the shape (outputs, inputs[, kernel])."""
    flat = b.float().flatten(1) @ a.float().flatten(1)
    found: Tensor = flat.view(flat.shape[0], *a.shape[1:])
    return found


def oriented(weight: Tensor, target: Target) -> Tensor:
    """Return a module's weight as (outputs, inputs[, kernel])."""
    return weight.t() if target.linear.kind in ("conv1d", "embedding") else weight


def _convolve(x: Tensor, kernel: Tensor, target: Target) -> Tensor:
    import torch

    linear = target.linear
    convolve = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(linear.kernel)]
    found: Tensor = convolve(x, kernel, None, linear.stride, linear.padding, linear.dilation, linear.groups)
    return found


def facts(config: LoraConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the linear maps that the shapes of A and B describe."""
    found = {}
    for key, a in have.items():
        path, _, name = key.rpartition(".")
        b = have.get(f"{path}.lora_B", ())
        if name != "lora_A" or len(a) < 2 or len(b) < 2:
            continue
        of = roles(path)
        parts = sum(role in config.targets for role in of) if len(of) > 1 and path not in config.targets else 0
        outputs = b[0] * len(of) // parts if parts else b[0]
        kind: Literal["linear", "convolution"] = "convolution" if a[2:] else "linear"
        found[path] = Linear(path=path, roles=of, inputs=a[1], outputs=outputs, kernel=a[2:], kind=kind)
    return Facts(linears=found, left_out=config.leave_out)


METHOD = Method(
    config=LoraConfig,
    presets={
        "lora": LoraConfig(),
        "rslora": LoraConfig(rank_stabilised=True),
        "dora": LoraConfig(magnitude="dora"),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
