"""Prefix tuning: trained keys and values that every attention finds in front of its own (Li & Liang 2021).

    softmax(q [P_k; K]ᵀ · scale) [P_v; V],      P_k, P_v: length × (heads · head size), others in every attention

Flat prefixes are trained themselves. Otherwise a network makes them; the attentions of a stack share all of it but its
last layer:

    P_k = f(E Wᵀ + b) W_kᵀ + b_k,     P_v = f(E Wᵀ + b) W_vᵀ + b_v,      E: length × width, W: bottleneck × width

A gate (UniPELT, Mao et al. 2022) multiplies them by the mean over the tokens of sigmoid(w·x + b): those of the call,
padding too. With a cache these are the new ones only, so that a gated prefix answers otherwise with one than without.

P_k has no position of its own: it is neither rotated nor shifted. What happens to the text's positions is `positions`:

    kept       they are what they are without a prefix, relative biases too
    shifted    they count on behind the prefix, as in a cache that holds it (the paper; PEFT): absolute positions and
               rotations are `length` further on, a relative bias and a sliding window see the prefix at 0 … length - 1
    adapters   `adapters` 1.3.0 on models with a relative position bias: the prefix stands at 0 … length - 1 and the
               text's keys behind it, while queries count from 0. The bias is made where its stack begins and is lost
               from the first layer on whose number of keys is another one, because that layer is left out.

Everywhere else a sliding window hides nothing of the prefix.

Sources: Li & Liang 2021 (arXiv 2101.00190) §4; `adapters` 1.3.0, methods/prefix_tuning.py and models/; PEFT 0.21.2,
tuners/prefix_tuning and peft_model.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError, UsageError
from ..sites import Attention, Layout
from .activations import NAMES, function, known
from .config import Config
from .method import Binding, Facts, Live, Method, Prefixed, Roles, Shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Bias = Literal["text", "all", "none"]

SPARE = "shared.prefix_spare"
"""Key of the columns that nothing reads."""

LONGEST = 65_536
WIDEST = 1_048_576


@dataclass(frozen=True, kw_only=True)
class PrefixTuningConfig(Config):
    """Which attentions have a prefix, and what makes it.

    Attributes:
        encoder_prefix: whether the encoder of an encoder-decoder model has one.
        cross_prefix: whether cross-attentions have one.
        leave_out: layers without, counted through all stacks.
        flat: train the prefixes themselves, without a network that makes them.
        prefix_length: number of keys in front.
        bottleneck_size: width of the network's hidden layer.
        non_linearity: its activation f.
        dropout: probability, on keys and values of the prefix, while training.
        use_gating: multiply them by a gate.
        shared_gating: one gate for keys and values, not two.
        positions: what happens to the text's positions: `kept`, `shifted` or `adapters`.
        spare: further columns of the source's tensor that nothing reads; PEFT saves such for encoder-decoder models,
            whose decoder takes every second pair of keys and values, again and again.
        padded_bonus: what is added to the attention scores of the prefix in a batch with padding under sdpa attention;
            `adapters` adds 1 in DistilBERT.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "prefix_tuning"

    encoder_prefix: bool = True
    cross_prefix: bool = True
    leave_out: tuple[int, ...] = ()
    flat: bool = False
    prefix_length: int = 30
    bottleneck_size: int = 512
    non_linearity: str = "tanh"
    dropout: float = 0.0
    use_gating: bool = False
    shared_gating: bool = True
    positions: Literal["kept", "shifted", "adapters"] = "kept"
    padded_bonus: float = 0.0
    spare: int = 0
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        sizes = (("prefix_length", self.prefix_length, LONGEST), ("bottleneck_size", self.bottleneck_size, WIDEST))
        faults = [f"{name} is {size}, expected 1 to {most}" for name, size, most in sizes if not 1 <= size <= most]
        if not known(self.non_linearity):
            faults.append(f"non_linearity {self.non_linearity!r} is unknown; known are {', '.join(NAMES)}")
        if not 0 <= self.dropout < 1:
            faults.append("dropout must lie in [0, 1)")
        if not 0 <= self.spare <= WIDEST * LONGEST:
            faults.append(f"spare is {self.spare}, expected 0 or more")
        if not math.isfinite(self.padded_bonus):
            faults.append(f"padded_bonus is {self.padded_bonus}, expected a finite number")
        return faults

    def takes(self, attention: Attention) -> bool:
        """Return whether an attention has a prefix."""
        return self.wants(attention.stack) and attention.layer not in self.leave_out

    def wants(self, stack: str) -> bool:
        """Return whether the attentions of a stack have prefixes."""
        return {"encoder": self.encoder_prefix, "cross": self.cross_prefix}.get(stack, True)

    @property
    def gates(self) -> int:
        """Number of gates at an attention."""
        return (1 if self.shared_gating else 2) if self.use_gating else 0


def shapes(config: PrefixTuningConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of every tensor that the configuration has in a layout.

    Raises:
        UsageError: no attention is left.
    """
    taken = [attention for attention in layout.attentions if config.takes(attention)]
    if layout.attentions and not taken:
        raise UsageError("no attention of the model gets a prefix", hint="look at leave_out and the other fields")
    found: Shapes = {}
    for attention in taken:
        if not config.flat:
            found |= _shared_shapes(config, attention)
        found |= {f"{attention.path}.{name}": shape for name, shape in _own_shapes(config, attention).items()}
    if config.spare:
        found[SPARE] = (config.prefix_length, config.spare)
    return found


def shared_key(stack: str, name: str) -> str:
    """Return the canonical key of a tensor that the attentions of a stack share."""
    return f"shared.prefix_{stack}.{name}"


def _shared_shapes(config: PrefixTuningConfig, attention: Attention) -> Shapes:
    n, m = config.prefix_length, config.bottleneck_size
    return {
        shared_key(attention.stack, "embedding.weight"): (n, attention.width),
        shared_key(attention.stack, "hidden.weight"): (m, attention.width),
        shared_key(attention.stack, "hidden.bias"): (m,),
    }


def _own_shapes(config: PrefixTuningConfig, attention: Attention) -> Shapes:
    """Return parameter name → shape of what one attention has for itself."""
    size, found = attention.heads * attention.head_size, Shapes()
    for name in ("prefix_key", "prefix_value"):
        if config.flat:
            found[name] = (config.prefix_length, size)
        else:
            found |= {f"{name}.weight": (size, config.bottleneck_size), f"{name}.bias": (size,)}
    if config.gates:
        found |= {"prefix_gate.weight": (config.gates, attention.width), "prefix_gate.bias": (config.gates,)}
    return found


def initial(config: PrefixTuningConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: embeddings and flat prefixes N(0, 1), layers as torch starts them."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = shapes(config, layout)
    return {key: _start(key, shape, found, generator) for key, shape in found.items()}


def _start(key: str, shape: tuple[int, ...], all_shapes: Shapes, generator: torch.Generator | None) -> Tensor:
    import torch

    tensor = torch.empty(shape)
    path, _, name = key.rpartition(".")
    if path.endswith("prefix_gate"):
        return tensor.normal_(std=0.02, generator=generator) if name == "weight" else tensor.zero_()
    if name in ("prefix_key", "prefix_value", "prefix_spare") or path.endswith("embedding"):
        return tensor.normal_(generator=generator)
    bound = 1 / math.sqrt(all_shapes[f"{path}.weight"][1])
    return tensor.uniform_(-bound, bound, generator=generator)


def facts(config: PrefixTuningConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the sizes of the attentions that have prefixes."""
    attentions: dict[str, int] = {}
    stacks: dict[str, int] = {}
    widths: list[int] = []
    for key, shape in have.items():
        path, _, name = key.rpartition(".")
        if len(shape) != 2:
            continue
        if name == "prefix_key":
            attentions[path] = shape[1]
        elif key.endswith(".prefix_key.weight"):
            attentions[path.rpartition(".")[0]] = shape[0]
        elif key.endswith(".prefix_gate.weight"):
            widths.append(shape[1])
        elif key.startswith("shared.prefix_") and key != SPARE:
            stacks[key.split(".")[1].removeprefix("prefix_")] = shape[1]
            widths.append(shape[1])
    return Facts(widths=tuple(widths), attentions=attentions, stacks=stacks, left_out=config.leave_out)


def flattened(config: PrefixTuningConfig, tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the tensors of the flat prefix that computes the same: what the network gives, and the gates."""
    found: dict[str, Tensor] = {}
    for attention in layout.attentions:
        if config.takes(attention):
            maker = Maker(config, tensors, attention)
            found |= {f"{attention.path}.prefix_{name}": t for name, t in zip(("key", "value"), maker(), strict=True)}
            gate = f"{attention.path}.prefix_gate"
            found |= {key: t for key, t in tensors.items() if key in (f"{gate}.weight", f"{gate}.bias")}
    return found


def bind(config: PrefixTuningConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the prefixes of all attentions, on the given tensors themselves, so that training reaches them.

    Raises:
        UnsupportedError: positions are to be shifted in a model that has none to shift.
    """
    taken = [attention for attention in live.layout.attentions if config.takes(attention)]
    without = dict(_without_bias(config, live.layout.attentions)) if config.positions == "adapters" else {}
    ops: dict[str, Prefix | NoBias] = {path: NoBias() for path in without}
    for attention in taken:
        bias: Bias = "none" if attention.path in without else "text" if config.positions == "kept" else "all"
        ops[attention.path] = Prefix(config, tensors, attention, live.mode, bias)
    return Binding(attentions=ops, positions=_shifts(config, taken))


def _shifts(config: PrefixTuningConfig, taken: Iterable[Attention]) -> dict[str, int]:
    """Return path → by how much the positions that a module reads are raised."""
    if config.positions != "shifted":
        return {}
    stuck = [one.path for one in taken if one.positions is None and one.bias is None]
    if stuck:
        raise UnsupportedError(
            f"positions='shifted' has no meaning at {stuck[0]}, whose positions cannot be shifted",
            hint="use positions='kept', or leave out encoder_prefix and cross_prefix",
        )
    return {attention.positions: config.prefix_length for attention in taken if attention.positions is not None}


def _without_bias(config: PrefixTuningConfig, attentions: Iterable[Attention]) -> Iterator[tuple[str, bool]]:
    """Yield the attentions that have lost their stack's bias: a layer before, or they, have another number of keys."""
    before: dict[str, bool] = {}
    lost: set[str] = set()
    for attention in attentions:
        if attention.bias is not None:
            has = config.takes(attention)
            if before.setdefault(attention.bias, has) != has:
                lost.add(attention.bias)
            if attention.bias in lost:
                yield attention.path, has


class Maker:
    """Makes keys and values of one attention's prefix."""

    __slots__ = ("act", "embedding", "hidden", "key", "value")

    def __init__(self, config: PrefixTuningConfig, tensors: Mapping[str, Tensor], attention: Attention) -> None:
        path = attention.path
        names = ("prefix_key", "prefix_value")
        parts = [(tensors[f"{path}.{name}"],) if config.flat else _layer(tensors, f"{path}.{name}") for name in names]
        self.key, self.value = parts
        if not config.flat:
            self.act = function(config.non_linearity)
            self.embedding = tensors[shared_key(attention.stack, "embedding.weight")]
            self.hidden = _layer(tensors, shared_key(attention.stack, "hidden"))

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return keys and values (length, heads · head size)."""
        from torch.nn.functional import linear

        if len(self.key) == 1:
            return self.key[0], self.value[0]
        hidden = self.act(linear(self.embedding, *self.hidden))
        return linear(hidden, *self.key), linear(hidden, *self.value)


def _layer(tensors: Mapping[str, Tensor], path: str) -> tuple[Tensor, ...]:
    return tensors[f"{path}.weight"], tensors[f"{path}.bias"]


class Prefix:
    """The prefix of one attention in the forward pass."""

    __slots__ = ("bias", "config", "gate", "heads", "length", "make", "mode", "padded_bonus", "shift")

    def __init__(
        self,
        config: PrefixTuningConfig,
        tensors: Mapping[str, Tensor],
        attention: Attention,
        mode: nn.Module,
        bias: Bias,
    ) -> None:
        self.config = config
        self.mode = mode
        self.heads = attention.heads
        self.make = Maker(config, tensors, attention)
        self.gate = _layer(tensors, f"{attention.path}.prefix_gate") if config.gates else None
        self.length = config.prefix_length
        self.shift = config.prefix_length if config.positions == "shifted" else 0
        self.padded_bonus = config.padded_bonus
        self.bias = bias

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return keys and values (batch or 1, heads, length, head size)."""
        from torch.nn.functional import dropout, linear

        key, value = (t.view(1, self.length, self.heads, -1).transpose(1, 2) for t in self.make())
        if self.config.dropout and self.mode.training:
            rows = (hidden.shape[0], -1, -1, -1)
            key, value = (dropout(t.expand(rows), self.config.dropout) for t in (key, value))
        if self.gate is None:
            return Prefixed(key, value)
        gates = linear(hidden, *self.gate).sigmoid().mean(dim=1)[:, :, None, None, None]
        return Prefixed(key * gates[:, 0], value * gates[:, -1])


class NoBias:
    """Stands at an attention without a prefix that has lost its relative position bias."""

    __slots__ = ()

    length = 0
    shift = 0
    padded_bonus = 0.0
    bias: Bias = "none"

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return no keys and no values."""
        nothing = hidden.new_empty(1, 1, 0, 1)
        return Prefixed(nothing, nothing)


METHOD = Method(
    config=PrefixTuningConfig,
    presets={"prefix_tuning": PrefixTuningConfig(), "prefix_tuning_flat": PrefixTuningConfig(flat=True)},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
