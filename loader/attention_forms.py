"""The forward of an attention with a prefix, for every way in which attentions are written (sites.AttentionForm)."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import UnsupportedError
from . import prefix_masks as masks
from .attention import ATTRIBUTE, IMPLEMENTATION, InFront, Moment, PrefixForward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..methods import PrefixOp
    from ..sites import Attention
    from .prefix_filling import Filling


def prefix_forward(
    op: PrefixOp, place: Attention, modules: Mapping[str, nn.Module], filling: Filling | None = None
) -> PrefixForward:
    """Return the forward of an attention that has a prefix.

    filling: what stands in front of shorter prefixes, if rows may see it.

    Raises:
        UnsupportedError: the module's class calls no attention function, or its masks have no room for a bonus.
    """
    module = modules[place.path]
    if op.padded_bonus and place.form in ("deberta", "deberta_v2"):
        raise UnsupportedError(f"padded_bonus cannot be had at {place.path}, whose mask adds nothing to its scores")
    bias = None if place.bias is None else modules[place.bias]
    front = InFront(op, module, bias, _eager(module) if place.form == "interface" else None, filling)
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
        if "eager_attention_forward" in beside and beside.get("ALL_ATTENTION_FUNCTIONS") is ALL_ATTENTION_FUNCTIONS:
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
        mask = self.front.widened(attention_mask, query, key, moment.seen, "eager")
        key = torch.cat((moment.keys.to(key.dtype), key), dim=-2)
        value = torch.cat((moment.values.to(value.dtype), value), dim=-2)
        return self.front.module._attn(query, key, value, mask)  # type: ignore[operator]


class DebertaV2Forward(PrefixForward):
    """For the attention of DeBERTa-v2, whose mask (batch, 1, queries, keys) holds 0 and 1."""

    __slots__ = ()

    def attend(self, moment: Moment, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what the module's shadow makes of the arguments."""
        return super().attend(moment, (args[0], self.widened(moment, *args), *args[2:]), kwargs)

    def widened(self, moment: Moment, hidden: Tensor, mask: Tensor, *rest: Any) -> Tensor | None:
        """Return the mask with columns for the prefix."""
        return masks.widened(mask.bool(), hidden, hidden, self.front.op, moment.seen)


class DebertaForward(DebertaV2Forward):
    """For the attention of DeBERTa, where queries, keys and values come from one map.

    The prefix therefore takes part as tokens whose queries ask for nothing; their answers are left out.
    """

    __slots__ = ()

    def attend(self, moment: Moment, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what the module's shadow makes of the arguments."""
        n = self.front.op.length
        context, weights = super().attend(moment, args, kwargs)
        return context[:, n:], None if weights is None else weights[:, :, n:]

    def widened(self, moment: Moment, hidden: Tensor, mask: Tensor, *rest: Any) -> Tensor | None:
        """Return the mask with columns and rows for the prefix."""
        wider = super().widened(moment, hidden, mask)
        return None if wider is None else pad(wider, (0, 0, self.front.op.length, 0), value=1)


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
        bias = module.v_bias.view(values.shape[1], 1, -1)  # type: ignore[operator]
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
