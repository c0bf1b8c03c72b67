"""What an adapter changes at each linear map, as numbers: W' = g ∘ (W + D) and b' = g_b ∘ b + c, in float64.

D is kept as thin factors B A where the method has them, so that adding, comparing and compressing updates costs the
rank and not the size of the map. g, a factor for each row, is DoRA's; it multiplies the bias only in the form of
`adapters`. Kernels of convolutions are flattened into the columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import MethodConfig
from ..errors import UnsupportedError
from ..sites import Layout, Linear
from .dora import Dora, GatedDora
from .linear_maps import is_transposed, readable
from .low_rank_updates import PartsUpdate, Update, gated
from .method import Binding, LinearOp, Live, Method
from .updating import Added

if TYPE_CHECKING:
    from torch import Tensor

Base = Callable[[str], "Tensor"]
"""Path of a parameter of the base model → the parameter."""

LOW_RANK = ("lora", "vera", "mtl_lora")
"""Methods whose tensors are brought to float64 map by map."""


class Block(NamedTuple):
    """A product B A: A (r, columns) and B (rows, r)."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Delta:
    """What an adapter changes at one map.

    Attributes:
        linear: the map.
        parts: which of its equal parts are changed, in order; () is the whole.
        blocks: the factors of each part, or of the whole; () where D is dense.
        dense: D (outputs, columns) where it has no factors.
        gain: g (outputs,), or None for ones.
        gains_bias: whether g multiplies the bias too.
        bias: c (outputs,), or None.
    """

    linear: Linear
    parts: tuple[int, ...] = ()
    blocks: tuple[Block, ...] = ()
    dense: Tensor | None = None
    gain: Tensor | None = None
    gains_bias: bool = False
    bias: Tensor | None = None

    def whole(self) -> Block:
        """Return factors of the whole map: where parts have their own, one after the other, each in its rows."""
        import torch

        if not self.parts:
            return self.blocks[0]
        size = self.linear.outputs // len(self.linear.roles)
        a = torch.cat([block.a for block in self.blocks])
        b = a.new_zeros(self.linear.outputs, len(a))
        first = 0
        for place, block in zip(self.parts, self.blocks, strict=True):
            r = block.a.shape[0]
            b[place * size : (place + 1) * size, first : first + r] = block.b
            first += r
        return Block(a, b)

    def matrix(self, weight: Tensor | None = None) -> Tensor:
        """Return W' - W (outputs, columns); weight, W (outputs, columns), is needed where there is a gain."""
        update: Tensor
        if self.dense is not None:
            update = self.dense
        else:
            block = self.whole()
            update = block.b @ block.a
        if self.gain is None:
            return update
        if weight is None:
            raise AssertionError("a gain acts on the weight")
        return self.gain.unsqueeze(1) * (weight + update) - weight


def columns(linear: Linear) -> int:
    """Return how many columns the weight of a map has, its kernel flattened."""
    count = linear.inputs // linear.groups
    for size in linear.kernel:
        count *= size
    return count


def weight_of(linear: Linear, base: Base) -> Tensor:
    """Return W (outputs, columns) of a map, float64.

    Raises:
        UnsupportedError: it is quantised.
    """
    weight = readable(base(f"{linear.path}.weight"), linear.path).detach()
    oriented = weight.t() if is_transposed(linear) else weight
    found: Tensor = oriented.double().flatten(1)
    return found


def changes_maps(method: Method, config: MethodConfig, layout: Layout, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a configuration acts at linear maps and nowhere else."""
    if method.is_head:
        return False
    binding = bound(method, config, layout, tensors, None)
    return bool(binding.linears) and not any(
        getattr(binding, f.name) for f in dataclasses.fields(Binding) if f.name not in ("linears", "head")
    )


def bound(
    method: Method, config: MethodConfig, layout: Layout, tensors: Mapping[str, Tensor], base: Base | None
) -> Binding:
    """Return what a configuration does, on a model of this layout; without a base its weights are zeros."""
    import torch
    from torch import nn

    def zeros(path: str) -> Tensor:
        return torch.zeros(()).expand(layout.parameters.get(path) or _shape(layout, path))

    return method.bind(config, tensors, Live(layout=layout, mode=nn.Module().eval(), base=base or zeros))


def _shape(layout: Layout, path: str) -> tuple[int, ...]:
    """Return the shape of a weight or bias of a linear map."""
    module, _, leaf = path.rpartition(".")
    linear = layout.linear[module]
    if leaf == "bias":
        return (linear.outputs,)
    if is_transposed(linear):
        return (linear.inputs, linear.outputs)
    return (linear.outputs, linear.inputs // linear.groups, *linear.kernel)


class Changes:
    """What one configuration of an adapter changes, map by map; each is computed when it is asked for.

    Attributes:
        linears: path → the maps that change, in the order of the layout.
    """

    def __init__(
        self,
        method: Method,
        config: MethodConfig,
        layout: Layout,
        tensors: Mapping[str, Tensor],
        base: Base | None = None,
    ) -> None:
        """Bind a configuration that changes linear maps.

        Args:
            method: the row of METHODS that it belongs to.
            config: the configuration.
            layout: the places of the model.
            tensors: the adapter's tensors.
            base: the base model's parameters; without them only methods that are `alone` tell what they change.

        Raises:
            UnsupportedError: the base model is needed, and there is none.
        """
        if base is None and not method.alone(config):
            raise UnsupportedError(
                f"what {config.method} changes cannot be told from its tensors alone: "
                "it depends on the base model's weights",
                hint="name the base model (--base)",
            )
        upcast = tensors if config.method in LOW_RANK else {key: _upcast(tensor) for key, tensor in tensors.items()}
        self._ops = bound(method, config, layout, upcast, base).linears
        self._base = base
        self.linears = {linear.path: linear for linear in layout.linears if linear.path in self._ops}

    def at(self, path: str) -> Delta:
        """Return what changes at one map.

        Raises:
            UnsupportedError: it depends on its input, or no weight of that map can hold it.
        """
        return delta(self._ops[path], self.linears[path], self._base)

    def __iter__(self) -> Iterator[Delta]:
        return map(self.at, self.linears)


def _upcast(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor


def delta(op: LinearOp, linear: Linear, base: Base | None) -> Delta:
    """Return what an operation changes at its map.

    Raises:
        UnsupportedError: it depends on its input, or no weight of that map can hold it.
    """
    import torch

    with torch.no_grad():
        if isinstance(op, (Update, PartsUpdate)):
            return _low_rank(op, linear, base)
        if isinstance(op, Added):
            # The weight is a stand-in where there is no base: methods that read it are not alone.
            weight = torch.zeros(_oriented(linear)).double() if base is None else weight_of(linear, base)
            made = op.made(weight.view(_oriented(linear)))
            return Delta(linear=linear, dense=made.double().flatten(1))
        if base is None:
            raise AssertionError("a method that is alone adds something to a weight")
        return _difference(op, linear, base)


def _oriented(linear: Linear) -> tuple[int, ...]:
    return (linear.outputs, linear.inputs // linear.groups, *linear.kernel)


def _low_rank(op: Update | PartsUpdate, linear: Linear, base: Base | None) -> Delta:
    """Return the scaled factors of an update, and what DoRA makes of the rows."""
    if linear.groups > 1:
        raise UnsupportedError(
            f"the update of {linear.path} mixes its groups, which no weight of that convolution can do"
        )
    if isinstance(op, PartsUpdate):
        if op.gate is not None:
            raise gated(op.target)
        count = max(1, len(op.target.parts))
        pairs = zip(*(t.detach().double().chunk(count) for t in op.factors()), strict=True)
        return Delta(linear=linear, parts=op.target.parts, blocks=tuple(Block(a, b * op.scale) for a, b in pairs))
    a, b = (t.detach().double().flatten(1) for t in op.factors())
    block = Block(a, b * op.scale)
    if isinstance(op, GatedDora):
        raise gated(op.target)
    if isinstance(op, Dora):
        return _directed(op, block, linear, base)
    c = None if op.c is None else op.c.detach().double() * op.scale
    return Delta(linear=linear, blocks=(block,), bias=c)


def _directed(op: Dora, block: Block, linear: Linear, base: Base | None) -> Delta:
    """Return the factors and gains of DoRA."""
    if base is None:
        raise AssertionError("DoRA is not alone")
    a, b = (t.detach().double().flatten(1) for t in op.factors())
    # In the form of `adapters` the norm is that of the update without its scale.
    norms = (weight_of(linear, base) + op.norm_scale * (b @ a)).norm(dim=1)
    gain = op.m.detach().double() / norms.clamp_min(1e-300)
    return Delta(linear=linear, blocks=(block,), gain=gain, gains_bias=linear.bias and op.bias is None)


def _difference(op: LinearOp, linear: Linear, base: Base) -> Delta:
    """Return the difference of the merged weights and the base's."""
    weight = weight_of(linear, base)
    bias = base(f"{linear.path}.bias").detach().double() if linear.bias else None
    merged, shifted = op.merged(weight.view(_oriented(linear)), bias)
    change = None if shifted is None else shifted.double() - (0 if bias is None else bias)
    return Delta(linear=linear, dense=merged.double().flatten(1) - weight, bias=change)
