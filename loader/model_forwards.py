"""The callables in front of the whole model: batches that are repeated, tasks of rows, heads that answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from dataclasses import fields
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UsageError
from ..methods import HEAD_ARGUMENTS, Seen
from .forwards import Called, Forward, Pickled, positional
from .site_forwards import LastOutput

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods import HeadOp
    from .combined_tasks import TaskIds


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
        self.names = positional(own)
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
        encoded = base.get("encoder_last_hidden_state")
        seen = Seen(hidden, base.get("pooler_output"), given, entered, self.invert, encoded)
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
