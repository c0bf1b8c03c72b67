"""Compacter: bottleneck adapters whose projections are sums of Kronecker products (Karimi Mahabadi et al. 2021).

A projection from k to l values with a PHM layer (Zhang et al. 2021) is

    y = x H + b,     H = Σ_i A_i ⊗ W_i,     A_i: n × n,  W_i: k/n × l/n,  i = 1 … n

where each W_i may be a product of two factors of low rank (`factorized_phm_W`), each rule A_i one of two vectors
(`factorized_phm_rule`), and rules and W may be shared by all sites. Everything else is a bottleneck (bottleneck.py),
with the dense weight Hᵀ.

Sources: Karimi Mahabadi et al. 2021 (arXiv 2106.04647) §3; Zhang et al. 2021 (arXiv 2102.08597) §3; start values as in
`adapters` 1.3.0, methods/modeling.py, but for `hypercomplex_nonlinearity`, which acts as it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError, UsageError
from ..sites import Layout, Site
from .bottleneck import BottleneckConfig, around, check, start
from .bottleneck_form import Bottleneck, BottleneckForm
from .derived import Derived
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .bottleneck_form import Projection

MOST_PARTS = 256
MOST_RANKS = 65_536


@dataclass(frozen=True, kw_only=True)
class CompacterConfig(BottleneckConfig):
    """A bottleneck with PHM layers; names and defaults of the further fields are those of `adapters`' BnConfig.

    Attributes:
        phm_dim: n, which must divide the hidden size and the size of the bottleneck.
        phm_rank: rank of the factors of W.
        factorized_phm_W: whether W is a product of two factors.
        shared_W_phm: one W for all down projections, and one for all up projections.
        shared_phm_rule: the same rules for all projections.
        factorized_phm_rule: whether the rules are products of vectors.
        phm_c_init: start values of the rules: `normal` N(0, phm_init_range²), or `uniform`; 0.01 where not shared.
        phm_init_range: that deviation, and that of W with `normal`.
        learn_phm: whether the rules are trained.
        hypercomplex_nonlinearity: start values of W: Glorot's normal or uniform ones, or `normal`; `phm` is Glorot's
            normal.
        phm_bias: whether the projections have a bias.
    """

    method: ClassVar[str] = "compacter"

    phm_dim: int = 4
    phm_rank: int = 1
    factorized_phm_W: bool = True  # noqa: N815
    shared_W_phm: bool = False  # noqa: N815
    shared_phm_rule: bool = True
    factorized_phm_rule: bool = False
    phm_c_init: Literal["normal", "uniform"] = "normal"
    phm_init_range: float = 1e-4
    learn_phm: bool = True
    hypercomplex_nonlinearity: Literal["phm", "glorot-normal", "glorot-uniform", "normal"] = "glorot-uniform"
    phm_bias: bool = True

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = super().faults()
        for name, most in (("phm_dim", MOST_PARTS), ("phm_rank", MOST_RANKS)):
            if not 1 <= getattr(self, name) <= most:
                faults.append(f"{name} is {getattr(self, name)}, expected 1 to {most}")
        if not 0 <= self.phm_init_range < math.inf:
            faults.append(f"phm_init_range must be finite and not negative, got {self.phm_init_range!r}")
        if self.init_weights != "bert":
            faults.append(f"init_weights {self.init_weights!r} is not defined for PHM layers, write 'bert'")
        return faults


def shapes(config: CompacterConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UsageError: n divides a size not.
        UnsupportedError: tensors are to be shared by sites of different sizes.
    """
    check(config, layout)
    sites = [site for site in layout.sites if config.takes(site)]
    # Of an adapter that shares everything no key names a layer; where the model is not at hand, there is none then.
    found = _shared_shapes(config, sites if layout.layers else [_anywhere(layout.width)])
    for site in sites:
        own = around(config, site.width, _own_shapes(config, site))
        found |= {f"{site.path}.{name}": shape for name, shape in own.items()}
    return found


def _own_shapes(config: CompacterConfig, site: Site) -> Shapes:
    """Return parameter name → shape of the projections at a site, without what is shared."""
    found: Shapes = {}
    for name, inputs, outputs in _projections(config, site):
        if not config.shared_W_phm:
            found |= _weight_shapes(config, name, inputs, outputs)
        if not config.shared_phm_rule:
            found |= _rule_shapes(config, f"{name}.rule")
        if config.phm_bias:
            found[f"{name}.bias"] = (outputs,)
    return found


def _shared_shapes(config: CompacterConfig, sites: Sequence[Site]) -> Shapes:
    """Return canonical key → shape of what all sites share."""
    if not sites or not (config.shared_W_phm or config.shared_phm_rule):
        return {}
    widths = sorted({site.width for site in sites})
    if widths[1:]:
        raise UnsupportedError(
            f"the model has parts of different hidden sizes ({', '.join(map(str, widths))}), and Compacter shares"
            " weights among parts of one size only",
            hint="set shared_phm_rule and shared_W_phm to false, or leave layers out",
        )
    found: Shapes = {}
    if config.shared_phm_rule:
        found |= _rule_shapes(config, "shared.phm_rule")
    if config.shared_W_phm:
        if len({config.bottleneck(site) for site in sites}) > 1:
            raise UsageError("shared_W_phm needs bottlenecks of one size", hint="give one reduction_factor")
        for name, inputs, outputs in _projections(config, sites[0]):
            found |= _weight_shapes(config, f"shared.{name}", inputs, outputs)
    return found


def _anywhere(width: int) -> Site:
    return Site(path="shared", role="feed_forward", layer=0, width=width, output="", residual="")


def _projections(config: CompacterConfig, site: Site) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """Return name, inputs and outputs of both projections."""
    n, width, m = config.phm_dim, site.width, config.bottleneck(site)
    if width % n or m % n:
        raise UsageError(
            f"phm_dim {n} must divide the hidden size {width} and the bottleneck's size {m} at {site.path}",
            hint="change phm_dim or reduction_factor",
        )
    return ("phm_down", width, m), ("phm_up", m, width)


def _weight_shapes(config: CompacterConfig, name: str, inputs: int, outputs: int) -> Shapes:
    n, k, rows, columns = config.phm_dim, config.phm_rank, inputs // config.phm_dim, outputs // config.phm_dim
    if config.factorized_phm_W:
        return {f"{name}.W_left": (n, rows, k), f"{name}.W_right": (n, k, columns)}
    return {f"{name}.W": (n, rows, columns)}


def _rule_shapes(config: CompacterConfig, name: str) -> Shapes:
    n = config.phm_dim
    if config.factorized_phm_rule:
        return {f"{name}_left": (n, n, 1), f"{name}_right": (n, 1, n)}
    return {name: (n, n, n)}


def initial(config: CompacterConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: near the identity."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return {key: _start(config, key, shape, generator) for key, shape in shapes(config, layout).items()}


def _start(config: CompacterConfig, key: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    import torch

    name = key.rpartition(".")[2]
    if name.startswith(("rule", "phm_rule")):
        shared = key.startswith("shared.")
        if config.phm_c_init == "uniform":
            bound = 1.0 if shared else 0.01
            return torch.zeros(shape).uniform_(-bound, bound, generator=generator)
        return torch.zeros(shape).normal_(std=config.phm_init_range if shared else 0.01, generator=generator)
    if name in ("W", "W_left", "W_right"):
        return torch.stack([_start_weight(config, part, generator) for part in torch.zeros(shape)])
    return start(config.init_weights, key, shape, generator)


def _start_weight(config: CompacterConfig, part: Tensor, generator: torch.Generator | None) -> Tensor:
    from torch.nn import init

    rule = config.hypercomplex_nonlinearity
    if rule == "normal":
        return part.normal_(std=config.phm_init_range, generator=generator)
    if rule == "glorot-uniform":
        return init.xavier_uniform_(part, generator=generator)
    return init.xavier_normal_(part, generator=generator)


def facts(config: CompacterConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the widths that the tensors speak for, those that all sites share included."""
    votes = []
    for key, shape in have.items():
        name = key.removeprefix("shared.").rpartition("phm_")[2]
        if name in ("down.W", "down.W_left") and len(shape) == 3:
            votes.append(shape[0] * shape[1])
        elif name in ("up.W", "up.W_right") and len(shape) == 3:
            votes.append(shape[0] * shape[2])
        elif name == "up.bias" and shape:
            votes.append(shape[0])
    return Facts(widths=tuple(votes), left_out=config.leave_out)


def frozen(config: CompacterConfig, key: str) -> bool:
    """Return whether a tensor stays as it is in training."""
    return not config.learn_phm and key.rpartition(".")[2].startswith(("rule", "phm_rule"))


def bind(config: CompacterConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all sites, on the given tensors themselves, so that training reaches them."""
    ops = {}
    shared = {key.removeprefix("shared."): tensor for key, tensor in tensors.items() if key.startswith("shared.")}
    for site in live.layout.sites:
        if config.takes(site):
            names = around(config, site.width, _own_shapes(config, site))
            own = {name: tensors[f"{site.path}.{name}"] for name in names}
            ops[site.path] = PhmBottleneck(config, {**shared, **own}, live.mode, site)
    return Binding(sites=ops)


class Phm(Derived):
    """The dense weight Hᵀ (outputs, inputs) of one projection."""

    __slots__ = ("bias", "rule", "weight")
    is_cheap = True

    def __init__(self, rule: tuple[Tensor, ...], weight: tuple[Tensor, ...], bias: Tensor | None) -> None:
        super().__init__((*rule, *weight))
        self.rule = rule
        self.weight = weight
        self.bias = bias

    def computed(self) -> Tensor:
        """Return Σ_i (A_i ⊗ W_i)ᵀ."""
        import torch

        a = torch.bmm(*self.rule) if len(self.rule) == 2 else self.rule[0]
        w = torch.bmm(*self.weight) if len(self.weight) == 2 else self.weight[0]
        n, rows, columns = w.shape
        # Entry (i, j) of the rules times entry (p, q) of the parts belongs in row p of block i, column q of block j.
        blocks = (a.reshape(n, n * n).t() @ w.reshape(n, -1)).view(n, n, rows, columns)
        return blocks.permute(1, 3, 0, 2).reshape(n * columns, n * rows)


class PhmBottleneck(BottleneckForm):
    """The operation at one site."""

    __slots__ = ("maps",)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the factors of the projections."""
        self.maps = (_phm(tensors, "phm_down"), _phm(tensors, "phm_up"))

    @property
    def down(self) -> Projection:
        """Weight and bias of the down projection."""
        return self.maps[0](), self.maps[0].bias

    @property
    def up(self) -> Projection:
        """Weight and bias of the up projection."""
        return self.maps[1](), self.maps[1].bias

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        projections = [tensor for phm in self.maps for tensor in (*phm.sources, phm.bias) if tensor is not None]
        return (*projections, *self.around)

    def stacked(self, rows: Sequence[PhmBottleneck | None]) -> Bottleneck:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        return self.plain().stacked([None if op is None else op.plain() for op in rows])

    def plain(self) -> Bottleneck:
        """Return the bottleneck with the dense weights as they are now, which computes the same."""
        found = Bottleneck.__new__(Bottleneck)
        for name in BottleneckForm.__slots__:
            setattr(found, name, getattr(self, name))
        found.down, found.up = _with_bias(*self.down), _with_bias(*self.up)
        return found


def _phm(tensors: Mapping[str, Tensor], name: str) -> Phm:
    rules = [f"{name}.rule", f"{name}.rule_left", f"{name}.rule_right", "phm_rule", "phm_rule_left", "phm_rule_right"]
    rule = tuple(tensors[key] for key in rules if key in tensors)
    weight = tuple(tensors[f"{name}.{key}"] for key in ("W", "W_left", "W_right") if f"{name}.{key}" in tensors)
    return Phm(rule, weight, tensors.get(f"{name}.bias"))


def _with_bias(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias


_COMPACTER = CompacterConfig(mh_adapter=True, output_adapter=True, reduction_factor=32, non_linearity="gelu")

METHOD = Method(
    config=CompacterConfig,
    presets={
        "compacter": _COMPACTER,
        "compacter++": CompacterConfig(
            mh_adapter=False,
            output_adapter=True,
            reduction_factor=32,
            non_linearity="gelu",
            original_ln_before=True,
        ),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    frozen=frozen,
)
