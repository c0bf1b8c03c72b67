"""What a stack of layers was called with, kept for operations deep inside that need it."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.compiler import is_compiling

from .forwards import Called, Forward

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods import Ahead


class Entered(NamedTuple):
    """What a stack of layers was called with.

    Attributes:
        mask: attention mask of its own text, None without one or where it reads no text.
        memory: mask of the text that it attends to besides, all ones if there is no mask of it; where it reads no
            text, that of the model around it; None without one.
        knows_memory: whether there is a mask of what it attends to besides.
        follows: whether a cache holds the beginning of the text already.
    """

    mask: Tensor | None
    memory: Tensor | None
    knows_memory: bool
    follows: bool


class StackInputs(Called):
    """Remembers what a stack of layers was called with, for operations deep inside that need it.

    Each thread has its own, as in Residual. The last call's stay until the next one: the layers may run again in the
    backward pass, where they are checkpointed.
    """

    __slots__ = ("around", "kept", "running")

    def __init__(self, original: Forward, *, around: StackInputs | None = None) -> None:
        """Make it; around is that of the model around a stack that reads no text."""
        super().__init__(original)
        self.around = around
        self.running: set[int] = set()
        self.kept: dict[int, Entered] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stack."""
        thread = 0 if is_compiling() else get_ident()
        self.kept[thread] = self._entered(self.arguments(args, kwargs))
        self.running.add(thread)
        try:
            return self.original(*args, **kwargs)
        finally:
            self.running.discard(thread)

    def _entered(self, inputs: dict[str, Any]) -> Entered:
        if self.around is not None:
            whole = self.around
            memory = whole.entered().mask if whole.is_running() else None
            return Entered(None, memory, knows_memory=memory is not None, follows=False)
        memory, source = inputs.get("encoder_attention_mask"), inputs.get("encoder_hidden_states")
        known = memory is not None
        if memory is None and source is not None:
            memory = source.new_ones(source.shape[:2])
        cache = inputs.get("past_key_values")
        follows = cache is not None and bool(cache.get_seq_length() > 0)
        mask = inputs.get("attention_mask")
        made = cache is not None or isinstance(mask, dict)
        return Entered(_of_tokens(mask) if made else mask, memory, known, follows)

    def is_running(self) -> bool:
        """Return whether the stack is being run at the moment."""
        return (0 if is_compiling() else get_ident()) in self.running

    def entered(self) -> Entered:
        """Return what the stack was called with."""
        return self.kept[0 if is_compiling() else get_ident()]


class PromptedText:
    """The text that a prompt has joined: where that stands, and the mask that the text came with.

    Each thread has its own mask, which stays until the next call, as in StackInputs.
    """

    __slots__ = ("ahead", "kept")

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self.kept: dict[int, Tensor | None] = {}

    def remember(self, mask: Tensor | None) -> None:
        """Keep the mask (batch, text), None without one."""
        self.kept[0 if is_compiling() else get_ident()] = mask

    def mask(self) -> Tensor | None:
        """Return the mask of the present call."""
        return self.kept[0 if is_compiling() else get_ident()]


def _of_tokens(mask: Any) -> Any:
    """Return the mask (batch, sequence) behind one that `generate`, or a model around the stack, made ready.

    That is (batch, heads, queries, keys), boolean or added to the scores, or one for each kind of layers. In each of
    them a token sees itself unless it is padding.
    """
    if isinstance(mask, dict):
        mask = next(iter(mask.values()))
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        return mask
    itself = mask[:, 0].diagonal(dim1=-2, dim2=-1)
    return (itself if itself.dtype == torch.bool else itself == 0).long()
