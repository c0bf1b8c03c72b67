"""What methods share that change one linear map at a time: where they stand, their account, and three operations.

    y = W x + b + D x      Added      a matrix D of the shape of W
    y = W' x + b           Changed    another matrix, made of W
    y = W (R x) + b        Turned     another input

A method of this kind is a Rule: the tensors at one map, their start values, and the operation that they make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..adapter import MethodConfig
from ..errors import FormatError, UnsupportedError
from ..sites import Layout, Linear
from .config import Config
from .linear_maps import convolution, holds_numbers, is_transposed, readable
from .method import Binding, Facts, LinearOp, Live, Method, Roles, Shapes
from .targets import chosen, widths

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .method import Apply

    Own = Mapping[str, Tensor]

Shape = tuple[int, ...]

SHARED = "shared."
"""In front of the names of tensors that all maps share."""

Kind = Literal["linear", "conv1d", "convolution", "embedding"]

MOST = 65_536
"""Ranks, blocks and the like beyond this are a damaged number."""


@dataclass(frozen=True, kw_only=True)
class UpdatingConfig(Config):
    """Where the maps are that change.

    Attributes:
        targets: projections, module paths, or `all-linear`; see methods/targets.py.
        leave_out: layers without.
    """

    sets: ClassVar[tuple[str, ...]] = ("targets",)

    targets: tuple[str, ...] = ("query", "value")
    leave_out: tuple[int, ...] = ()


def bounds(*, most: int = MOST, **values: int | Mapping[str, int]) -> list[str]:
    """Return a fault for each number, or number in a mapping, that is not 1 to most."""
    flat = [
        (f"{name}[{key!r}]" if key else name, number)
        for name, value in values.items()
        for key, number in (value.items() if isinstance(value, Mapping) else [("", value)])
    ]
    return [f"{name} is {number}, expected 1 to {most}" for name, number in flat if not 1 <= number <= most]


Base = Callable[[str], "Tensor"]
"""Path → the base model's parameter."""


def zeros(config: Any, name: str, shape: tuple[int, ...], linear: Linear, base: Base) -> Tensor:
    """Return a start value: zero."""
    import torch

    return torch.zeros(shape)


def _no_shared(config: Any, linears: Sequence[Linear]) -> Shapes:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A method that changes one linear map at a time.

    Attributes:
        config: the configuration's class.
        presets: as in Method.
        shapes: configuration and map → parameter name → shape at that map.
        start: configuration, parameter name, shape, map and the base's parameters → start value, float32.
        op: configuration, tensors at the map and shared ones (`shared.<name>`), map, model → what acts there.
        seen: configuration, path and shapes at it → the map that they describe; None where they describe none.
        sized: whether the shapes tell inputs and outputs.
        kinds: kinds of maps that the method is defined for.
        shared: configuration and maps → `shared.<name>` → shape.
        drawn: configuration and maps → `shared.<name>` → tensor that is no tensor of the adapter but drawn with a seed.
        settled: configuration and maps → the configuration with what it leaves to them filled in.
        frozen: names of tensors that stay as they are in training.
        alone: whether the tensors alone tell what is added, without the base's weights or sizes.
        places: configuration and map → parameter name of whole numbers → what each of its rows, or all of it, is below.
    """

    config: type[Any]
    presets: Mapping[str, MethodConfig] = field(default_factory=dict)
    shapes: Callable[[Any, Linear], Shapes]
    start: Callable[[Any, str, tuple[int, ...], Linear, Base], Tensor] = zeros
    op: Callable[[Any, Own, Linear, Live], LinearOp]
    seen: Callable[[Any, str, Shapes], Linear | None]
    sized: bool = True
    kinds: tuple[Kind, ...] = ("linear", "conv1d")
    shared: Callable[[Any, Sequence[Linear]], Shapes] = _no_shared
    drawn: Callable[[Any, Sequence[Linear]], dict[str, Tensor]] = lambda config, linears: {}
    settled: Callable[[Any, Sequence[Linear]], Any] = lambda config, linears: config
    frozen: tuple[str, ...] = ()
    alone: bool = False
    places: Callable[[Any, Linear], Mapping[str, Shape]] = lambda config, linear: {}


def method(rule: Rule) -> Method:
    """Return the row of METHODS that a rule makes."""

    def maps(config: Any, layout: Layout) -> list[Linear]:
        found = [target.linear for target in chosen(config.targets, layout, leave_out=config.leave_out)]
        odd = [f"{linear.path} ({linear.kind})" for linear in found if linear.kind not in rule.kinds]
        if odd:
            raise UnsupportedError(f"{config.method} is not defined for {', '.join(odd[:5])}")
        return found

    def shapes(config: Any, layout: Layout) -> Shapes:
        found = maps(config, layout)
        own = {f"{one.path}.{name}": shape for one in found for name, shape in rule.shapes(config, one).items()}
        return own | rule.shared(config, found)

    def initial(config: Any, layout: Layout, base: Base) -> dict[str, Tensor]:
        found = maps(config, layout)

        def numbers(path: str) -> Tensor:
            return readable(base(path), path.rpartition(".")[0])

        own = {
            f"{one.path}.{name}": rule.start(config, name, shape, one, numbers)
            for one in found
            for name, shape in rule.shapes(config, one).items()
        }
        shared = rule.shared(config, found)
        return own | {name: rule.start(config, name, shape, found[0], numbers) for name, shape in shared.items()}

    def bind(config: Any, tensors: Mapping[str, Tensor], live: Live) -> Binding:
        found = maps(config, live.layout)
        wanted = rule.shared(config, found)
        shared = {name: tensors[name] for name in wanted}
        if not wanted and found and tensors:
            like = next(iter(tensors.values()))
            shared = {name: tensor.to(like) for name, tensor in rule.drawn(config, found).items()}
        ops = {}
        for one in found:
            own = {name: tensors[f"{one.path}.{name}"] for name in rule.shapes(config, one)}
            _check_places(own, rule.places(config, one), one.path)
            ops[one.path] = rule.op(config, own | shared, one, live)
        return Binding(linears=ops)

    def facts(config: Any, have: Shapes, roles: Roles) -> Facts:
        linears = _seen(rule, config, have, roles)
        sized = widths(linears.values()) if rule.sized else ()
        return Facts(widths=sized, linears=linears, left_out=config.leave_out)

    return Method(
        config=rule.config,
        presets=rule.presets,
        shapes=shapes,
        initial=initial,
        bind=bind,
        facts=facts,
        frozen=lambda config, key: key in rule.frozen or key.rpartition(".")[2] in rule.frozen,
        settled=lambda config, layout: rule.settled(config, maps(config, layout)),
        sized=rule.sized,
        alone=lambda config: rule.alone,
    )


def _check_places(own: Own, limits: Mapping[str, Shape], path: str) -> None:
    """Refuse numbers that are no places of what they stand for.

    Raises:
        FormatError: names the first such tensor.
    """
    for name, below in limits.items():
        rows = own[name] if len(below) > 1 else own[name].reshape(1, -1)
        for row, limit in zip(rows, below, strict=True):
            if not row.is_meta and row.numel() and not 0 <= int(row.min()) <= int(row.max()) < limit:
                raise FormatError(
                    f"tensor '{path}.{name}' names places {int(row.min())} to {int(row.max())}, there are {limit}",
                    hint="the file is damaged, or of another model",
                )


def _seen(rule: Rule, config: Any, have: Shapes, roles: Roles) -> dict[str, Linear]:
    """Return the maps that the shapes at each path describe."""
    import dataclasses

    together: dict[str, Shapes] = {}
    for key, shape in have.items():
        path, _, name = key.rpartition(".")
        together.setdefault(path, {})[name] = shape
    together.pop(SHARED.removesuffix("."), None)
    found = {}
    for path, own in together.items():
        linear = rule.seen(config, path, own)
        if linear is not None:
            found[path] = dataclasses.replace(linear, roles=roles(path))
    return found


def apply(x: Tensor, weight: Tensor, linear: Linear) -> Tensor:
    """Return W x (…, outputs) for a weight (outputs, inputs[, kernel]) in place of a map's own."""
    from torch.nn import functional

    if linear.kind == "embedding":
        return functional.embedding(x, weight.t())
    if linear.kind != "convolution":
        return functional.linear(x, weight)
    found: Tensor = convolution(linear)(x, weight, None, linear.stride, linear.padding, linear.dilation, linear.groups)
    return found


class _OnWeight:
    """What Added and Changed share: a function of a module that makes a weight of the adapter's tensors and W.

    `make(config, own, linear, weight)`; weight is W (outputs, inputs[, kernel]). Where W is quantised, a function that
    asks for no more than its shape and type gets them from zeros.
    """

    __slots__ = ("base", "config", "linear", "make", "mode", "own")

    reads: ClassVar[bool] = True
    """Whether the function asks for the numbers of W."""

    def __init__(
        self, make: Callable[[Any, Own, Linear, Tensor], Tensor], config: Any, own: Own, linear: Linear, live: Live
    ) -> None:
        self.make = make
        self.config = config
        self.own = own
        self.linear = linear
        self.mode: nn.Module = live.mode
        base = live.base(f"{linear.path}.weight")
        self.base = readable(base, linear.path) if self.reads or holds_numbers(base) else _zeros(own, linear)

    def made(self, weight: Tensor | None = None) -> Tensor:
        """Return what the function makes of a weight, or of the live one."""
        if weight is None:
            weight = self.base.t() if is_transposed(self.linear) else self.base
        return self.make(self.config, self.own, self.linear, weight)


def _zeros(own: Own, linear: Linear) -> Tensor:
    """Return one zero in the shape that W has, as often as it is asked for."""
    shape = (linear.outputs, linear.inputs // linear.groups, *linear.kernel)
    like = next(tensor for tensor in own.values() if tensor.is_floating_point())
    return like.new_zeros(()).expand(shape[::-1] if is_transposed(linear) else shape)


class Added(_OnWeight):
    """y + D x; the function makes D without the numbers of W."""

    __slots__ = ()
    reads = False

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        from torch.nn.functional import dropout

        y = forward(x)
        delta = self.made()
        if self.config.dropout and self.mode.training:
            x = dropout(x, self.config.dropout)
        if self.linear.kind == "embedding":
            return y + apply(x, delta, self.linear).to(y.dtype)
        return y + apply(x.to(delta.dtype), delta, self.linear).to(y.dtype)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W + D and b."""
        return weight + self.made(weight).to(weight.dtype), bias


class AddedOf(Added):
    """y + D x; the function makes D of W."""

    __slots__ = ()
    reads = True


class Changed(_OnWeight):
    """W' x + b; the function makes W'."""

    __slots__ = ("bias",)

    def __init__(
        self, make: Callable[[Any, Own, Linear, Tensor], Tensor], config: Any, own: Own, linear: Linear, live: Live
    ) -> None:
        super().__init__(make, config, own, linear, live)
        self.bias = live.base(f"{linear.path}.bias") if linear.bias else None

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs); the map's own computation is not used."""
        y = apply(x, self.made().to(x.dtype), self.linear)
        return y if self.bias is None else y + self.bias.view(-1, *(1,) * len(self.linear.kernel))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return W' and b."""
        return self.made(weight), bias
