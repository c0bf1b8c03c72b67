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
names as in `adapters` 1.3.0, methods/modeling.py. What a site computes stands in bottleneck_form.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError, UsageError
from ..sites import Layout, Site
from .activations import NAMES, WITH_WEIGHTS, known
from .bottleneck_form import Bottleneck
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

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
