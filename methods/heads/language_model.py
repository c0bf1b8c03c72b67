"""Heads over the vocabulary: which token stands here (masked), which one comes next (causal, seq2seq).

    h ← norm(act(W_k · h + b_k))   for all layers but the last,      logits = W_L · inverse(h) + b_L

The norm and the activation are optional; inverse undoes an invertible adapter on the embeddings. The k-th linear layer
has the keys `head.<k>.weight` and `head.<k>.bias`, the norm behind it `head.<k>.norm.weight` and `head.<k>.norm.bias`.
The last layer is the head's own, even where the base model shares it with its embeddings.

Sources: Devlin et al. 2019 (arXiv 1810.04805) §3.1 for the masked form; Pfeiffer et al. 2020 (arXiv 2005.00052) §4.2
for the inverse; `adapters` 1.3.0, heads/language_modeling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...errors import UnsupportedError, UsageError
from ...sites import Layout
from ..activations import known
from ..config import Config
from ..method import Binding, Facts, Live, Method, Problem, Roles, Seen, Shapes
from . import losses
from .entering import entering
from .layers import MOST_LAYERS, OF_THE_BASE, activation, norm_shapes, start

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.utils.generic import ModelOutput

MOST_WORDS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class LanguageModelHeadConfig(Config):
    """What the head computes.

    Attributes:
        kind: what it predicts of a text: tokens that were masked, the next one, or the next one of another text.
        vocab_size: number of tokens it tells apart; None takes the base model's.
        embedding_size: width of all layers but the first one's input; None takes that of the base model's embeddings.
        layers: number of linear layers.
        activation_function: behind all linear layers but the last, or None; `hidden_act` is the base model's own.
        layer_norm: whether a norm follows there.
        bias: whether the last layer has a bias.
        inner_bias: whether the others have one.
        norm_bias: whether the norms have one.
        shift_labels: whether the loss compares a token's logits with the label of the next one.
        inverts: whether the inverse of an active invertible adapter stands in front of the last layer.
    """

    method: ClassVar[str] = "language_model_head"

    kind: Literal["masked", "causal", "seq2seq"]
    vocab_size: int | None = None
    embedding_size: int | None = None
    layers: int = 1
    activation_function: str | None = None
    layer_norm: bool = False
    bias: bool = False
    inner_bias: bool = True
    norm_bias: bool = True
    shift_labels: bool = False
    inverts: bool = True

    @property
    def labels(self) -> int:
        """Number of classes that have names: none."""
        return 0

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        counts = {"vocab_size": self.vocab_size, "embedding_size": self.embedding_size, "layers": self.layers}
        found = [f"{name} must be at least 1" for name, count in counts.items() if count is not None and count < 1]
        if self.layers > MOST_LAYERS or max(self.vocab_size or 1, self.embedding_size or 1) > MOST_WORDS:
            found.append(f"at most {MOST_WORDS} tokens and {MOST_LAYERS} layers are allowed")
        act = self.activation_function
        if act is not None and act != OF_THE_BASE and not known(act):
            found.append(f"activation_function {act!r} is unknown")
        return found


def settled(config: LanguageModelHeadConfig, layout: Layout) -> LanguageModelHeadConfig:
    """Return the configuration with the sizes of the base model where it leaves them open.

    Raises:
        UnsupportedError: the base model has no vocabulary, or no head can stand on it.
    """
    if layout.reads == "":
        raise UnsupportedError(f"no prediction head can stand on a model of the family {layout.architecture}")
    if config.vocab_size is None and not layout.vocabulary:
        raise UnsupportedError("the base model has no vocabulary", hint="say how many tokens with vocab_size")
    embedding = layout.embeddings[0].width if layout.embeddings and config.layers > 1 else layout.width
    return replace(
        config,
        vocab_size=config.vocab_size or layout.vocabulary,
        embedding_size=config.embedding_size or embedding,
    )


def shapes(config: LanguageModelHeadConfig, layout: Layout) -> Shapes:
    """Return key → shape of the head's tensors.

    Raises:
        UsageError: a single layer has another width than the hidden states.
    """
    config = settled(config, layout)
    size, found = config.embedding_size or 0, Shapes()
    if config.layers == 1 and size != layout.width:
        raise UsageError(
            f"embedding_size is {size}, but the only layer of the head reads hidden states of {layout.width}",
            hint="give the head two layers, or leave embedding_size away",
        )
    for k in range(config.layers):
        last = k == config.layers - 1
        rows = (config.vocab_size or 0) if last else size
        found[f"head.{k}.weight"] = (rows, size if k else layout.width)
        if config.bias if last else config.inner_bias:
            found[f"head.{k}.bias"] = (rows,)
        if config.layer_norm and not last:
            found |= norm_shapes(k, rows, bias=config.norm_bias)
    return found


def initial(config: LanguageModelHeadConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values: the base model's word embeddings as the last layer, norms that change nothing."""
    wanted = shapes(config, layout)
    found = start(wanted)
    last = f"head.{config.layers - 1}.weight"
    words = layout.embeddings[0].tokens if layout.embeddings else None
    if words is not None:
        table = base(f"{words}.weight").detach()
        if tuple(table.shape) == wanted[last]:
            found[last] = table.float().cpu().clone()
    return found


def facts(config: LanguageModelHeadConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the width that the first layer reads, and that of the embeddings."""
    embedding = have.get(f"head.{config.layers - 1}.weight", ())[1:2]
    return Facts(widths=have.get("head.0.weight", ())[1:2], embedding=embedding[0] if embedding else 0)


def bind(config: LanguageModelHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the head on the given tensors themselves."""
    return Binding(head=LanguageModelHead(config, tensors, live))


class LanguageModelHead:
    """The head in the forward pass."""

    __slots__ = ("act", "config", "generates", "inner", "labels", "last", "problem", "settings", "takes")

    def __init__(self, config: LanguageModelHeadConfig, tensors: Mapping[str, Tensor], live: Live) -> None:
        self.config = config
        self.settings = live.settings
        self.act = activation(config.activation_function, live)
        layers = [(tensors[f"head.{k}.weight"], tensors.get(f"head.{k}.bias")) for k in range(config.layers)]
        norms = [(tensors.get(f"head.{k}.norm.weight"), tensors.get(f"head.{k}.norm.bias")) for k in range(len(layers))]
        self.inner = [(*layer, *norm) for layer, norm in zip(layers[:-1], norms, strict=False)]
        self.last = layers[-1]
        self.generates = config.kind != "masked"
        self.labels = 0
        self.takes: tuple[str, ...] = ("labels", "logits_to_keep") if config.kind == "causal" else ("labels",)
        self.problem: Problem | None = None

    def outputs(self) -> tuple[type[ModelOutput], type[ModelOutput]]:
        """Return the classes of the answer."""
        from transformers.modeling_outputs import CausalLMOutputWithPast, MaskedLMOutput, Seq2SeqLMOutput

        kinds: dict[str, type[ModelOutput]] = {
            "masked": MaskedLMOutput,
            "causal": CausalLMOutputWithPast,
            "seq2seq": Seq2SeqLMOutput,
        }
        return kinds[self.config.kind], Seq2SeqLMOutput

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the base model's inputs; a decoder that has to produce labels reads them one place late."""
        return entering(inputs, self.takes, self.settings, inputs.get("labels"))

    def __call__(self, seen: Seen) -> dict[str, Tensor]:
        """Return logits (batch, sequence, tokens), of the last places only where `logits_to_keep` says so."""
        from torch.nn.functional import layer_norm, linear

        keep = seen.inputs.get("logits_to_keep")
        h = seen.hidden
        if keep is not None:
            h = h[:, -keep or None :] if isinstance(keep, int) else h[:, keep]
        scale = self.settings.scale
        h = h if scale == 1.0 else h * scale
        for weight, bias, gain, offset in self.inner:
            h = linear(h, weight, bias)
            h = h if self.act is None else self.act(h)
            if gain is not None:
                h = layer_norm(h, gain.shape, gain, offset, self.settings.norm_eps)
        if seen.invert is not None and self.config.inverts:
            h = seen.invert(h)
        return {"logits": linear(h, *self.last)}

    def loss(self, answer: Mapping[str, Tensor], seen: Seen, items: Tensor | int | None) -> Tensor | None:
        """Return cross entropy over the tokens that have a label."""
        logits, labels = answer["logits"], seen.inputs.get("labels")
        if labels is None:
            return None
        if self.config.shift_labels:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return losses.classes(logits, losses.lengthened(labels, logits.shape[1], losses.IGNORED), items)


METHOD = Method(
    config=LanguageModelHeadConfig,
    presets={
        "masked_lm_head": LanguageModelHeadConfig(
            kind="masked", layers=2, activation_function="gelu", layer_norm=True, bias=True
        ),
        "causal_lm_head": LanguageModelHeadConfig(kind="causal", shift_labels=True),
        "seq2seq_lm_head": LanguageModelHeadConfig(kind="seq2seq"),
    },
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
    settled=settled,
    is_head=True,
)
