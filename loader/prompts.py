"""Prompts on the forward path: vectors that join the sequence, and everything that has to grow with it."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch.compiler import is_compiling
from torch.nn.functional import pad

from ..errors import UnsupportedError
from .forwards import Called, Pickled

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from ..methods import PromptOp
    from .forwards import Forward
    from .stack_inputs import PromptedText

IGNORED = -100
"""The label that the losses of transformers leave out."""


class LengthenedModel(Called):
    """Runs a model whose embedding module puts a prompt behind its output, and widens the mask for it.

    makes_mask: whether the model itself makes a mask as long as the text where it is given none.
    """

    __slots__ = ("kept", "makes_mask", "op", "text")

    def __init__(self, original: Forward, op: PromptOp, text: PromptedText, *, makes_mask: bool) -> None:
        super().__init__(original)
        self.op = op
        self.text = text
        self.makes_mask = makes_mask
        self.kept: dict[int, Tensor | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model returns, longer by the prompt."""
        given = self.arguments(args, kwargs)
        if given.get("past_key_values") is not None:
            raise UnsupportedError("a prompt behind the embeddings cannot go together with a cache")
        mask = given.get("attention_mask")
        self.text.remember(mask)
        if mask is None and self.makes_mask:
            text = given.get("inputs_embeds")
            mask = torch.ones_like(given["input_ids"]) if text is None else text.new_ones(text.shape[:2])
            given["attention_mask"] = mask
        self.kept[0 if is_compiling() else get_ident()] = mask
        # In front even where the prompt stands behind the first token, as in `adapters`.
        return self.original(**given | _widened(given, "attention_mask", self.op))

    def mask(self) -> Tensor | None:
        """Return the mask as it was given, for the text alone."""
        return self.kept[0 if is_compiling() else get_ident()]


class LengthenedEmbeddings(Pickled):
    """Runs an embedding module and puts a prompt into its output."""

    __slots__ = ("model", "op", "original")

    def __init__(self, original: Forward, op: PromptOp, model: LengthenedModel) -> None:
        self.original = original
        self.op = op
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the longer embeddings (batch, sequence, width), and what else the module returns."""
        if "mask" in kwargs:
            kwargs["mask"] = self.model.mask()
        output = self.original(*args, **kwargs)
        text = output[0] if isinstance(output, tuple) else output
        at = self.model.text.ahead.at
        longer = torch.cat((text[:, :at], _rows(self.op, text), text[:, at:]), dim=1)
        return (longer, *output[1:]) if isinstance(output, tuple) else longer


class PaddingSeen(Called):
    """Runs a model in which padding acts upon a prompt: its positions see it, or the text sees more of the prompt."""

    __slots__ = ("model", "mutual", "op")

    def __init__(self, original: Forward, op: PromptOp, model: PreTrainedModel, *, mutual: bool) -> None:
        super().__init__(original)
        self.op = op
        self.model = model
        self.mutual = mutual

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model returns; its mask is (batch, prompt and text)."""
        given = self.arguments(args, kwargs)
        mask = given.get("attention_mask")
        # Eager attention adds the mask of the keys to the scores of all queries alike.
        if mask is not None and (self.mutual or self.model.config._attn_implementation != "eager"):
            given["attention_mask"] = self._square(mask.bool())
        return self.original(**given)

    def _square(self, seen: Tensor) -> Tensor:
        """Return the mask (batch, 1, queries, keys) in the form that the model's attention takes."""
        prompt = torch.arange(seen.shape[1], device=seen.device) < self.op.length
        square = seen[:, None, None, :] & (seen[:, None, :, None] | (not self.mutual))
        square = square | prompt[:, None] if self.op.sees_padding else square
        square = square | prompt
        implementation = self.model.config._attn_implementation
        if self.mutual or (implementation == "sdpa" and not self.op.padded_bonus):
            return square
        if implementation != "sdpa":
            raise UnsupportedError(
                f"{implementation} attention has no mask for this prompt",
                hint="load the model with attn_implementation='eager' or 'sdpa'",
            )
        dtype = self.model.dtype
        bonus = (prompt & ~prompt[:, None]) * (~seen).any() * self.op.padded_bonus
        return bonus.to(dtype).expand(square.shape).masked_fill(~square, torch.finfo(dtype).min)


class PromptedModel(Called):
    """Runs a model with a prompt in front of the word embeddings of its text."""

    __slots__ = ("op", "text", "tokens")

    def __init__(
        self, original: Forward, op: PromptOp, model: nn.Module, tokens: nn.Module, text: PromptedText
    ) -> None:
        super().__init__(original)
        self.op = op
        self.tokens = tokens
        self.text = text
        if "inputs_embeds" not in self.names:
            raise UnsupportedError(
                f"a {type(model).__name__} takes no inputs_embeds, so no prompt can stand among them"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model returns, longer by the prompt; behind a cache that holds the prompt, by nothing."""
        given = self.arguments(args, kwargs)
        self.text.remember(given.get("attention_mask"))
        given |= _widened(given, "attention_mask", self.op)
        cache = given.get("past_key_values")
        positions = given.get("position_ids")
        if cache is not None and cache.get_seq_length():
            return self.original(**given if positions is None else given | {"position_ids": positions + self.op.length})
        text = given.get("inputs_embeds")
        text = self.tokens(given["input_ids"]) if text is None else text
        given |= {"input_ids": None, "inputs_embeds": torch.cat((_rows(self.op, text), text), dim=1)}
        if given.get("token_type_ids") is not None:
            given["token_type_ids"] = pad(given["token_type_ids"], (self.op.length, 0))
        if positions is not None:
            ahead = torch.arange(self.op.length, device=positions.device).expand(*positions.shape[:-1], -1)
            given["position_ids"] = torch.cat((ahead, positions + self.op.length), dim=-1)
        return self.original(**given)


class PromptReader(Called):
    """Runs a decoder that reads what an encoder made of prompt and text."""

    __slots__ = ("op",)

    def __init__(self, original: Forward, op: PromptOp) -> None:
        super().__init__(original)
        self.op = op

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the decoder returns."""
        given = self.arguments(args, kwargs)
        return self.original(**given | _widened(given, "encoder_attention_mask", self.op))


class PromptedHead(Called):
    """Runs a model with a head of its own: labels for each token grow with the prompt.

    The head sees embeddings in place of ids, so that it does not look among them for the end of a text that has moved.
    """

    __slots__ = ("op", "tokens")

    def __init__(self, original: Forward, op: PromptOp, tokens: nn.Module | None) -> None:
        super().__init__(original)
        self.op = op
        self.tokens = tokens

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model returns."""
        given = self.arguments(args, kwargs)
        ids, labels, cache = (given.get(name) for name in ("input_ids", "labels", "past_key_values"))
        if labels is not None and ids is not None and labels.shape == ids.shape and not labels.is_floating_point():
            given["labels"] = pad(labels, (self.op.length, 0), value=IGNORED)
        if self.tokens is not None and ids is not None and not (cache is not None and cache.get_seq_length()):
            given |= {"input_ids": None, "inputs_embeds": self.tokens(ids)}
        return self.original(**given)


def _rows(op: PromptOp, text: Tensor) -> Tensor:
    """Return the prompt for every row (batch, length, width)."""
    return op().to(text.dtype).expand(text.shape[0], -1, -1)


def _widened(given: dict[str, Any], name: str, op: PromptOp) -> dict[str, Any]:
    """Return the mask of this name with ones for the prompt in front, {} if there is none."""
    mask = given.get(name)
    if mask is None:
        return {}
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        raise UnsupportedError(
            f"{name} is not a mask (batch, sequence), as a prompt needs it", hint="do not use a static cache with it"
        )
    return {name: pad(mask, (op.length, 0), value=1)}
