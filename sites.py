"""Site, Linear, Attention, Norm and Layout: where in a base model an adapter can act, as plain values.

An architecture (architectures/) and the shapes of a model give a Layout; a method (methods/) reads it to say which
tensors it has and what they do. Paths are module paths of transformers 5 in the *bare* base model, without the prefix
that a model with a head puts in front.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

V = TypeVar("V")

_KEPT = 64
"""Answers that a Layout keeps."""

Role = Literal["attention", "feed_forward", "cross_attention"]

Projection = Literal["query", "key", "value", "attention_output", "intermediate", "gate", "output"]
"""What a linear layer does: `intermediate` widens, `gate` stands beside it in gated blocks, `output` narrows."""

Reading = Literal["", "first", "last", "eos", "mean", "pooler"]
"""What a head reads that answers once for each text: the `first` token, the `last` token that is no padding, the last
end-of-text token (`eos`), the `mean` over the tokens that are no padding, the `pooler`'s output; "" where no head can
stand on the model."""

PROJECTIONS: tuple[Projection, ...] = (
    "query",
    "key",
    "value",
    "attention_output",
    "intermediate",
    "gate",
    "output",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One sublayer with its residual connection, the place of a bottleneck adapter.

    A transformer computes `LN(d + x)` (post-norm) or `d + x` (pre-norm) there: d is the sublayer's output after its
    last projection and dropout, x the residual stream that entered the sublayer. The last five fields are for the
    families where `adapters` sees it otherwise; the row of the family says why.

    Attributes:
        path: names the site in tensor keys.
        role: the sublayer's kind.
        layer: index of the layer, counted through all stacks (decoder layers go on after the encoder's).
        width: size of the hidden dimension.
        output: module whose output is d. Several sites of a layer may share it: it is called once for each, in order.
        residual: module that x is an argument of.
        norm: module of the layer norm that follows the residual connection, or None in pre-norm models.
        argument: which argument of the residual module is x, counted from 0.
        beside: module whose output is added to that argument to give x, where sublayers run side by side.
        stream: module whose first argument is what the model adds to d, where that is not x.
        inner: norm that LN stands for in front of an adapter where no norm follows the residual connection.
        exchanged: whether d and x change places for the adapter.
        summed: whether d + x may enter an adapter; where not, d does.
    """

    path: str
    role: Role
    layer: int
    width: int
    output: str
    residual: str
    norm: str | None = None
    argument: int = 0
    beside: str | None = None
    stream: str | None = None
    inner: str | None = None
    exchanged: bool = False
    summed: bool = True

    @property
    def is_inside(self) -> bool:
        """Whether the model itself adds something else than x to d, so that an adapter cannot leave the sum out."""
        return self.stream is not None or self.inner is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One map of the base model that is linear in its input or in a one-hot of it; the place of a LoRA.

    Attributes:
        path: its module path.
        roles: what it is in its sublayer; several where one module computes them side by side (a merged `qkv`, whose
            output is as many equal parts in this order); () where the architecture's row does not name it.
        layer: index of its layer, or None outside the layers.
        inputs: size of the last dimension of its input (channels of a convolution, rows of an embedding).
        outputs: size of the last dimension of its output (channels of a convolution).
        kind: torch's Linear, transformers' Conv1D (weight transposed), a convolution, or an embedding.
        cross: whether it belongs to a cross-attention.
        bias: whether it has a bias.
        kernel: further dimensions of a convolution's weight.
        stride, padding, dilation: of a convolution, one number for each dimension of the kernel.
        groups: of a convolution.
        scale: factor that the module puts on its output besides (a scaled embedding).
    """

    path: str
    roles: tuple[Projection, ...] = ()
    layer: int | None = None
    inputs: int
    outputs: int
    kind: Literal["linear", "conv1d", "convolution", "embedding"] = "linear"
    cross: bool = False
    bias: bool = True
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    scale: float = 1.0


AttentionForm = Literal["interface", "gptj", "deberta", "deberta_v2"]
"""How an attention is written: through the attention interface of transformers, or in a way of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One attention; the place of a prefix.

    Attributes:
        path: module whose forward projects queries, keys and values and calls the attention function.
        stack: name of the prefix that it takes: `self`, `encoder`, `cross`, or one for each tower of a model.
        layer: index of its layer.
        width: size of its input.
        heads: number of heads that keys and values have.
        head_size: size of one head.
        form: how it is written.
        positions: module that turns the numbers of its positions into embeddings or rotations, or None.
        bias: attention that makes the relative position bias for its whole stack, or None.
    """

    path: str
    stack: str
    layer: int
    width: int
    heads: int
    head_size: int
    form: AttentionForm = "interface"
    positions: str | None = None
    bias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One whole layer; the place of an intervention on its output (ReFT).

    Attributes:
        path: module whose output, or first output, are the hidden states behind the layer.
        layer: its index, counted through all stacks.
        width: size of the hidden dimension.
    """

    path: str
    layer: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What enters the layers; the place of prompts and of invertible adapters.

    Attributes:
        path: module whose output enters the first layer, positions and norms included (but for a projection).
        width: size of its output.
        tokens: module of the word embeddings alone, or None in models that read no tokens.
        stack: name of the tower that it belongs to, as in Attention.
        model: module that is called with the token ids and their mask, "" for the base model itself.
        reader: module that is called with the same mask as `encoder_attention_mask`, or None.
        lengthens: whether the layers take their length from its output, so that a prompt may be put there.
    """

    path: str
    width: int
    tokens: str | None = None
    stack: str = "self"
    model: str = ""
    reader: str | None = None
    lengthens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """One normalisation module of the base model.

    Attributes:
        path: its module path.
        layer: index of its layer, or None outside the layers.
        shapes: parameter name → shape, as the model has them (`weight` (d,), `bias` (d,)).
    """

    path: str
    layer: int | None
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All sites of one base model.

    Attributes:
        architecture: name of the row in architectures/.
        layers: number of layers, all stacks together.
        width: size of the hidden states that a prediction head reads.
        sites: the residual sites, in the order of the forward pass.
        norms: the normalisation modules, in the order of the model.
        pooler: whether the model has a pooler whose output a head can read.
        linears: every linear map, those of the layers in the order of the forward pass, then the others.
        attentions: every attention, in the order of the forward pass.
        blocks: every layer.
        embeddings: what enters the layers, one for each tower.
        vocabulary: number of word embeddings, 0 without.
        reads: what the family's heads read.
        parameters: path of every parameter → its shape.
        tied: path of a parameter that has several → all of them, itself included.
    """

    architecture: str
    layers: int
    width: int
    sites: tuple[Site, ...]
    norms: tuple[Norm, ...]
    pooler: bool = False
    linears: tuple[Linear, ...] = ()
    attentions: tuple[Attention, ...] = ()
    blocks: tuple[Block, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    vocabulary: int = 0
    reads: Reading = "first"
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], V]) -> V:
        """Return what make returns, made once for a key: what is asked again with every adapter that is loaded.

        Args:
            key: what is asked; two questions never have one key.
            make: answers it from this layout alone; its answer is never changed.
        """
        known = self._known
        if key not in known:
            if len(known) >= _KEPT:
                known.clear()
            known[key] = make()
        answer: V = known[key]
        return answer

    @cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def linear(self) -> Mapping[str, Linear]:
        """The linear maps by path."""
        return {linear.path: linear for linear in self.linears}
