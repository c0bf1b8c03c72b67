"""AdapterFusion (Pfeiffer et al. 2021): attention over the outputs of several adapters at one residual site.

    p = softmax(q W_Qᵀ · (u_i W_Kᵀ) / T) over the adapters i,     output = Σ p_i u_i W_Vᵀ + r

for every token, with u_i the adapters' outputs without their residual connections, q what the last one reads, r its
residual connection. A key's bias is the same for all i and so without effect, and the sums are linear:

    score_i = ((q W_Qᵀ + b_Q) W_K) · u_i,     output = (Σ p_i u_i) W_Vᵀ + r

so three products of d × d are computed, however many adapters there are.

Source: Pfeiffer et al. 2021 (arXiv 2005.00247) §3.2; `adapters` 1.3.0, methods/modeling.py (BertFusion).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..sites import Layout, Role
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn


HOTTEST = 50.0
"""Temperature at the start of the training."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Config):
    """What a fusion layer computes, and where; names and defaults are those of `adapters`.

    Attributes:
        adapters: names of the adapters that it was made for, in order; () where that is not known.
        sites: kinds of sublayers where all its adapters stand.
        leave_out: layers without.
        query, key, value: whether it has these matrices; without one, what would enter it is used.
        query_before_ln: take the query before the sublayer's norm.
        residual_before: add the residual connection to the adapters' outputs, in front of the value matrix.
        temperature: divide the scores by a temperature while training, which falls from 50 to 1 with every step.
        value_before_softmax: the value matrix in front of the weighted sum; the same, but for the residual connection.
        value_initialized: start the value matrix near the identity.
        regularization: draw the value matrix towards the identity while training.
        dropout_prob: on the scores, while training; None is 0.
    """

    method: ClassVar[str] = "fusion"

    adapters: tuple[str, ...] = ()
    sites: tuple[Role, ...] = ("feed_forward",)
    leave_out: tuple[int, ...] = ()
    query: bool = True
    key: bool = True
    value: bool = True
    query_before_ln: bool = False
    residual_before: bool = False
    temperature: bool = False
    value_before_softmax: bool = True
    value_initialized: bool = True
    regularization: bool = True
    dropout_prob: float | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = [] if self.sites else ["sites is empty"]
        if self.dropout_prob is not None and not 0 <= self.dropout_prob < 1:
            faults.append("dropout_prob must lie in [0, 1)")
        return faults


def shapes(config: FusionConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout."""
    found: Shapes = {}
    for site in layout.sites:
        if site.role in config.sites and site.layer not in config.leave_out:
            for name in _matrices(config):
                found[f"{site.path}.fusion_{name}.weight"] = (site.width, site.width)
                if name != "value":
                    found[f"{site.path}.fusion_{name}.bias"] = (site.width,)
            found |= {f"{site.path}.fusion_{name}": shape for name, shape in _unused(config, site.width).items()}
    return found


def _matrices(config: FusionConfig) -> list[str]:
    return [name for name in ("query", "key", "value") if getattr(config, name)]


def _unused(config: FusionConfig, width: int) -> Shapes:
    """Return parameter name → shape of what `adapters` keeps of a layer without matrices, though nothing reads it."""
    return {} if _matrices(config) else {"dense.weight": (1, width), "dense.bias": (1,)}


def initial(config: FusionConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: N(0, 0.02²), and the value matrix as I + 10⁻⁶."""
    import torch

    found = {}
    for key, shape in shapes(config, layout).items():
        tensor = torch.zeros(shape)
        if key.endswith("fusion_value.weight") and config.value_initialized:
            found[key] = tensor.fill_(1e-6).fill_diagonal_(1.0)
        else:
            found[key] = tensor.normal_(std=0.02) if key.endswith(".weight") else tensor
    return found


def facts(config: FusionConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the widths that the matrices speak for."""
    votes = tuple(shape[-1] for key, shape in have.items() if ".fusion_" in key and key.endswith(".weight") and shape)
    return Facts(widths=votes, left_out=config.leave_out)


def bind(config: FusionConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the mixing of every site, on the given tensors themselves."""
    found = {}
    for site in live.layout.sites:
        if site.role in config.sites and site.layer not in config.leave_out:
            start = f"{site.path}.fusion_"
            own = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
            found[site.path] = Mixing(config, own, live.mode, compat=live.compat)
    return Binding(fusions=found)


class Mixing:
    """The attention over adapters at one site."""

    __slots__ = ("compat", "config", "mode", "own", "temperature")

    def __init__(self, config: FusionConfig, own: Mapping[str, Tensor], mode: nn.Module, *, compat: bool) -> None:
        self.config = config
        self.mode = mode
        self.own = own
        self.compat = compat
        self.temperature = HOTTEST

    def __call__(self, query: Tensor, ups: Sequence[Tensor], r: Tensor) -> Tensor:
        """Return Σ p_i u_i W_Vᵀ + r (batch, sequence, width) for a query, the adapters' outputs and residual of it."""
        import torch
        from torch.nn.functional import dropout, linear

        config, own = self.config, self.own
        q = linear(query, own["query.weight"], own["query.bias"]) if config.query else query
        q = q @ own["key.weight"] if config.key else q
        outputs = torch.stack(list(ups), dim=-2)
        scores = (outputs @ q.unsqueeze(-1)).squeeze(-1)
        if config.dropout_prob and self.mode.training:
            scores = dropout(scores, config.dropout_prob)
        weights = (scores / self._heat() if config.temperature else scores).softmax(dim=-1)
        mixed = (weights.unsqueeze(-2) @ outputs).squeeze(-2)
        if config.residual_before:
            mixed = mixed + r
        mixed = linear(mixed, own["value.weight"]) if config.value else mixed
        return mixed if config.residual_before else mixed + r

    @property
    def reads_d(self) -> bool:
        """Whether the query is the sublayer's output, in front of its norm."""
        return self.config.query_before_ln

    def regularisation(self) -> Tensor | None:
        """Return 0.01 ‖I − W_V‖² where the configuration asks for it, to be added to the loss."""
        import torch

        if not (self.config.regularization and self.config.value):
            return None
        value = self.own["value.weight"]
        found: Tensor = 0.01 * (torch.eye(value.shape[0], device=value.device) - value).square().sum()
        return found

    def _heat(self) -> float:
        """Return the temperature of this pass, and let it fall; out of training it is 1, where it ends.

        That of `adapters` begins anew in every process and falls in evaluation too.
        """
        if not (self.mode.training or self.compat):
            return 1.0
        now = self.temperature
        self.temperature = max(now - HOTTEST / 1000, 1.0)
        return now


METHOD = Method(
    config=FusionConfig,
    presets={
        "fusion": FusionConfig(),
        "fusion_static": FusionConfig(value=False, value_initialized=False, regularization=False),
        "fusion_dynamic": FusionConfig(),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    frozen=lambda config, key: ".fusion_dense." in key,
)
