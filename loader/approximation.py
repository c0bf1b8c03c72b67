"""Any change of linear maps as a LoRA: the best one of a rank, by the singular values of what is added to each weight.

    W' = W + D,   D = U S Vᵀ,   B = U_r √S_r,   A = √S_r V_rᵀ        (methods/factoring.py)

What is left out is a part √(Σ_{i>r} s_i²) / √(Σ s_i²) of D, the least that r ranks can leave out. Of a convolution, D
has the kernel in its columns, and A is a convolution with that kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..adapter import Adapter, MethodConfig
from ..architectures import by_name
from ..converters import accounting, as_lora
from ..converters.report import LayerError
from ..errors import UnsupportedError
from ..methods import Binding, LinearOp, Live, LoraConfig, PrefixTuningConfig, factoring, is_head, method_of, shapes
from ..methods.linear_maps import is_transposed
from ..methods.lora import leaves
from ..methods.targets import JOINT
from ..sites import PROJECTIONS, Layout, Linear
from .account import check_account, check_architecture
from .layout import Ground, survey
from .merging import depending, unmergeable

if TYPE_CHECKING:
    from ..architectures import Architecture


NOISE = 2.5e-13
"""Part of ‖D‖² that is taken for rounding: changes are computed in float32."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a change is kept.

    Attributes:
        rank: so many singular values, or None.
        energy: the fewest that have this share of the sum of their squares, in place of a rank.
    """

    rank: int | None = None
    energy: float | None = None


def approximated(
    adapter: Adapter,
    truncation: Truncation,
    base: Callable[[], nn.Module | None],
    architecture: Architecture | None = None,
) -> tuple[Adapter, tuple[LayerError, ...]]:
    """Return an adapter with one LoRA in place of everything that changes linear maps, and how good it is at each map.

    Heads, norms and other parameters that the adapter brings stay as they are; a LoRA without anything besides stays
    too, if its ranks are few enough.

    Args:
        adapter: the adapter.
        truncation: how much is kept.
        base: returns the base model, or None where it is not known; asked only if the changes depend on it.
        architecture: describes the base model, where its family is not known.

    Raises:
        UnsupportedError: a part of it is no change of weights, or one that depends on a base model which is not known;
            every reason.
        BaseMismatchError: it does not fit the base model.
    """
    found = [_Part(config, adapter, None) for config in adapter.config]
    depending = [part.config.method for part in found if part.depends]
    model = base() if depending or any(part.unnamed for part in found) else None
    if depending and model is None:
        raise UnsupportedError(
            f"what {' and '.join(depending)} adds to a weight depends on the base model",
            hint="name the base model with --base",
        )
    if model is not None:
        ground = survey(model, architecture)
        check_architecture(adapter, ground.layout)
        check_account(adapter, ground.layout)
        found = [_Part(config, adapter, ground) for config in adapter.config]
    reasons = [reason for part in found for reason in part.reasons]
    changing = [part for part in found if part.changes]
    if not changing and not reasons:
        reasons = ["nothing of it changes a linear map"]
    if reasons:
        raise UnsupportedError(
            f"adapter {adapter.manifest.name!r} cannot become a LoRA: {'; '.join(reasons)}",
            hint="keep it in a format that has a word for it",
        )
    if all(_fits(part.config, truncation) for part in changing):
        return adapter, ()
    return _replaced(adapter, changing, truncation)


def _tells(config: MethodConfig, adapter: Adapter) -> bool:
    """Return whether tensors alone tell the sizes of the maps that a configuration changes."""
    row = by_name(adapter.manifest.base.architecture)
    return method_of(config).sized and as_lora.tells_inputs(config, adapter.tensors, row)


class _Part:
    """One configuration of an adapter, and what it does to linear maps."""

    def __init__(self, config: MethodConfig, adapter: Adapter, ground: Ground | None) -> None:
        self.config = config
        self.reasons: list[str] = []
        self.changes: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.depends = False
        self.layout = _layout(adapter) if ground is None else ground.layout
        if is_head(config):
            return
        if ground is None and not _tells(config, adapter):
            self.depends = True
            return
        if isinstance(config, PrefixTuningConfig):
            # Where its positions are shifted it is bound to a live model only.
            self.reasons = [depending("prefixes")]
            return
        binding = _bound(config, adapter, self.layout, ground)
        self.reasons = list(unmergeable(binding))
        for path, op in binding.linears.items():
            self._look(self.layout.linear[path], op, ground)
        if self.changes and binding.parameters:
            self.reasons.append(f"{config.method} changes linear maps and other parameters at once")

    @property
    def unnamed(self) -> bool:
        """Whether it changes maps that the family does not name: some files do not tell those of convolutions apart."""
        return any(not self.layout.linear[path].roles for path in self.changes)

    def _look(self, linear: Linear, op: LinearOp, ground: Ground | None) -> None:
        """Work out what is added to the weight and the bias of a map."""
        if ground is None and not (linear.inputs and linear.outputs):
            self.depends = True
            return
        if linear.groups > 1:
            self.reasons.append(f"{linear.path} is a convolution in {linear.groups} groups, which ranks would mix")
            return
        try:
            change = _of_any(linear, op) if ground is None else _of(linear, op, ground)
        except UnsupportedError as error:
            # One map tells it for all of them.
            self.reasons = self.reasons or [error.message]
            return
        if change is None:
            self.depends = True
        else:
            self.changes[linear.path] = change


def _layout(adapter: Adapter) -> Layout:
    have = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
    return accounting.layout(adapter.config, have, by_name(adapter.manifest.base.architecture))


def _bound(config: MethodConfig, adapter: Adapter, layout: Layout, ground: Ground | None) -> Binding:
    """Return what a configuration does; parameters of an unknown base model are NaN, so that their use shows."""

    def base(path: str) -> Tensor:
        if path in adapter.tensors:
            return adapter.tensors[path]
        if ground is not None:
            found = ground.parameter(path)
            if found is not None:
                return found.detach()
        place, _, name = path.rpartition(".")
        linear = layout.linear.get(place)
        if linear is None:
            return torch.full((layout.width or 1,), math.nan)
        turned = is_transposed(linear)
        sizes = (linear.inputs, linear.outputs) if turned else (linear.outputs, linear.inputs, *linear.kernel)
        return torch.full((linear.outputs,) if name == "bias" else sizes, math.nan)

    live = Live(layout=layout, mode=nn.Module().eval(), base=base)
    return method_of(config).bind(config, adapter.tensors, live)


@torch.no_grad()
def _of_any(linear: Linear, op: LinearOp) -> tuple[Tensor, Tensor | None] | None:
    """Return what is added to any weight and bias of a map, None where that depends on them."""
    zeros = torch.zeros(linear.outputs, linear.inputs, *linear.kernel), torch.zeros(linear.outputs)
    generator = torch.Generator().manual_seed(0)
    others = tuple(torch.randn(zero.shape, generator=generator) for zero in zeros)
    weight, bias = op.merged(*zeros)
    other_weight, other_bias = op.merged(*others)
    pairs = [(weight, other_weight - others[0])]
    pairs += [(bias, other_bias - others[1])] if bias is not None and other_bias is not None else []
    same = all(bool((one - other).abs().max() <= 1e-4 * (1 + one.abs().max())) for one, other in pairs)
    return (weight, bias if bias is not None and bool(bias.any()) else None) if same else None


@torch.no_grad()
def _of(linear: Linear, op: LinearOp, ground: Ground) -> tuple[Tensor, Tensor | None]:
    """Return what is added to the weight and the bias of a map of the base model."""
    known = _of_any(linear, op)
    if known is not None:
        return known
    module = ground.modules[linear.path]
    given = module.get_parameter("weight").detach().float()
    given = given.t() if is_transposed(linear) else given
    shift = module._parameters.get("bias")
    weight, bias = op.merged(given, None if shift is None else shift.detach().float())
    added = None if bias is None else bias - (0 if shift is None else shift.detach().float())
    return weight - given, added if added is not None and bool(added.any()) else None


def _fits(config: MethodConfig, truncation: Truncation) -> bool:
    """Return whether a configuration is a LoRA that needs no approximation."""
    if not isinstance(config, LoraConfig) or config.gating or config.magnitude != "none" or truncation.rank is None:
        return False
    return max((config.r, *config.ranks.values())) <= truncation.rank


def _replaced(
    adapter: Adapter, parts: Sequence[_Part], truncation: Truncation
) -> tuple[Adapter, tuple[LayerError, ...]]:
    """Return the adapter with a LoRA in place of some of its configurations."""
    layout = parts[0].layout
    changes = {path: change for part in parts for path, change in part.changes.items()}
    gone = [part.config for part in parts]
    rest = [config for config in adapter.config if not any(config is one for one in gone)]
    kept = shapes(rest, layout)
    tensors = {key: tensor for key, tensor in adapter.tensors.items() if key in kept}
    dtype = next(iter(adapter.tensors.values())).dtype
    errors = []
    shifts = any(bias is not None for _, bias in changes.values())
    for path, (weight, bias) in changes.items():
        a, b, error = _factors(path, weight, truncation, dtype)
        errors.append(error)
        name_a, name_b = leaves(layout.linear[path])
        tensors |= {f"{path}.{name_a}": a, f"{path}.{name_b}": b}
        if shifts:
            tensors[f"{path}.lora_bias"] = (torch.zeros(len(b)) if bias is None else bias).to(dtype)
    config = _config(parts, layout, {error.path: error.rank for error in errors}, update_bias=shifts)
    return Adapter((*rest, config), tensors, adapter.manifest), tuple(errors)


def _factors(
    path: str, weight: Tensor, truncation: Truncation, dtype: torch.dtype
) -> tuple[Tensor, Tensor, LayerError]:
    """Return A (r, inputs) and B (outputs, r) of a change, and how good they are."""
    whole = weight.double().flatten(1)
    energy = None if truncation.energy is None else min(truncation.energy, 1 - NOISE)
    factors = factoring.of_matrix(whole, rank=truncation.rank, energy=energy)
    root = factors.b.norm(dim=0).sqrt()
    a = (factors.a * root.unsqueeze(1)).to(dtype).contiguous()
    b = (factors.b / root.where(root > 0, 1.0)).to(dtype).contiguous()
    norm, missing = float(whole.norm()), float((whole - b.double() @ a.double()).norm())
    error = LayerError(path=path, rank=factors.rank, norm=norm, error=missing / norm if norm else 0.0)
    kernel = weight.shape[2:]
    return a.view(len(a), -1, *kernel), b.view(*b.shape, *(1 for _ in kernel)), error


def _config(parts: Sequence[_Part], layout: Layout, ranks: Mapping[str, int], *, update_bias: bool) -> LoraConfig:
    """Return the configuration of a LoRA with these ranks at these maps, the scale of which is 1 everywhere."""
    r = max(ranks.values())
    fewer = {path: rank for path, rank in ranks.items() if rank != r}
    left_out = {tuple(part.config.to_json().get("leave_out", ())) for part in parts}
    return LoraConfig(
        targets=tuple(_words(layout, ranks, parts)),
        r=r,
        alpha=float(r),
        ranks=fewer,
        alphas={path: float(rank) for path, rank in fewer.items()},
        leave_out=next(iter(left_out)) if len(left_out) == 1 else (),
        update_bias=update_bias,
    )


def _words(layout: Layout, paths: Iterable[str], parts: Sequence[_Part]) -> Iterator[str]:
    """Yield the maps in the words of methods/targets.py, where the adapter stood at all maps of such a word."""
    left = dict.fromkeys(paths)
    out = {layer for part in parts for layer in part.config.to_json().get("leave_out", ())}
    whole = not any("." in str(word) for part in parts for word in part.config.to_json().get("targets", ["."]))
    for word in (*PROJECTIONS, JOINT) if whole else ():
        mine = [
            linear.path
            for linear in layout.linears
            if linear.layer not in out and (len(linear.roles) > 1 if word == JOINT else linear.roles == (word,))
        ]
        if mine and all(path in left for path in mine):
            yield word
            for path in mine:
                del left[path]
    yield from left
