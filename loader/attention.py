"""Prefixes on the forward path: how an attention comes to find keys and values in front of its own.

An attention that goes through transformers' attention interface runs on a *shadow*: a copy of the module that shares
everything but its `config`, whose attention implementation is called IMPLEMENTATION. That is one registered function
for all models. It puts the prefix in front, widens the mask, and calls what the model's own configuration names. The
prefix joins behind the cache, at every call, so the cache never holds it. The few attentions that are written
otherwise have shadows of their own kinds; see attention_forms.py.

Nothing is written into the model or its configuration; the forward of the module is the only thing that is replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.compiler import is_compiling
from torch.nn.functional import pad
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import UnsupportedError
from . import prefix_masks as masks
from .combined_prefixes import Filled

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..methods import PrefixOp
    from .prefix_filling import Filling

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
        seen: which of them each row sees (batch, 1, 1, length), or None for all.
        start: number of the call's first position.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor | None
    start: Any


class InFront:
    """The prefix of one attention, and where it finds what else it needs.

    Each thread has its own moment, as in site_forwards.Residual.
    """

    __slots__ = ("bias", "eager", "filling", "kept", "module", "op")

    def __init__(
        self,
        op: PrefixOp,
        module: nn.Module,
        bias: nn.Module | None,
        eager: Callable[..., Any] | None,
        filling: Filling | None,
    ) -> None:
        """Make it; filling is what stands in front of shorter prefixes, None where no row sees it."""
        self.op = op
        self.module = module
        self.bias = bias
        self.eager = eager
        self.filling = filling
        self.kept: dict[int, Moment] = {}

    def function(self, implementation: str) -> Callable[..., Any]:
        """Return the attention function of this name that belongs to the module."""
        if implementation == "eager" and self.eager is not None:
            return self.eager
        found: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[implementation]
        return found

    def widened(
        self, mask: Tensor | None, query: Tensor, key: Tensor, seen: Tensor | None, implementation: str
    ) -> Tensor | None:
        """Return the mask of the text with columns for the prefix in front."""
        if self.filling is not None and seen is not None:
            mask = self.filling.widened(mask, query, key, self.op, seen, implementation)
        else:
            bonus = self.op.padded_bonus if implementation == "sdpa" else 0.0
            mask = masks.widened(mask, query, key, self.op, seen, bonus)
        # Eager attention adds its mask to the scores, whatever that is.
        return masks.additive(mask, query.dtype) if mask is not None and implementation == "eager" else mask

    def see(self) -> Moment:
        """Return the moment of the present call."""
        return self.kept[0 if is_compiling() else get_ident()]

    def take(self) -> Moment:
        """Return the moment of the present call, for the last time."""
        return self.kept.pop(0 if is_compiling() else get_ident())


class PrefixForward:
    """Runs an attention that finds a prefix in front of its keys and values."""

    __slots__ = ("__signature__", "front", "run", "shadows")

    def __init__(self, front: InFront, shadows: tuple[nn.Module, nn.Module]) -> None:
        self.front = front
        self.run = type(front.module).forward
        self.__signature__ = inspect.signature(front.module.forward)
        self.shadows = shadows

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the attention returns; its first argument is its input (batch, sequence, width)."""
        front = self.front
        hidden = args[0] if args else kwargs["hidden_states"]
        thread = 0 if is_compiling() else get_ident()
        keys, values, seen = front.op(hidden)
        rows = (hidden.shape[0], -1, -1, -1)
        seen = None if seen is None else seen[:, None, None, :]
        if isinstance(front.op, Filled) and front.filling is not None:
            if seen is not None:
                keys, values = front.filling.put(keys, seen), front.filling.put(values, seen)
            told = front.op.unraised(hidden)
            seen = None if told is None else told[:, None, None, :]
        moment = Moment(keys.expand(rows), values.expand(rows), seen, _start(front, kwargs))
        front.kept[thread] = moment
        output = self.attend(moment, args, kwargs)
        if thread in front.kept:
            front.take()
            raise UnsupportedError(
                f"{type(front.module).__name__} does not call the attention function, so it would ignore its prefix",
                hint="load the model with attn_implementation='eager' or 'sdpa'",
            )
        return output

    def attend(self, moment: Moment, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what the module's shadow makes of the arguments."""
        return self.run(self.shadows[self.front.module.training], *args, **kwargs)


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
    if front.op.length:
        window = kwargs.get("sliding_window") if front.op.shift else None
        if attention_mask is None and original != "eager":
            attention_mask = masks.implied(query, key, causal=_is_causal(module, kwargs))
        attention_mask = front.widened(attention_mask, query, key, moment.seen, original)
        if window is not None:
            attention_mask = masks.windowed(attention_mask, query, key, front.op, moment.start, window)
        key = torch.cat((moment.keys.to(key.dtype), key), dim=-2)
        value = torch.cat((moment.values.to(value.dtype), value), dim=-2)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = _bias(kwargs["position_bias"], front, moment)
    return front.function(original)(module, query, key, value, attention_mask, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)


def _is_causal(module: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Return whether an attention function takes a missing mask for a causal one."""
    said = kwargs.get("is_causal")
    return bool(vars(module).get("is_causal", True) if said is None else said)


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
