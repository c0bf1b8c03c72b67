"""The callables that stand in a module's `forward` while an adapter is active.

They are plain objects with slots, not closures: a deep copy of the model copies them with it, pickle knows them, and
torch.compile sees through them. `original` is the forward that they stand in front of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from dataclasses import fields
from threading import get_ident
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.compiler import is_compiling

from ..errors import UnsupportedError, UsageError
from ..methods import HEAD_ARGUMENTS, Seen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..methods import BlockOp, EmbeddingOp, HeadOp, LinearOp, SiteOp
    from .combined import TaskIds

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
        self.names = _positional(self.__signature__)

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return name → argument of a call."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}


def _positional(signature: inspect.Signature) -> list[str]:
    return [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


class Residual(Pickled):
    """Remembers the residual stream x that enters a sublayer until the site takes it.

    Each thread has its own, so that two requests served by one model never mix. Under torch.compile, which traces one
    thread, there is one slot.
    """

    __slots__ = ("argument", "kept", "original", "rivals")

    def __init__(self, original: Forward, argument: int = 0) -> None:
        self.original = original
        self.argument = argument
        self.kept: dict[int, Any] = {}
        self.rivals: tuple[Residual, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; one of its arguments is x (batch, sequence, width)."""
        thread = 0 if is_compiling() else get_ident()
        place = self.argument
        self.kept[thread] = args[place] if place < len(args) else list(kwargs.values())[place - len(args)]
        for rival in self.rivals:
            # What an interrupted pass left behind must not be taken for a stream that has just entered.
            rival.kept.pop(thread, None)
        return self.original(*args, **kwargs)


class LastOutput(Pickled):
    """Remembers what a module inside the model gave, until a site or a head takes it."""

    __slots__ = ("kept", "original")

    def __init__(self, original: Forward) -> None:
        self.original = original
        self.kept: dict[int, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module."""
        output = self.original(*args, **kwargs)
        self.kept[0 if is_compiling() else get_ident()] = output
        return output

    def take(self) -> Any:
        """Return it, once."""
        return self.kept.pop(0 if is_compiling() else get_ident())


class SiteForward(Pickled):
    """Runs the module that yields d and lets the adapter act on it.

    Where the module serves several sites of a layer, it is this one's turn if its residual stream has entered.
    """

    __slots__ = ("beside", "bypass", "keeps", "norm", "op", "original", "residual", "takes_turns")

    def __init__(
        self,
        original: Forward,
        op: SiteOp,
        *,
        residual: Residual | None,
        beside: LastOutput | None = None,
        norm: Forward | None,
        bypass: Bypass | None,
        keeps: bool,
        takes_turns: bool,
    ) -> None:
        self.original = original
        self.op = op
        self.residual = residual
        self.beside = beside
        self.norm = norm
        self.bypass = bypass
        self.keeps = keeps
        self.takes_turns = takes_turns

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the adapted d (batch, sequence, width)."""
        d = self.original(*args, **kwargs)
        x = None
        if self.residual is not None:
            thread = 0 if is_compiling() else get_ident()
            if self.takes_turns and thread not in self.residual.kept:
                return d
            # Taken out, so that no activation outlives its layer; another site of the layer may still want it.
            x = self.residual.kept[thread] if self.keeps else self.residual.kept.pop(thread)
            if self.beside is not None:
                x = x + self.beside.take()
        return self.act(d, x)

    def act(self, d: Any, x: Any) -> Any:
        """Return what takes the place of d; the result of a norm that is left out is put where the norm finds it."""
        u = self.op(d, x, self.norm)
        if self.bypass is not None:
            self.bypass.kept[0 if is_compiling() else get_ident()] = u
        return u


class ExchangedForward(SiteForward):
    """For sites where d and x change places: the adapter acts on the residual stream, and d is added behind it."""

    __slots__ = ()
    norm: Forward
    bypass: Bypass

    def act(self, d: Any, x: Any) -> Any:
        """Return d, and leave the result where the norm behind the residual connection finds it."""
        u = self.op(x, d, self.norm)
        self.bypass.kept[0 if is_compiling() else get_ident()] = u if self.op.replaces_norm else self.norm(u + d)
        return d


class Bypass(Pickled):
    """Stands for a norm whose result the adapter replaces by its own output, at the one call that follows the site."""

    __slots__ = ("kept", "original")

    def __init__(self, original: Forward) -> None:
        self.original = original
        self.kept: dict[int, Any] = {}

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return what the site left here, else what the norm gives."""
        thread = 0 if is_compiling() else get_ident()
        left: Tensor = self.kept.pop(thread) if thread in self.kept else self.original(hidden)
        return left


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


class Entered(NamedTuple):
    """What a stack of layers was called with.

    Attributes:
        mask: attention mask of its own text, None without one or where it reads no text.
        memory: mask of the text that it attends to besides, all ones if there is no mask of it; where it reads no
            text, that of the model around it; None without one.
        follows: whether a cache holds the beginning of the text already.
    """

    mask: Tensor | None
    memory: Tensor | None
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
            return Entered(None, whole.entered().mask if whole.is_running() else None, follows=False)
        memory, source = inputs.get("encoder_attention_mask"), inputs.get("encoder_hidden_states")
        if memory is None and source is not None:
            memory = source.new_ones(source.shape[:2])
        cache = inputs.get("past_key_values")
        follows = cache is not None and bool(cache.get_seq_length() > 0)
        mask = inputs.get("attention_mask")
        return Entered(mask if cache is None else _of_tokens(mask), memory, follows)

    def is_running(self) -> bool:
        """Return whether the stack is being run at the moment."""
        return (0 if is_compiling() else get_ident()) in self.running

    def entered(self) -> Entered:
        """Return what the stack was called with."""
        return self.kept[0 if is_compiling() else get_ident()]


def _of_tokens(mask: Any) -> Any:
    """Return the mask (batch, sequence) behind one that `generate` made ready for a static cache.

    That is (batch, heads, queries, keys), boolean or added to the scores, or one for each kind of layers. In each of
    them a token sees itself unless it is padding.
    """
    if isinstance(mask, dict):
        mask = next(iter(mask.values()))
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        return mask
    itself = mask[:, 0].diagonal(dim1=-2, dim2=-1)
    return (itself if itself.dtype == torch.bool else itself == 0).long()


class BlockForward(Pickled):
    """Runs a layer and lets the adapter act on the hidden states behind it."""

    __slots__ = ("inputs", "op", "original")

    def __init__(self, original: Forward, op: BlockOp, inputs: StackInputs) -> None:
        self.original = original
        self.op = op
        self.inputs = inputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer returns, its hidden states (batch, sequence, width) adapted."""
        output = self.original(*args, **kwargs)
        mask, memory, follows = self.inputs.entered()
        if follows:
            return output
        if isinstance(output, tuple):
            return (self.op(output[0], mask, memory), *output[1:])
        return self.op(output, mask, memory)


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


class Repeated(Called):
    """Repeats the batch in front of the model, so that several adapters side by side each get a copy.

    While `generate` runs its inputs are repeated already.
    """

    __slots__ = ("copies", "generating")

    def __init__(self, original: Forward, copies: int) -> None:
        super().__init__(original)
        self.copies = copies
        self.generating: set[int] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on copies of every input that has a row for each example."""
        inputs = self.arguments(args, kwargs)
        if self.generating and get_ident() in self.generating:
            return self.original(**inputs)
        return self.original(**repeated(inputs, self.copies))


class WithTasks(Called):
    """Takes the rows' tasks from the model's inputs, for operations deep inside."""

    __slots__ = ("ids",)

    def __init__(self, original: Forward, ids: TaskIds) -> None:
        super().__init__(original)
        self.ids = ids
        self.__signature__ = _with(self.__signature__, ("task_ids",))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        inputs = self.arguments(args, kwargs)
        given = inputs.pop("task_ids", None)
        device = next((v.device for v in inputs.values() if isinstance(v, torch.Tensor)), torch.device("cpu"))
        self.ids.remember(given, device)
        return self.original(**inputs)


class Generate(Pickled):
    """The model's generate on a repeated batch: the answers of the first adapter, then those of the next, and so on."""

    __slots__ = ("original", "repeats")

    def __init__(self, original: Forward, repeats: Repeated) -> None:
        self.original = original
        self.repeats = repeats

    def __call__(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return the generated ids (copies · batch, length)."""
        found = {key: value for key, value in {"inputs": inputs, **kwargs}.items() if value is not None}
        self.repeats.generating.add(get_ident())
        try:
            return self.original(*args, **repeated(found, self.repeats.copies))
        finally:
            self.repeats.generating.discard(get_ident())


def repeated(inputs: dict[str, Any], copies: int) -> dict[str, Any]:
    """Return inputs with every tensor of the batch's rows repeated: the whole batch, then once more, and so on."""
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor) and value.ndim]
    rows = tensors[0].shape[0] if tensors else 0

    def of_batch(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == rows

    return {
        key: value.repeat(copies, *(1,) * (value.ndim - 1)) if of_batch(value) else value
        for key, value in inputs.items()
    }


class Idle:
    """Stands for the output embeddings of a model whose own head does not run."""

    __slots__ = ()

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the hidden states as they are."""
        return hidden


class NoGenerate:
    """The model's generate while a head answers that does not tell the next token."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the head of the active adapter tells no next token, so nothing can be generated with it",
            hint="activate an adapter with a causal_lm_head or a seq2seq_lm_head, or one without a head",
        )


class HeadForward(Pickled):
    """Runs the base model and answers with what the adapter's head makes of its hidden states.

    A head that the model has of its own does not run: where the base model is a module inside the model, only that
    is called.
    """

    __slots__ = ("__signature__", "classes", "head", "hidden", "invert", "names", "refused", "returns_dict", "run")

    def __init__(
        self,
        run: Forward,
        head: HeadOp,
        *,
        own: inspect.Signature,
        base: inspect.Signature,
        hidden: LastOutput | None,
        invert: Callable[[Tensor], Tensor] | None,
        returns_dict: bool,
    ) -> None:
        """Make the forward.

        run: calls the base model; own, base: signatures of the whole model and of the base model.
        hidden: what remembers the hidden states where the base model does not return them.
        invert: the inverse of the active invertible adapter.
        """
        self.run = run
        self.head = head
        self.hidden = hidden
        self.invert = invert
        self.returns_dict = returns_dict
        self.names = _positional(own)
        others = (*HEAD_ARGUMENTS, *(name for name in own.parameters if name not in base.parameters))
        kept = (*head.takes, "return_dict", "num_items_in_batch")
        self.refused = tuple(name for name in dict.fromkeys(others) if name not in kept)
        classes: tuple[Any, ...] = head.outputs()
        self.classes = tuple((cls, tuple(f.name for f in fields(cls))) for cls in classes)
        # Trainers and generate() read the signature to know what the model takes.
        self.__signature__ = _with(base, head.takes, without=self.refused)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the head's answer, a ModelOutput (or a tuple) with a loss if labels are given."""
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        items, returns_dict = given.pop("num_items_in_batch", None), given.pop("return_dict", None)
        self._refuse(given)
        entered = self.head.enter(given)
        base = self.run(**entered, return_dict=True)
        hidden = base["last_hidden_state"] if self.hidden is None else self.hidden.take()[0]
        seen = Seen(hidden, base.get("pooler_output"), given, entered, self.invert)
        found = self.head(seen)
        loss = self.head.loss(found, seen, items)
        cls, names = self.classes["encoder_last_hidden_state" in base]
        rest = {name: base.get(name) for name in names if name != "loss" and name not in found}
        answer = cls(loss=loss, **found, **rest)
        return answer if (self.returns_dict if returns_dict is None else returns_dict) else answer.to_tuple()

    def _refuse(self, given: dict[str, Any]) -> None:
        """Take out arguments that mean nothing to the head, and raise if one of them is meant."""
        for name in self.refused:
            value = given.pop(name, None)
            if value is not None and not (isinstance(value, int) and not value):
                raise UsageError(
                    f"the head of the active adapter does not take {name}",
                    hint=f"it takes {', '.join(self.head.takes)}; activate the adapter whose head is meant",
                )


def _with(signature: inspect.Signature, names: Iterable[str], *, without: Container[str] = ()) -> inspect.Signature:
    """Return a signature with more arguments that may be left out, and without some."""
    parameters = [p for p in signature.parameters.values() if p.name not in without]
    there = {p.name for p in parameters}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names if name not in there
    ]
    at = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    return signature.replace(parameters=[*parameters[:at], *more, *parameters[at:]])
