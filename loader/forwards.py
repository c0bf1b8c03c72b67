"""The callables that stand in a module's `forward` while an adapter is active.

They are plain objects with slots, not closures: a deep copy of the model copies them with it, pickle knows them, and
torch.compile sees through them. `original` is the forward that they stand in front of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..methods import BlockOp, EmbeddingOp, LinearOp
    from .stack_inputs import PromptedText, StackInputs


Forward = Callable[..., Any]


class Pickled:
    """Has the forwards that it wraps pickled as those of their modules' classes.

    A bound method is pickled as the attribute of its module, and that attribute may be this very object.
    """

    __slots__ = ()

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, nn.Module]]:
        """Return the values, and the modules whose own forwards are wrapped."""
        state: Any = object.__getstate__(self)
        values = dict(state[1]) if isinstance(state, tuple) else dict(state or {})
        owners = {name: module for name, value in values.items() if (module := owner_of(value)) is not None}
        return {name: value for name, value in values.items() if name not in owners}, owners

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, nn.Module]]) -> None:
        """Take what __getstate__ returned."""
        values, owners = state
        for name, value in values.items():
            setattr(self, name, value)
        for name, module in owners.items():
            setattr(self, name, MethodType(type(module).forward, module))


def owner_of(forward: object) -> nn.Module | None:
    """Return the module whose forward this is, as its class has it; None for any other callable."""
    module = forward.__self__ if isinstance(forward, MethodType) else None
    if isinstance(module, torch.nn.Module) and getattr(forward, "__func__", None) is type(module).forward:
        return module
    return None


class Called(Pickled):
    """Base of forwards that read the arguments of a module by name."""

    __slots__ = ("__signature__", "names", "original")

    def __init__(self, original: Forward) -> None:
        self.original = original
        self.__signature__ = inspect.signature(original)
        self.names = positional(self.__signature__)

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return name → argument of a call."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}


def positional(signature: inspect.Signature) -> list[str]:
    """Return the names of the arguments that may be given by place."""
    return [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


class Mute(Pickled):
    """Stands for a module that adds something to the stream, and adds nothing."""

    __slots__ = ("original",)

    def __init__(self, original: Forward) -> None:
        self.original = original

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return zeros in the shape of the input."""
        return torch.zeros_like(hidden)


class LinearForward(Pickled):
    """Runs a linear map with an adapter around it."""

    __slots__ = ("op", "original")

    def __init__(self, original: Forward, op: LinearOp) -> None:
        self.original = original
        self.op = op

    def __call__(self, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        return self.op(self.original, x)


class BlockForward(Pickled):
    """Runs a layer and lets the adapter act on the hidden states behind it."""

    __slots__ = ("inputs", "op", "original", "text")

    def __init__(self, original: Forward, op: BlockOp, inputs: StackInputs, text: PromptedText | None) -> None:
        """Make it; text is what a prompt has joined, None without one."""
        self.original = original
        self.op = op
        self.inputs = inputs
        self.text = text

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer returns, its hidden states (batch, sequence, width) adapted."""
        output = self.original(*args, **kwargs)
        entered = self.inputs.entered()
        if entered.follows:
            return output
        text, mask = self.text, entered.mask
        ahead = None if text is None else text.ahead
        mask = mask if text is None else text.mask()
        if isinstance(output, tuple):
            return (self.op(output[0], mask, entered.memory, ahead), *output[1:])
        return self.op(output, mask, entered.memory, ahead)


class EmbeddingForward(Pickled):
    """Runs an embedding module and lets the adapter act on its output."""

    __slots__ = ("op", "original")

    def __init__(self, original: Forward, op: EmbeddingOp) -> None:
        self.original = original
        self.op = op

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the adapted embeddings (batch, sequence, width), and what else the module returns."""
        output = self.original(*args, **kwargs)
        return (self.op(output[0]), *output[1:]) if isinstance(output, tuple) else self.op(output)


class PositionsForward(Pickled):
    """Runs a module that reads the numbers of positions, and raises them; those of padding stay."""

    __slots__ = ("argument", "names", "original", "padding", "shift")

    def __init__(self, original: Forward, shift: int, module: nn.Module) -> None:
        self.original = original
        self.shift = shift
        self.padding = vars(module).get("padding_idx")
        self.names = list(inspect.signature(original).parameters)
        found = [name for name in ("position_ids", "input") if name in self.names]
        if not found:
            raise UnsupportedError(f"{type(module).__name__} takes no position_ids that a prefix could shift")
        self.argument = found[0]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returns for the positions behind a prefix."""
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        name = self.argument
        if given.get(name) is None:
            given["past_key_values_length"] = given.get("past_key_values_length", 0) + self.shift
        elif self.padding is None:
            given[name] = given[name] + self.shift
        else:
            given[name] = given[name] + self.shift * (given[name] != self.padding)
        return self.original(**given)


class InverseForward(Pickled):
    """Runs the output embeddings on what an invertible adapter makes of their input, backwards."""

    __slots__ = ("op", "original")

    def __init__(self, original: Forward, op: EmbeddingOp) -> None:
        self.original = original
        self.op = op

    def __call__(self, hidden: Tensor) -> Any:
        """Return the logits (batch, sequence, vocabulary)."""
        return self.original(self.op.inverse(hidden))


class EmbeddingsForward(Pickled):
    """Lets gradients enter a model whose base is frozen, where its layers are checkpointed with re-entrant autograd.

    Such a checkpoint gives gradients only to layers whose input needs one; without this, adapters inside would silently
    get none.
    """

    __slots__ = ("layer", "original")

    def __init__(self, original: Forward, layer: nn.Module) -> None:
        self.original = original
        self.layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the embeddings (batch, sequence, width)."""
        hidden = self.original(*args, **kwargs)
        if self.layer.__dict__.get("gradient_checkpointing") and torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_(True)
        return hidden
