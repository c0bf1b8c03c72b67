"""The contract between a method and the rest of the house.

A method is one file: its equation, a frozen configuration, the shapes of its tensors, how they start, and the small
callables that act in the forward pass. Where these are put, how they are stacked, swapped or merged is written once,
in loader/. Importing a method loads no torch; `initial` and `bind` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from ..adapter import MethodConfig
from ..errors import UsageError
from ..sites import Layout, Linear, Projection

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers.utils.generic import ModelOutput

    Tensor = torch.Tensor
    Normalise = Callable[[Tensor], Tensor]
    Apply = Callable[[Tensor], Tensor]

Shapes = dict[str, tuple[int, ...]]

Problem = Literal["regression", "single_label_classification", "multi_label_classification"]
"""What transformers calls the kinds of classification."""


class SiteOp(Protocol):
    """Acts at a residual site; see sites.Site for d, x and the norm."""

    reads_residual: bool
    """Whether the call needs x; where it does not, x is None and nothing is captured."""
    reads_norm: bool
    """Whether the call applies the sublayer's norm to what it reads."""
    replaces_norm: bool
    """Whether the result is the sublayer's final output, so that the model's own `norm(result + x)` is left out."""

    def __call__(self, d: Tensor, x: Tensor | None, norm: Normalise | None) -> Tensor:
        """Return the new d (batch, sequence, width); norm is None in pre-norm models."""
        ...

    def within(self, d: Tensor, x: Tensor | None, norm: Normalise | None) -> Tensor:
        """Return the d that another adapter takes over from this one: without what ends the sublayer."""
        ...

    def prepared(self, d: Tensor, x: Tensor | None, norm: Normalise | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the projections read, what the adapter's residual connection adds, and d + x where it has it."""
        ...

    def raw(self, t: Tensor) -> Tensor:
        """Return what the projections make of what they read, without residual: what AdapterFusion mixes."""
        ...

    def ended(self, u: Tensor, x: Tensor | None) -> Tensor:
        """Return what __call__ returns where `within` would return u."""
        ...


class LinearOp(Protocol):
    """Acts at a linear map y = W x + b of the base model; see sites.Linear."""

    def __call__(self, forward: Apply, x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs) for x (…, inputs); forward is the map without this adapter.

        For an embedding x are the ids (…), for a convolution (batch, channels, …).
        """
        ...

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias with which the plain map computes the same as this operation around the given ones.

        weight: (outputs, inputs[, kernel]) in float32 or float64, whatever the module's own orientation.

        Raises:
            UnsupportedError: no weight does, because the operation depends on its input.
        """
        ...


@runtime_checkable
class Chainable(Protocol):
    """An operation at a linear map that `adapters` hands a change of y to, in place of x; see loader/compat.py."""

    @property
    def chains(self) -> bool:
        """Whether this one can be."""
        ...

    def change(self, h: Tensor | None, x: Tensor) -> Tensor:
        """Return the change of y (…, outputs) that is made of the one before it, h, or of x where there is none."""
        ...

    def changed(self, y: Tensor, change: Tensor) -> Tensor:
        """Return y (…, outputs) with the last change."""
        ...


class Ahead(NamedTuple):
    """Where a prompt stands in a sequence: `length` vectors behind the first `at` tokens of the text."""

    length: int
    at: int


class BlockOp(Protocol):
    """Acts on the hidden states behind a layer; see sites.Block.

    It is not called for tokens that follow what a cache holds already: they are generated, not given.
    """

    def __call__(
        self, hidden: Tensor, mask: Tensor | None, memory: Tensor | None, prompt: Ahead | None = None
    ) -> Tensor:
        """Return the new hidden states (batch, sequence, width).

        mask (batch, text) is 0 at padding; memory (batch, source length) is the mask of another text in the same
        model, which a decoder attends to or which stands beside an image; None where there is none. prompt has made
        the sequence longer than the text.
        """
        ...


class EmbeddingOp(Protocol):
    """Acts on what enters the layers; see sites.Embedding."""

    before_output: bool
    """Whether the inverse acts in front of the base model's output embeddings, if it has them; it does in the heads
    over the vocabulary that adapters bring along."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the new embeddings (batch, sequence, width)."""
        ...

    def inverse(self, hidden: Tensor) -> Tensor:
        """Return the hidden states (batch, sequence, width) that __call__ maps to the given ones."""
        ...


class Prefixed(NamedTuple):
    """What an attention finds in front of its keys and values.

    Attributes:
        keys, values: (batch or 1, heads, length, head size).
        seen: which of them the queries of each row see (batch, length), or None for all.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor | None = None


class PrefixOp(Protocol):
    """Gives keys and values that an attention finds in front of its own; see sites.Attention.

    Queries see them whatever the mask says of the text.
    """

    length: int
    """Number of keys in front; 0 where an attention only loses its relative position bias."""
    shift: int
    """Positions by which the text counts on because of the prefix: its length, or 0."""
    padded_bonus: float
    """What is added to the attention scores of the prefix in a batch with padding, under sdpa attention."""
    bias: Literal["text", "all", "none"]
    """Where a relative position bias acts: on the text's own keys; on the prefix too, as if it stood in front of the
    text at the positions 0, 1, …, with queries counted from shift; nowhere."""

    def __call__(self, hidden: Tensor) -> Prefixed:
        """Return the prefix for an attention's input (batch, sequence, width)."""
        ...


class FusionOp(Protocol):
    """Mixes the outputs of several adapters at a residual site."""

    def __call__(self, query: Tensor, ups: Sequence[Tensor], r: Tensor) -> Tensor:
        """Return the new d (batch, sequence, width) for what the last adapter reads, their outputs and its residual."""
        ...

    @property
    def reads_d(self) -> bool:
        """Whether the query is d, not what the last adapter's projections read."""
        ...

    def regularisation(self) -> Tensor | None:
        """Return what is to be added to the loss while training, or None."""
        ...


class PromptOp(Protocol):
    """Gives vectors that stand in the sequence in front of the text; see sites.Embedding."""

    length: int
    place: Literal["embeddings", "tokens"]
    """Behind the whole embedding module, so that the text keeps its positions; or in front of the word embeddings."""
    after_first: bool
    """Whether they stand behind the text's first token."""
    sees_padding: bool
    """Whether the positions of the prompt see the text's padding, under sdpa attention."""
    padded_bonus: float
    """What is added to the text's attention scores of the prompt in a batch with padding, under sdpa attention."""

    def __call__(self) -> Tensor:
        """Return the prompt (length, width)."""
        ...


class Seen(NamedTuple):
    """What a head sees of one call of the model.

    Attributes:
        hidden: last hidden states (batch, sequence, width), of the decoder where there is one.
        pooled: the base model's pooler output (batch, width), or None.
        inputs: argument → value as the caller gave it, labels included.
        entered: argument → value as the base model got it.
        invert: the inverse of the active invertible adapter, or None.
        encoded: last hidden states of the encoder in front of a decoder, or None.
    """

    hidden: Tensor
    pooled: Tensor | None
    inputs: Mapping[str, Any]
    entered: Mapping[str, Any]
    invert: Apply | None = None
    encoded: Tensor | None = None


class HeadOp(Protocol):
    """Turns the base model's hidden states into a task's answer."""

    labels: int
    """Number of classes that have names, 0 where the answer is none of named classes."""
    problem: Problem | None
    """What `problem_type` in model.config says while the head is active."""
    takes: tuple[str, ...]
    """Arguments of a call that are the head's and not the base model's: `labels`, …"""
    generates: bool
    """Whether its logits tell the next token, so that `generate` can go on with it."""

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the class of the answer on a base model of one stack, and that on an encoder-decoder."""
        ...

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return what the base model is called with; inputs are those of the caller, without the head's own."""
        ...

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return the fields of the answer, for example `logits` (batch, labels)."""
        ...

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return the loss if there are labels: a mean over the items, or their sum divided by items where given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What one configuration does to a model, ready to be put on the forward path.

    Attributes:
        sites: path of a residual site → what acts there.
        linears: path of a linear map → what acts there.
        attentions: path of an attention → the prefix that it gets.
        blocks: path of a layer → what acts behind it.
        embeddings: path of an embedding → what acts behind it.
        prompts: path of an embedding → the prompt in front of its text.
        positions: path of a module that reads numbers of positions → by how much they are raised.
        parameters: module path → parameters that stand in for the module's own.
        fusions: path of a residual site → how several adapters are mixed there.
        head: the prediction head, or None.
    """

    sites: Mapping[str, SiteOp] = field(default_factory=dict)
    linears: Mapping[str, LinearOp] = field(default_factory=dict)
    attentions: Mapping[str, PrefixOp] = field(default_factory=dict)
    blocks: Mapping[str, BlockOp] = field(default_factory=dict)
    embeddings: Mapping[str, EmbeddingOp] = field(default_factory=dict)
    prompts: Mapping[str, PromptOp] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    fusions: Mapping[str, FusionOp] = field(default_factory=dict)
    head: HeadOp | None = None


def united(parts: Iterable[Binding]) -> Binding:
    """Return what the parts of a union of configurations do together.

    Raises:
        UsageError: two parts act at the same place, or there are two heads.
    """
    found: dict[str, Any] = {}
    for part in parts:
        for f in fields(Binding):
            value = getattr(part, f.name)
            if f.name == "head":
                found["head"] = _only(found.get("head"), value)
                continue
            both = found.setdefault(f.name, {}).keys() & value.keys()
            if both:
                raise UsageError(
                    f"two parts of the configuration act at {min(both)}",
                    hint="the parts of a union must stand at different places",
                )
            found[f.name].update(value)
    return Binding(**found)


def _only(present: HeadOp | None, more: HeadOp | None) -> HeadOp | None:
    if present is not None and more is not None:
        raise UsageError("an adapter has at most one head")
    return more if present is None else present


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a head takes from the base model's configuration.

    Attributes:
        dropout: probability in front of the linear layers of a head that states none.
        activation: the model's hidden activation, or "".
        norm_eps: epsilon of the layer norms in a head over the vocabulary.
        scale: what hidden states are multiplied by in front of the model's output embeddings.
        padding: id of the padding token, or None.
        end: ids of the tokens that end a text.
        start: id of the token that a decoder starts with, or None.
        shifts: how decoder inputs are made where none are given: `start` puts the start token in front of the labels
            or inputs, `wrap` their last token; "" in models without a decoder of their own.
    """

    dropout: float = 0.0
    activation: str = ""
    norm_eps: float = 1e-12
    scale: float = 1.0
    padding: int | None = None
    end: tuple[int, ...] = ()
    start: int | None = None
    shifts: Literal["", "start", "wrap"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The model that an adapter is bound to.

    Attributes:
        layout: its sites.
        mode: the module whose `training` flag tells whether dropout acts.
        base: parameter path → the base model's parameter as it is now.
        compat: compute what `adapters` 1.3.0 computes where that departs from the papers.
        settings: what its configuration says.
    """

    layout: Layout
    mode: nn.Module
    base: Callable[[str], Tensor]
    compat: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the tensors of an adapter say of the model that they were made for, where that model is not at hand.

    Attributes:
        widths: hidden sizes, one vote for each tensor that speaks for one.
        embedding: size of the embeddings, 0 where nothing says it.
        linears: path → the linear map, as far as its tensors tell it.
        attentions: path → size of all its key heads together.
        stacks: name of the prefix that attentions take, as in sites.Attention → size of their input.
        left_out: layers that the configuration names although none of its tensors does, None if it has none in layers.
        only: the layers that have tensors, None for all that are not left out.
        parameters: path of a parameter of the model → its shape.
    """

    widths: tuple[int, ...] = ()
    embedding: int = 0
    linears: Mapping[str, Linear] = field(default_factory=dict)
    attentions: Mapping[str, int] = field(default_factory=dict)
    stacks: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[int, ...] | None = None
    only: tuple[int, ...] | None = None
    parameters: Shapes = field(default_factory=dict)


def left_out(known: Sequence[Facts]) -> set[int]:
    """Return the layers that a member of a union names although no member has tensors there."""
    named = {layer for facts in known for layer in facts.left_out or ()}
    lacking = named
    for facts in known:
        if facts.left_out is not None:
            lacking = lacking & {*facts.left_out, *(named.difference(facts.only) if facts.only is not None else ())}
    return lacking


Roles = Callable[[str], tuple[Projection, ...]]
"""Path of a linear map → what it is in its sublayer; () where the architecture's row does not name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of METHODS.

    Attributes:
        config: the configuration's class; its `method` is the name of the row.
        presets: names under which `add` and the command line know certain configurations.
        shapes: configuration and layout → canonical key → shape: the complete account of the adapter's tensors.
        initial: configuration, layout and a reader of the base's parameters → start values, float32.
        bind: configuration, tensors, and what is known of the model they act on → Binding.
        facts: configuration, canonical key → shape of the adapter's tensors, and the roles of linear maps → Facts.
        frozen: configuration and canonical key → whether that tensor stays as it is in training.
        settled: configuration and layout → the configuration with what it leaves to the base model filled in.
        sized: whether the shapes of its tensors tell inputs and outputs of the linear maps that it changes.
        alone: configuration → whether its tensors alone tell what it adds to the weights of linear maps.
        is_head: whether it is a prediction head, of which an adapter has at most one.
    """

    config: type[Any]
    presets: Mapping[str, MethodConfig]
    shapes: Callable[[Any, Layout], Shapes]
    initial: Callable[[Any, Layout, Callable[[str], Tensor]], dict[str, Tensor]]
    bind: Callable[[Any, Mapping[str, Tensor], Live], Binding]
    facts: Callable[[Any, Shapes, Roles], Facts]
    frozen: Callable[[Any, str], bool] = lambda config, key: False
    settled: Callable[[Any, Layout], Any] = lambda config, layout: config
    sized: bool = True
    alone: Callable[[Any], bool] = lambda config: False
    is_head: bool = False

    @property
    def name(self) -> str:
        """The method's name in configurations."""
        name: str = self.config.method
        return name
