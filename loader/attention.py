"""Prefixes on the forward path: how an attention comes to find keys and values in front of its own.

An attention that goes through transformers' attention interface runs on a *shadow*: a copy of the module that shares
everything but its `config`, whose attention implementation is called IMPLEMENTATION. That is one registered function
for all models. It puts the prefix in front, widens the mask, and calls what the model's own configuration names. The
prefix joins behind the cache, at every call, so the cache never holds it. The few attentions that are written
otherwise have a shadow of their own kind.

Nothing is written into the model or its configuration; the forward of the module is the only thing that is replaced.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.compiler import is_compiling
from torch.nn.functional import pad
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..methods import PrefixOp
    from ..sites import Attention

IMPLEMENTATION = "adapterhub_prefix"
"""Name of our function among transformers' attention functions."""

ATTRIBUTE = "adapterhub_prefix"
"""Where a shadow holds its prefix."""

SUPPORTED = ("eager", "sdpa")
"""Attention implementations that a prefix can stand in front of."""


class Moment(NamedTuple):
    """What one call of an attention puts in front.

    Attributes:
        keys, values: (batch, heads, length, head size).
        start: number of the call's first position.
    """

    keys: Tensor
    values: Tensor
    start: Any


class InFront:
    """The prefix of one attention, and where it finds what else it needs.

    Each thread has its own moment, as in forwards.Residual.
    """

    __slots__ = ("bias", "eager", "kept", "module", "op")

    def __init__(
        self, op: PrefixOp, module: nn.Module, bias: nn.Module | None, eager: Callable[..., Any] | None
    ) -> None:
        self.op = op
        self.module = module
        self.bias = bias
        self.eager = eager
        self.kept: dict[int, Moment] = {}

    def see(self) -> Moment:
        """Return the moment of the present call."""
        return self.kept[0 if is_compiling() else get_ident()]

    def take(self) -> Moment:
        """Return the moment of the present call, for the last time."""
        return self.kept.pop(0 if is_compiling() else get_ident())


class PrefixForward:
    """Runs an attention that finds a prefix in front of its keys and values."""

    __slots__ = ("front", "run", "shadows")

    def __init__(self, front: InFront, shadows: tuple[nn.Module, nn.Module]) -> None:
        self.front = front
        self.run = type(front.module).forward
        self.shadows = shadows

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the attention returns; its first argument is its input (batch, sequence, width)."""
        front = self.front
        hidden = args[0] if args else kwargs["hidden_states"]
        thread = 0 if is_compiling() else get_ident()
        keys, values = front.op(hidden)
        rows = (hidden.shape[0], -1, -1, -1)
        front.kept[thread] = Moment(keys.expand(rows), values.expand(rows), _start(front, kwargs))
        output = self.run(self.shadows[front.module.training], *args, **kwargs)
        if thread in front.kept:
            front.take()
            raise UnsupportedError(
                f"{type(front.module).__name__} does not call the attention function, so it would ignore its prefix",
                hint="load the model with attn_implementation='eager' or 'sdpa'",
            )
        return output


def _start(front: InFront, kwargs: Mapping[str, Any]) -> Any:
    """Return the number of the first position of a call: how many the cache holds already."""
    cache = kwargs.get("past_key_values")
    if cache is None or (front.bias is None and not front.op.shift):
        return 0
    start = cache.get_seq_length(vars(front.module)["layer_idx"])
    # A static cache gives a view of the number that it is about to raise.
    return start.clone() if isinstance(start, torch.Tensor) else start


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """Return what the model's own attention function gives with the prefix in front; the registered function."""
    front: InFront = vars(module)[ATTRIBUTE]
    moment = front.take()
    original = vars(front.module)["config"]._attn_implementation
    if original not in SUPPORTED:
        raise UnsupportedError(
            f"a prefix cannot stand in front of {original} attention",
            hint="load the model with attn_implementation='eager' or 'sdpa'",
        )
    length, text = front.op.length, key.shape[-2]
    if length:
        attention_mask = _widened(attention_mask, query, text, module, front, moment, kwargs)
        key = torch.cat((moment.keys.to(key.dtype), key), dim=-2)
        value = torch.cat((moment.values.to(value.dtype), value), dim=-2)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = _bias(kwargs["position_bias"], front, moment)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(original, front.eager)
    return function(module, query, key, value, attention_mask, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)


def _widened(
    mask: Tensor | None,
    query: Tensor,
    text: int,
    module: nn.Module,
    front: InFront,
    moment: Moment,
    kwargs: Mapping[str, Any],
) -> Tensor | None:
    """Return the mask of the text with columns for the prefix in front, None where every query sees every key.

    text: number of keys of the text.
    """
    queries, length = query.shape[-2], front.op.length
    window = kwargs.get("sliding_window") if front.op.shift else None
    if mask is None:
        mask = _implied(queries, text, query.device, causal=_is_causal(module, front, kwargs))
        if mask is None and window is None:
            return None
    if mask is None:
        mask = torch.ones(1, 1, queries, text, dtype=torch.bool, device=query.device)
    if front.op.padded_bonus:
        mask = _additive(mask, query.dtype)
    columns = _columns(mask, front.op)
    if window is not None:
        positions = torch.arange(queries, device=mask.device) + moment.start + front.op.shift
        behind = positions[:, None] - torch.arange(length, device=mask.device) >= window
        columns = columns.expand(-1, -1, queries, -1).masked_fill(behind, _hidden(mask))
        mask = mask.expand(-1, -1, queries, -1)
    return torch.cat((columns, mask), dim=-1)


def _columns(mask: Tensor, op: PrefixOp) -> Tensor:
    """Return what stands in a mask for a prefix that every query sees (…, queries, length)."""
    shape = (*mask.shape[:-1], op.length)
    if mask.dtype == torch.bool:
        return mask.new_ones(shape)
    padded = (mask <= _hidden(mask)).any() if op.padded_bonus else None
    return mask.new_zeros(shape) if padded is None else (padded * op.padded_bonus).to(mask.dtype).expand(shape)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask that is added to the scores."""
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)


def _hidden(mask: Tensor) -> float | bool:
    """Return what stands in a mask for a key that is not seen."""
    return False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min


def _is_causal(module: nn.Module, front: InFront, kwargs: Mapping[str, Any]) -> bool:
    """Return whether the attention function takes a missing mask for a causal one."""
    if vars(front.module)["config"]._attn_implementation == "eager":
        return False
    said = kwargs.get("is_causal")
    return bool(vars(module).get("is_causal", True) if said is None else said)


def _implied(queries: int, keys: int, device: torch.device, *, causal: bool) -> Tensor | None:
    """Return the mask that a missing one stands for: the queries are the first positions of the text."""
    if not causal or queries == 1:
        return None
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device).tril()


def _bias(bias: Tensor, front: InFront, moment: Moment) -> Tensor:
    """Return the relative position bias (1 or batch, heads, queries, keys) for prefix and text."""
    op = front.op
    if front.bias is None or op.bias == "text":
        return pad(bias, (op.length, 0)) if op.length else bias
    queries, keys = bias.shape[-2], bias.shape[-1] + op.length
    if op.bias == "none":
        return bias.new_zeros(1, bias.shape[1], queries, keys)
    start = moment.start + op.shift
    found: Tensor = front.bias.compute_bias(queries, keys, device=bias.device, past_seen_tokens=start)  # type: ignore[operator]
    return found.to(bias.dtype)


# How shadows are made ------------------------------------------------------------------------------------------------


def prefix_forward(op: PrefixOp, place: Attention, modules: Mapping[str, nn.Module]) -> PrefixForward:
    """Return the forward of an attention that has a prefix.

    Raises:
        UnsupportedError: the module's class calls no attention function.
    """
    module = modules[place.path]
    bias = None if place.bias is None else modules[place.bias]
    front = InFront(op, module, bias, _eager(module) if place.form == "interface" else None)
    make, forward = FORMS[place.form]
    shadows = []
    for training in (False, True):
        shadow = copy.copy(module)
        shadow.__dict__.pop("forward", None)
        shadow.__dict__ |= {"training": training, **make(front)}
        shadows.append(shadow)
    return forward(front, (shadows[0], shadows[1]))


def _eager(module: nn.Module) -> Callable[..., Any]:
    """Return the eager attention function that stands beside a module's class."""
    for cls in type(module).__mro__:
        beside = vars(sys.modules[cls.__module__])
        if "eager_attention_forward" in beside and "ALL_ATTENTION_FUNCTIONS" in beside:
            found: Callable[..., Any] = beside["eager_attention_forward"]
            return found
    raise UnsupportedError(
        f"{type(module).__name__} does not go through transformers' attention interface, as a prefix needs it"
    )


def _interface(front: InFront) -> dict[str, Any]:
    """Return what is other in a shadow: the name of the attention function."""
    config = copy.copy(vars(front.module)["config"])
    # Not through the property, which writes into configurations inside this one as well.
    config.__dict__["_attn_implementation_internal"] = IMPLEMENTATION
    return {"config": config, ATTRIBUTE: front}


def _gptj(front: InFront) -> dict[str, Any]:
    """Return what is other in a shadow: the method that computes the attention."""
    return {"_attn": GptjAttention(front)}


def _deberta(front: InFront) -> dict[str, Any]:
    """Return what is other in a shadow: the joint projection, and the bias that depends on distances."""
    return {"in_proj": DebertaRows(front), "disentangled_att_bias": DebertaBias(front)}


def _deberta_v2(front: InFront) -> dict[str, Any]:
    """Return what is other in a shadow: two projections, and the bias that depends on distances."""
    return {
        "key_proj": DebertaKeys(front),
        "value_proj": DebertaValues(front),
        "disentangled_attention_bias": DebertaV2Bias(front),
    }


class GptjAttention:
    """Stands for the method of GPT-J's attention that computes it from queries, keys and values."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> Any:
        """Return output (batch, heads, queries, head size) and weights."""
        moment = self.front.take()
        mask = None if attention_mask is None else pad(attention_mask, (self.front.op.length, 0))
        key = torch.cat((moment.keys.to(key.dtype), key), dim=-2)
        value = torch.cat((moment.values.to(value.dtype), value), dim=-2)
        return self.front.module._attn(query, key, value, mask)  # type: ignore[operator]


class DebertaV2Forward(PrefixForward):
    """For the attention of DeBERTa-v2, whose mask (batch, 1, queries, keys) holds 0 and 1."""

    __slots__ = ()

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the attention returns."""
        mask = pad(attention_mask, (self.front.op.length, 0), value=1)
        return super().__call__(hidden_states, mask, *args, **kwargs)


class DebertaForward(PrefixForward):
    """For the attention of DeBERTa, where queries, keys and values come from one map.

    The prefix therefore takes part as tokens whose queries ask for nothing; their answers are left out.
    """

    __slots__ = ()

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the attention returns."""
        n = self.front.op.length
        mask = pad(attention_mask, (n, 0, n, 0), value=1)
        context, weights = super().__call__(hidden_states, mask, *args, **kwargs)
        return context[:, n:], None if weights is None else weights[:, :, n:]


class DebertaRows:
    """Stands for DeBERTa's joint projection: rows of the prefix in front, ordered by head, then query, key, value."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return queries, keys and values (batch, length + sequence, 3 · width)."""
        module, moment = self.front.module, self.front.take()
        rows: Tensor = module.in_proj(hidden)  # type: ignore[operator]
        keys, values = moment.keys.to(rows.dtype), moment.values.to(rows.dtype)
        bias = module.v_bias.view(values.shape[1], 1, -1)  # type: ignore[operator, union-attr]
        # The attention adds this bias to all values.
        prefix = torch.cat((torch.zeros_like(keys), keys, values - bias), dim=-1)
        return torch.cat((_flat(prefix), rows), dim=1)


class DebertaBias:
    """Stands for the bias of DeBERTa: none for the prefix."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, query_layer: Tensor, key_layer: Tensor, *rest: Any) -> Tensor:
        """Return the bias (batch, heads, length + queries, length + keys)."""
        n = self.front.op.length
        text = (query_layer[:, :, n:], key_layer[:, :, n:])
        return pad(self.front.module.disentangled_att_bias(*text, *rest), (n, 0, n, 0))  # type: ignore[operator]


class DebertaKeys:
    """Stands for the key projection of DeBERTa-v2: keys of the prefix in front."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return keys (batch, length + sequence, width)."""
        rows: Tensor = self.front.module.key_proj(hidden)  # type: ignore[operator]
        return torch.cat((_flat(self.front.see().keys).to(rows.dtype), rows), dim=1)


class DebertaValues:
    """Stands for the value projection of DeBERTa-v2, which is called behind the key projection."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return values (batch, length + sequence, width)."""
        rows: Tensor = self.front.module.value_proj(hidden)  # type: ignore[operator]
        return torch.cat((_flat(self.front.take().values).to(rows.dtype), rows), dim=1)


class DebertaV2Bias:
    """Stands for the bias of DeBERTa-v2: none for the prefix."""

    __slots__ = ("front",)

    def __init__(self, front: InFront) -> None:
        self.front = front

    def __call__(self, query_layer: Tensor, key_layer: Tensor, *rest: Any) -> Tensor:
        """Return the bias (batch · heads, queries, length + keys)."""
        n = self.front.op.length
        bias = self.front.module.disentangled_attention_bias(query_layer, key_layer[:, n:], *rest)  # type: ignore[operator]
        return pad(bias, (n, 0))


def _flat(heads: Tensor) -> Tensor:
    """Return (batch, length, heads · size) of (batch, heads, length, size)."""
    return heads.transpose(1, 2).flatten(2)


FORMS: Mapping[str, tuple[Callable[[InFront], dict[str, Any]], type[PrefixForward]]] = {
    "interface": (_interface, PrefixForward),
    "gptj": (_gptj, PrefixForward),
    "deberta": (_deberta, DebertaForward),
    "deberta_v2": (_deberta_v2, DebertaV2Forward),
}
"""sites.AttentionForm → what is other in its shadows, and their forward."""
