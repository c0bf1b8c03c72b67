"""Bottleneck adapters: Houlsby et al. 2019, Pfeiffer et al. 2021, He et al. 2022 (parallel), Steitz & Roth 2024.

A sublayer of the base model computes LN(d + x): d its output, x the residual stream that entered it. The adapter is

    f(t) = s · g(t) · up(act(down(LN_b(t)))),     down: d → m, up: m → d, 2md + d + m parameters with the biases

where the norm LN_b, the scale s and the gate g are optional.

Sequential (`is_parallel=False`), with t and the inner residual r chosen by the configuration:

    t = d            or, with original_ln_before, LN(d + x)
    r = d            (residual_before_ln=True), t (False), or d + x ("post_add")
    u = LN_a(f(t)) + r,   or LN_a(f(t) + r) with adapter_residual_before_ln
    output = LN(u + x),   or u without original_ln_after

Parallel: u = LN_a(f(x)) + d, output as above. In pre-norm models LN is left out wherever it stands.

Sources: Houlsby et al. 2019 (arXiv 1902.00751) §2.1 and figure 2; Pfeiffer et al. 2021 (arXiv 2005.00247) §3.2.1;
He et al. 2022 (arXiv 2110.04366) §3.3; Steitz & Roth 2024 (arXiv 2406.06820) for `scaling="channel"`;
names and order of operations as in `adapters` 1.3.0, methods/modeling.py.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UnsupportedError, UsageError
from ..sites import Layout, Site
from .activations import NAMES, WITH_WEIGHTS, function, known
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes
from .rows import affine, along, normalise, selected, stack

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensor = torch.Tensor
    Pair = tuple[Tensor, Tensor]
    Projection = tuple[Tensor, Tensor | None]

WIDEST = 64
"""A bottleneck may be this many times as wide as the model; beyond it the reduction factor must be a mistake."""


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig(Config):
    """Where bottlenecks stand and what they compute; field names and defaults are those of `adapters`' BnConfig.

    Attributes:
        mh_adapter: one after every self-attention.
        output_adapter: one after every feed-forward block.
        cross_adapter: one after every cross-attention.
        reduction_factor: hidden size / bottleneck size; below 1 it widens; or layer index → factor, with "default".
        non_linearity: name of the activation.
        original_ln_before: feed the adapter LN(d + x) in place of d.
        original_ln_after: end with the sublayer's own residual and norm.
        ln_before: a trained norm in front of the down projection.
        ln_after: a trained norm behind the up projection.
        residual_before_ln: what the adapter's own residual connection adds: d, LN(d + x), or d + x.
        adapter_residual_before_ln: add that residual in front of the trained norm behind the up projection.
        is_parallel: read x and add to d.
        scaling: a number, one `learned` number, or one per `channel`.
        use_gating: multiply by the mean over the tokens of sigmoid(w·t + b), one number per example.
        leave_out: layers without adapters.
        dropout: probability, behind the up projection, while training.
        stochastic_depth: probability of leaving out f for a whole example, while training; not in parallel ones.
        init_weights: `bert` N(0, 0.02²); `houlsby` N(0, 0.01²) cut at two deviations; `mam_adapter` zero output.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "bottleneck"

    mh_adapter: bool
    output_adapter: bool
    reduction_factor: float | Mapping[str, float]
    non_linearity: str
    cross_adapter: bool = False
    original_ln_before: bool = False
    original_ln_after: bool = True
    ln_before: bool = False
    ln_after: bool = False
    residual_before_ln: bool | Literal["post_add"] = True
    adapter_residual_before_ln: bool = False
    is_parallel: bool = False
    scaling: float | Literal["learned", "channel"] = 1.0
    use_gating: bool = False
    leave_out: tuple[int, ...] = ()
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    init_weights: Literal["bert", "houlsby", "mam_adapter"] = "bert"
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        factors = self.reduction_factor
        values = list(factors.values()) if isinstance(factors, Mapping) else [factors]
        faults = [f"reduction_factor must be positive and finite, got {v!r}" for v in values if not 0 < v < math.inf]
        if isinstance(factors, Mapping):
            odd = [key for key in factors if key != "default" and not key.isdecimal()]
            faults += [f"reduction_factor has the key {key!r}, expected a layer index or 'default'" for key in odd]
        if not (self.mh_adapter or self.output_adapter or self.cross_adapter):
            faults.append("one of mh_adapter, output_adapter and cross_adapter must be true")
        if self.non_linearity.lower() in WITH_WEIGHTS:
            raise UnsupportedError(
                f"the activation {self.non_linearity!r} has weights of its own, for which a bottleneck has no place"
            )
        if not known(self.non_linearity):
            faults.append(f"non_linearity {self.non_linearity!r} is unknown; known are {', '.join(NAMES)}")
        if self.residual_before_ln == "post_add" and not (self.original_ln_before or self.is_parallel):
            faults.append("residual_before_ln 'post_add' needs original_ln_before")
        for name in ("dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} must lie in [0, 1)")
        return faults

    def takes(self, site: Site) -> bool:
        """Return whether a bottleneck stands at a site."""
        wanted = {
            "attention": self.mh_adapter,
            "feed_forward": self.output_adapter,
            "cross_attention": self.cross_adapter,
        }
        return wanted[site.role] and site.layer not in self.leave_out

    def bottleneck(self, site: Site) -> int:
        """Return m, the size of the bottleneck at a site: max(1, ⌊width / reduction factor⌋).

        Raises:
            UsageError: the factor is missing for this layer, or m is absurdly large.
        """
        factor = self.reduction_factor
        if isinstance(factor, Mapping):
            found = factor.get(str(site.layer), factor.get("default"))
            if found is None:
                raise UsageError(
                    f"reduction_factor names neither layer {site.layer} nor a default", hint="add a 'default' entry"
                )
            factor = found
        m = max(1, int(site.width // factor))
        if m > WIDEST * site.width:
            raise UsageError(
                f"reduction_factor {factor!r} makes a bottleneck of {m} at width {site.width}",
                hint=f"the widest allowed is {WIDEST} times the width",
            )
        return m


def shapes(config: BottleneckConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UnsupportedError: the configuration leaves out a residual connection that the model makes itself.
    """
    check(config, layout)
    return {
        f"{site.path}.{name}": shape
        for site in layout.sites
        if config.takes(site)
        for name, shape in site_shapes(config, site.width, config.bottleneck(site)).items()
    }


def check(config: BottleneckConfig, layout: Layout) -> None:
    """Refuse a configuration that leaves out a residual connection that the model makes itself.

    Raises:
        UnsupportedError: names the site.
    """
    inside = next((site for site in layout.sites if config.takes(site) and site.is_inside), None)
    if inside is not None and not config.original_ln_after:
        raise UnsupportedError(
            f"original_ln_after=false cannot be had at {inside.path}: the model itself goes on behind the adapter there"
        )


def site_shapes(config: BottleneckConfig, width: int, m: int) -> Shapes:
    """Return parameter name → shape at one site of the given width with a bottleneck of size m."""
    projections = {
        "bottleneck_down.weight": (m, width),
        "bottleneck_down.bias": (m,),
        "bottleneck_up.weight": (width, m),
        "bottleneck_up.bias": (width,),
    }
    return around(config, width, projections)


def around(config: BottleneckConfig, width: int, projections: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Return parameter name → shape at one site: its projections, and all that stands around them."""
    found: Shapes = {}
    if config.ln_before:
        found |= _norm_shapes("bottleneck_norm_before", width)
    found |= projections
    if config.ln_after:
        found |= _norm_shapes("bottleneck_norm_after", width)
    if isinstance(config.scaling, str):
        found["bottleneck_scaling"] = (width,) if config.scaling == "channel" else (1,)
    if config.use_gating:
        found |= {"bottleneck_gate.weight": (1, width), "bottleneck_gate.bias": (1,)}
    return found


def _norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def initial(config: BottleneckConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: near the identity, as the configuration's `init_weights` says.

    Source: Houlsby et al. 2019 §3.6 (deviations below 1e-2 are safe); `adapters` 1.3.0 for the other two.
    """
    import torch

    generator = None
    if config.init_weights_seed is not None:
        generator = torch.Generator().manual_seed(config.init_weights_seed)
    return {key: start(config.init_weights, key, shape, generator) for key, shape in shapes(config, layout).items()}


def start(rule: str, key: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Return the start value of one tensor, by its key."""
    import torch
    from torch.nn import init

    tensor = torch.zeros(shape)
    if key.endswith("bottleneck_scaling") or ("_norm_" in key and key.endswith(".weight")):
        return tensor.fill_(1.0)
    if not key.endswith(".weight"):
        return tensor
    if rule == "houlsby" and "gate" not in key:
        return init.trunc_normal_(tensor, std=1e-2, a=-2e-2, b=2e-2, generator=generator)
    if rule == "mam_adapter" and "down" in key:
        return init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
    if rule == "mam_adapter" and "up" in key:
        return tensor
    return tensor.normal_(std=0.02, generator=generator)


def facts(config: BottleneckConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the widths that the tensors speak for."""
    votes = []
    for key, shape in have.items():
        name = key.rpartition(".bottleneck_")[2]
        if name == "down.weight" and len(shape) == 2:
            votes.append(shape[1])
        elif name in ("up.weight", "up.bias") and shape:
            votes.append(shape[0])
    return Facts(widths=tuple(votes), left_out=config.leave_out)


def bind(config: BottleneckConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the operations of all sites, on the given tensors themselves, so that training reaches them."""
    ops = {}
    for site in live.layout.sites:
        if config.takes(site):
            names = site_shapes(config, site.width, config.bottleneck(site))
            parameters = {name: tensors[f"{site.path}.{name}"] for name in names}
            ops[site.path] = Bottleneck(config, parameters, live.mode, site)
    return Binding(sites=ops)


class BottleneckForm:
    """The operation at one site, whatever its projections are made of.

    A plain object with slots: cheap to call, safe to copy, visible to torch.compile.
    """

    __slots__ = (
        "act",
        "applies",
        "config",
        "gate",
        "mode",
        "norm_after",
        "norm_before",
        "post_norm",
        "reads_norm",
        "reads_residual",
        "replaces_norm",
        "residual",
        "scale",
        "scales",
        "shown_residual",
        "subtracts",
        "sums",
    )

    def __init__(self, config: BottleneckConfig, tensors: Mapping[str, Tensor], mode: nn.Module, site: Site) -> None:
        self.config = config
        self.mode = mode
        self.act = function(config.non_linearity)
        self.take(tensors)
        self.gate = _pair(tensors, "bottleneck_gate") if config.use_gating else None
        self.norm_before = _pair(tensors, "bottleneck_norm_before") if config.ln_before else None
        self.norm_after = _pair(tensors, "bottleneck_norm_after") if config.ln_after else None
        self.scales = tensors.get("bottleneck_scaling")
        self.scale = 1.0 if isinstance(config.scaling, str) else float(config.scaling)
        self.applies: Tensor | None = None
        post_norm = site.norm is not None
        self.post_norm = post_norm
        self.sums = config.original_ln_before and site.summed and not config.is_parallel
        self.residual = self.shown_residual = _residual(config) if self.sums else "d"
        self.replaces_norm = post_norm and not config.original_ln_after
        # A pre-norm model adds x to whatever we return; where the configuration wants it left out, we take it off,
        # exactly where the adapter's own residual holds it, by subtraction elsewhere.
        self.subtracts = not post_norm and not config.original_ln_after
        if self.subtracts and not config.is_parallel and self.residual != "d" and not self._norms_residual():
            self.shown_residual = "d"
        has_norm = site.norm is not None or site.inner is not None
        self.reads_norm = has_norm and config.original_ln_before and not config.is_parallel
        self.reads_residual = self.sums or config.is_parallel or self.subtracts

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what the projections are made of from the tensors of the site."""
        raise AssertionError("each kind takes its own")

    @property
    def down(self) -> Projection:
        """Weight (m, width) and bias of the down projection."""
        raise AssertionError("each kind has its own")

    @property
    def up(self) -> Projection:
        """Weight (width, m) and bias of the up projection."""
        raise AssertionError("each kind has its own")

    def __call__(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return what takes the place of d (batch, sequence, width)."""
        if self.shown_residual != self.residual:
            return self._moved(d, x, norm, self.shown_residual)
        return self.ended(self._moved(d, x, norm, self.residual), x)

    def ended(self, u: Tensor, x: Any) -> Tensor:
        """Return u (batch, sequence, width), or u without what the model adds to it although it is not wanted."""
        return u - x if self.subtracts else u

    def within(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return the d (batch, sequence, width) that another adapter takes over from this one."""
        return self._moved(d, x, norm, self.residual)

    def prepared(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the down projection reads, what the own residual connection adds, and d + x where it is needed.

        Each is (batch, sequence, width).
        """
        if self.config.is_parallel:
            return x, d, d
        total = d + x if self.sums else d
        t = norm(total) if self.config.original_ln_before and norm is not None else total
        return t, {"d": d, "t": t, "sum": total}[self.residual], total

    def raw(self, t: Tensor) -> Tensor:
        """Return scale · up(act(down(t))) (batch, sequence, width), which AdapterFusion mixes."""
        u = self._projected(t)
        return u if self.scale == 1.0 else u * self.scale

    def joined(self, t: Tensor, r: Tensor) -> Tensor:
        """Return f(t) and the residual r (batch, sequence, width) together, the norm behind where it belongs."""
        return self._join(self._branch(t), r)

    @property
    def alike(self) -> Hashable:
        """What bottlenecks must have in common to be computed at once: everything but sizes and scales."""
        fields = {**self.config.to_json(), "non_linearity": self.config.non_linearity.lower()}
        for name in ("mh_adapter", "output_adapter", "cross_adapter", "reduction_factor", "leave_out", "scaling"):
            del fields[name]
        return (
            "bottleneck",
            self.post_norm,
            self.sums,
            *(f"{name}={value}" for name, value in fields.items() if "init" not in name),
        )

    @property
    def around(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads besides its projections."""
        pairs = (self.gate, self.norm_before, self.norm_after)
        found = [tensor for pair in pairs if pair is not None for tensor in pair]
        return tuple(found if self.scales is None else [*found, self.scales])

    def _moved(self, d: Tensor, x: Any, norm: Callable[[Tensor], Tensor] | None, residual: str) -> Tensor:
        """Return f and the own residual connection together."""
        config = self.config
        if config.is_parallel:
            u = self._join(self._branch(x), d)
        else:
            t = d + x if self.sums else d
            r = d if residual == "d" else t
            if config.original_ln_before and norm is not None:
                t = norm(t)
            u = self._join(self._branch(t), t if residual == "t" else r)
        return u if self.applies is None else selected(self.applies, u, d)

    def _branch(self, t: Tensor) -> Tensor:
        """Return f(t) without a scale that is a plain number."""
        gate = None if self.gate is None else affine(t, *self.gate).sigmoid().mean(dim=1, keepdim=True)
        u = self._projected(t, drops=self.mode.training)
        return u if gate is None else u * gate

    def _projected(self, t: Tensor, *, drops: bool = False) -> Tensor:
        """Return up(act(down(t))), times scales that are a tensor."""
        if self.norm_before is not None:
            t = normalise(t, self.norm_before)
        u = affine(self.act(affine(t, *self.down)), *self.up)
        if drops:
            u = self._drop(u)
        return u if self.scales is None else u * along(self.scales, u)

    def _join(self, f: Tensor, r: Tensor) -> Tensor:
        """Return f and the residual r together, with the plain scale and the norm behind where they belong."""
        if self.norm_after is None:
            return f.add(r) if self.scale == 1.0 else r.add(f, alpha=self.scale)
        if self._norms_residual():
            return normalise(r.add(f, alpha=self.scale), self.norm_after)
        return normalise(f * self.scale, self.norm_after) + r

    def _norms_residual(self) -> bool:
        config = self.config
        return config.ln_after and config.adapter_residual_before_ln and not config.is_parallel

    def _drop(self, u: Tensor) -> Tensor:
        """Return u with what training leaves out: whole examples, then single values."""
        from torch.nn.functional import dropout

        p = self.config.stochastic_depth
        if p and not self.config.is_parallel:
            kept = u.new_empty((u.shape[0],) + (1,) * (u.ndim - 1)).bernoulli_(1 - p)
            u = u * kept / (1 - p)
        return dropout(u, self.config.dropout) if self.config.dropout else u


class Bottleneck(BottleneckForm):
    """The operation with plain projections."""

    __slots__ = ("down", "up")
    down: Pair
    up: Pair

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights and biases from the tensors of the site."""
        self.down = _pair(tensors, "bottleneck_down")
        self.up = _pair(tensors, "bottleneck_up")

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that the operation reads."""
        return (*self.down, *self.up, *self.around)

    def stacked(self, rows: Sequence[Bottleneck | None]) -> Bottleneck:
        """Return the operation that computes rows[i] on row i of a batch; see rows.Stackable."""
        import torch

        found = copy.copy(self)
        for name in ("down", "up", "gate", "norm_before", "norm_after"):
            if getattr(self, name) is not None:
                pairs = [None if op is None else getattr(op, name) for op in rows]
                setattr(found, name, tuple(stack([None if p is None else p[i] for p in pairs]) for i in (0, 1)))
        if any(op is not None and (op.scales is not None or op.scale != self.scale) for op in rows):
            found.scales, found.scale = stack([None if op is None else op.scaled for op in rows]), 1.0
        exact = self.residual == "d" and self.norm_after is None and not self.subtracts and not self.replaces_norm
        if not exact and any(op is None for op in rows):
            found.applies = torch.tensor([op is not None for op in rows], device=self.up[0].device)
        return found

    @property
    def scaled(self) -> Tensor:
        """Return the scale as a vector (width,)."""
        scales = self.up[1].new_full(self.up[1].shape, self.scale)
        return scales if self.scales is None else scales * self.scales


def _residual(config: BottleneckConfig) -> Literal["d", "t", "sum"]:
    """Return which tensor the adapter's own residual connection adds."""
    if config.residual_before_ln is True or not config.original_ln_before:
        return "d"
    return "sum" if config.residual_before_ln == "post_add" else "t"


def _pair(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


SEQUENTIAL = BottleneckConfig(
    mh_adapter=False, output_adapter=True, reduction_factor=16, non_linearity="relu", original_ln_before=True
)
_PARALLEL = BottleneckConfig(
    mh_adapter=False,
    output_adapter=True,
    reduction_factor=2,
    non_linearity="relu",
    is_parallel=True,
    scaling=4.0,
    init_weights="mam_adapter",
)
DOUBLE = BottleneckConfig(mh_adapter=True, output_adapter=True, reduction_factor=16, non_linearity="swish")
_LEARNED = dataclasses.replace(_PARALLEL, scaling="learned")

METHOD = Method(
    config=BottleneckConfig,
    presets={
        "seq_bn": SEQUENTIAL,
        "pfeiffer": SEQUENTIAL,
        "double_seq_bn": DOUBLE,
        "houlsby": DOUBLE,
        "par_bn": _PARALLEL,
        "parallel": _PARALLEL,
        "scaled_par_bn": _LEARNED,
        "scaled_parallel": _LEARNED,
        "adapter_plus": BottleneckConfig(
            mh_adapter=False,
            output_adapter=True,
            reduction_factor=96,
            non_linearity="gelu",
            original_ln_before=True,
            original_ln_after=False,
            residual_before_ln=False,
            scaling="channel",
            init_weights="houlsby",
            stochastic_depth=0.1,
        ),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
