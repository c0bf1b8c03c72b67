"""Architecture: one model family as data.

A row holds names only. It can be written to and read from JSON, so that a family which this package does not know can
be described by its user.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import cache

from ..sites import AttentionForm, Embedding, Projection, Reading, Role, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Sublayer:
    """Names of one sublayer; every path is relative to its layer.

    Attributes:
        role: the sublayer's kind.
        path: names the site in tensor keys.
        output: module whose output is the sublayer's, after its last projection and, where that is a module, dropout.
        residual: module of which the residual stream that enters the sublayer is an argument.
        norm: the layer norm after the residual connection, or None in pre-norm models.
        adapters: where files of `adapters` keep the bottlenecks of this site, in the layer as it was called then.
        argument, beside, stream, exchanged, summed: as in sites.Site.
        inner: as in sites.Site, but relative to the last layer of the stack.
    """

    role: Role
    path: str
    output: str
    residual: str
    norm: str | None = None
    adapters: str
    argument: int = 0
    beside: str | None = None
    stream: str | None = None
    inner: str | None = None
    exchanged: bool = False
    summed: bool = True

    def site(self, layer: str, index: int, width: int, last: str) -> Site:
        """Return the site in one layer.

        layer: path of the layer; index: its number; width: its hidden size; last: path of the stack's last layer.
        """

        def here(path: str | None) -> str | None:
            return None if path is None else f"{layer}.{path}"

        return Site(
            path=f"{layer}.{self.path}",
            role=self.role,
            layer=index,
            width=width,
            output=f"{layer}.{self.output}",
            residual=f"{layer}.{self.residual}",
            norm=here(self.norm),
            argument=self.argument,
            beside=here(self.beside),
            stream=here(self.stream),
            inner=None if self.inner is None else f"{last}.{self.inner}",
            exchanged=self.exchanged,
            summed=self.summed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNames:
    """Names of one attention; every path is relative to its layer.

    Attributes:
        path: module whose forward projects queries, keys and values and calls the attention function.
        query, key, value: linear layers; the same path several times where one module computes several (a merged
            `qkv`, whose output is three equal parts in this order).
        output: linear layer behind the heads.
        prefix: name under which files of `adapters` keep its prefix, e.g. `self_prefix`.
        prefix_stack: name of its stack where that is not the prefix's without `_prefix`.
        cross: whether it attends to another stack.
        named: whether `query`, `key`, … as targets mean its linear layers too; where not, only their paths do.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    prefix: str = "self_prefix"
    prefix_stack: str | None = None
    cross: bool = False
    named: bool = True

    @property
    def stack(self) -> str:
        """Name of the prefix that it takes: `self`, `encoder`, `cross`, ….

        >>> AttentionNames(path="a", query="q", key="k", value="v", output="o", prefix="encoder_prefix").stack
        'encoder'
        """
        return self.prefix_stack or self.prefix.removesuffix("_prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardNames:
    """Names of the linear layers of a feed-forward block; every path is relative to its layer.

    Attributes:
        intermediate: the one that widens.
        output: the one that narrows.
        gate: the one beside intermediate in gated blocks, or None.
        ungated: the one that widens in those models of the family that have no gate, if it is called otherwise there.
    """

    intermediate: str
    output: str
    gate: str | None = None
    ungated: str | None = None

    def only(self, kept: Callable[[str | None], bool]) -> FeedForwardNames:
        """Return the names of those layers that are kept."""
        widens = self.intermediate if kept(self.intermediate) else self.ungated or self.intermediate
        gate = self.gate if kept(self.gate) else None
        ungated = self.ungated if kept(self.ungated) and widens != self.ungated else None
        return FeedForwardNames(intermediate=widens, output=self.output, gate=gate, ungated=ungated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """A stack of equal layers.

    Attributes:
        path: path of one layer, with `{i}` for its index; where layers stand in groups, with two.
        sublayers: in the order of the forward pass.
        norms: layer norms of a layer, relative to it.
        attentions: in the order of the forward pass.
        feed_forward: its linear layers.
        may_lack: paths relative to a layer of what some layers of the family do not have, with all that is inside: the
            cross-attention of models that are no decoders.
        width: attribute of the model's configuration that holds the hidden size; a path with dots goes through
            configurations inside configurations (`text_config.hidden_size`).
        heads: attribute that holds the number of heads that keys have; the first of several that the configuration has
            and that is not None.
        head_size: attribute that holds the size of a head; where the configuration has none, width / query heads.
        query_heads: attribute that holds the number of heads that queries have.
        restarts: whether its layers are counted from 0 again and not on from those of the stack before.
        form: how its attentions are written.
        positions: module of the base model that turns the numbers of the positions in its cache into embeddings or
            rotations; "" where each self-attention does so itself, None where nothing does.
        bias: whether the self-attention of its first layer makes a relative position bias for all others.
        padded_bonus: what `adapters` adds to the attention scores of prefixes and prompts in batches with padding.
        prefixes: module in whose files of `adapters` the prefixes of its attentions stand, or "" for the base model.
    """

    path: str
    sublayers: tuple[Sublayer, ...]
    norms: tuple[str, ...]
    attentions: tuple[AttentionNames, ...] = ()
    feed_forward: FeedForwardNames | None = None
    may_lack: tuple[str, ...] = ()
    width: str = "hidden_size"
    heads: tuple[str, ...] = ("num_key_value_heads", "num_attention_heads")
    query_heads: str = "num_attention_heads"
    head_size: str = "head_dim"
    restarts: bool = False
    form: AttentionForm = "interface"
    positions: str | None = None
    bias: bool = False
    padded_bonus: float = 0.0
    prefixes: str = ""

    def index(self, path: str) -> tuple[int, ...] | None:
        """Return the index, or the indices, in a path that is or begins with that of one of the layers, else None.

        >>> Layers(path="encoder.layer.{i}", sublayers=(), norms=()).index("encoder.layer.7.output.dense")
        (7,)
        """
        match = _beginning(self.path).match(path)
        return None if match is None or "{i}" in match[0] else tuple(int(number) for number in match.groups())

    def layer(self, index: Iterable[int]) -> str:
        """Return the path of the layer with this index, or these indices.

        >>> Layers(path="groups.{i}.layers.{i}", sublayers=(), norms=()).layer((1, 0))
        'groups.1.layers.0'
        """
        numbers = iter(index)
        return re.sub(r"\{i\}", lambda _: str(next(numbers)), self.path)

    def without(self, lacking: Container[str]) -> Layers:
        """Return the stack as it is in a layer that has not what is in lacking, which are entries of may_lack."""
        gone = tuple(path for path in self.may_lack if path in lacking)

        def kept(path: str | None) -> bool:
            return path is not None and not inside(path, gone)

        return dataclasses.replace(
            self,
            sublayers=tuple(part for part in self.sublayers if kept(part.path)),
            norms=tuple(path for path in self.norms if kept(path)),
            attentions=tuple(part for part in self.attentions if kept(part.path)),
            feed_forward=None if self.feed_forward is None else self.feed_forward.only(kept),
        )

    def moved(self, before: str, *, config: str = "") -> Layers:
        """Return the stack inside another model: `before` in front of its path, `config` in front of its settings.

        >>> Layers(path="h.{i}", sublayers=(), norms=()).moved("decoder.transformer.", config="decoder.").width
        'decoder.hidden_size'
        """
        return dataclasses.replace(
            self,
            path=f"{before}{self.path}",
            width=f"{config}{self.width}",
            heads=tuple(f"{config}{name}" for name in self.heads),
            query_heads=f"{config}{self.query_heads}",
            head_size=f"{config}{self.head_size}",
            positions=f"{before}{self.positions}" if self.positions else self.positions,
        )

    def sites(self, layer: str, index: int, width: int, last: str) -> tuple[Site, ...]:
        """Return the residual sites of one layer; the arguments are those of Sublayer.site."""
        return tuple(part.site(layer, index, width, last) for part in self.sublayers)

    def projections(self) -> dict[str, tuple[tuple[Projection, ...], bool]]:
        """Return path in a layer → what that linear layer is, and whether it belongs to a cross-attention.

        Those of attentions that are not `named` are left out.
        """
        found: dict[str, tuple[tuple[Projection, ...], bool]] = {}
        for part in self.attentions:
            if not part.named:
                continue
            named: tuple[tuple[Projection, str | None], ...] = (
                ("query", part.query),
                ("key", part.key),
                ("value", part.value),
                ("attention_output", part.output),
            )
            _collect(found, named, cross=part.cross)
        block = self.feed_forward
        if block is not None:
            named = (("intermediate", block.intermediate), ("gate", block.gate), ("output", block.output))
            if block.ungated is not None:
                named = (*named, ("intermediate", block.ungated))
            _collect(found, named, cross=False)
        return found


def _collect(
    found: dict[str, tuple[tuple[Projection, ...], bool]],
    named: Iterable[tuple[Projection, str | None]],
    *,
    cross: bool,
) -> None:
    for role, path in named:
        if path is not None:
            found[path] = ((*found.get(path, ((), cross))[0], role), cross)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingNames:
    """Names of what enters a stack of layers.

    Attributes:
        path: module whose output enters the first layer, positions and norms included.
        tokens: module of the word embeddings alone, or None in models that read no tokens.
        width: attribute of the configuration that holds the size of the output, of several as in Layers.heads.
        stack: name of the tower that it belongs to, as in AttentionNames.
        adapters: module in whose files of `adapters` the invertible adapters, prompts and shared parameters stand, or
            "" for the base model itself.
        model: module that is called with the token ids and their mask, or "" for the base model itself.
        reader: module that is called with the same mask as `encoder_attention_mask`, or None.
        lengthens: whether the layers take their length from the output of path, so that a prompt may be put there.
        fixed_by: attributes of the configuration each of which fixes that length, where it is set.
        sees_padding: whether a prompt there sees the text's padding in `adapters`.
    """

    path: str
    tokens: str | None
    width: tuple[str, ...] = ("hidden_size",)
    stack: str = "self"
    adapters: str = ""
    model: str = ""
    reader: str | None = None
    lengthens: bool = False
    fixed_by: tuple[str, ...] = ()
    sees_padding: bool = False

    def embedding(self, width: int) -> Embedding:
        """Return it as a place for methods; width: size of its output."""
        return Embedding(
            path=self.path,
            width=width,
            tokens=self.tokens,
            stack=self.stack,
            model=self.model,
            reader=self.reader,
            lengthens=self.lengthens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadName:
    """How a class with a fixed head names the layers of that head.

    Attributes:
        classes: class names of transformers, e.g. `BertForSequenceClassification`.
        kind: what the head is for: `classification`, `multiple_choice`, `tagging`, `question_answering`, `masked_lm`,
            `causal_lm`, `seq2seq_lm`, `image_classification`.
        linears: module paths of the linear layers, in the order of the forward pass.
        pooling: what the first one reads, see sites.Reading, or None for what the model's configuration says; unused
            where the head reads every token.
        activation: between the linear layers, or None; `hidden_act` is that of the model.
        norm: module path of the layer norm behind the activation, or None.
        bias: paths of the tensors that hold the last layer's bias, where that is not simply the layer's own `bias`;
            several hold the same values.
        bias_row: whether these have a dimension of one in front.
        inverts: whether `adapters` puts the inverse of an invertible adapter in front of the last layer.
        own_base: whether the class is its own base model, so that module paths have no prefix in it.
        may_lack_bias: whether the layers and norms in front of the last layer may have no bias, and that of a head over
            the vocabulary too; the model's configuration says so.
    """

    classes: tuple[str, ...]
    linears: tuple[str, ...]
    kind: str = "classification"
    pooling: str | None = "first"
    activation: str | None = None
    norm: str | None = None
    bias: tuple[str, ...] = ()
    bias_row: bool = False
    inverts: bool = False
    own_base: bool = False
    may_lack_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model family.

    Attributes:
        name: name of the row.
        model_types: values of `model_type` in config.json that it covers.
        prefixes: words that classes with a head put in front of a module path (`bert.`).
        layers: the stacks of layers, in the order of the forward pass.
        norms: layer norms outside the layers.
        embeddings: what enters the layers, one for each tower.
        heads: the heads of its classes.
        around: modules that classes with a head have around the base model besides those of `heads`.
        pooler: module whose output a head with pooling `pooler` reads, or None.
        former: (path of earlier releases of transformers, today's) pairs, whole or the beginning of a module path up to
            a dot, with `{i}` for an index, the longer ones first; the first that matches counts, in both directions.
        older: such pairs for names that were given up before the last of the releases that `former` is about.
        common: whether families without a row have the same module paths, so that these alone do not tell the family.
        swapped: whether files of `adapters` call the feed-forward `output` intermediate and the other way round.
        may_lack: paths of what some models of the family do not have, with all that is inside: one of two towers.
        presumes: (attribute of the configuration, value) pairs that a model must have for the row to describe it.
        muted: containers of modules that `adapters` takes out of the model; they give zeros while an adapter that was
            made with it is active.
        unasked: modules that are never called: the module around them reads their parameters itself.
        reads: what a head reads of each text that brings no word for it, see sites.Reading.
        scales: whether the hidden states are scaled in front of the output embeddings, where the model says so.
        wraps: whether a decoder starts with the last token of its labels and not with a token of its own.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    layers: tuple[Layers, ...]
    norms: tuple[str, ...] = ()
    embeddings: tuple[EmbeddingNames, ...] = ()
    heads: tuple[HeadName, ...] = ()
    around: tuple[str, ...] = ()
    pooler: str | None = None
    former: tuple[tuple[str, str], ...] = ()
    older: tuple[tuple[str, str], ...] = ()
    common: bool = False
    swapped: bool = False
    may_lack: tuple[str, ...] = ()
    presumes: tuple[tuple[str, bool], ...] = ()
    muted: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    reads: Reading = "first"
    scales: bool = False
    wraps: bool = False

    def present(self, path: str) -> str:
        """Return today's name of a module path that an earlier release of transformers may have written."""
        return _renamed(_renamed(path, self.older), self.former)

    def past(self, path: str) -> str:
        """Return what releases of transformers before 5 called a module path of today; present(past(p)) == p."""
        return _renamed(path, tuple((today, former) for former, today in self.former))

    def oldest(self, path: str) -> str:
        """Return what the releases that `older` is about called a module path; present(oldest(p)) == p."""
        return _renamed(self.past(path), tuple((today, older) for older, today in self.older))


def _renamed(path: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Return a path with the first of the rules applied to its beginning.

    >>> _renamed("encoder.layer.7.attention.query", (("encoder.layer.{i}", "layers.{i}"),))
    'layers.7.attention.query'
    """
    for before, after in rules:
        match = _beginning(before).match(path)
        if match:
            indices = iter(match.groups())
            return re.sub(r"\{i\}", lambda _: next(indices), after) + path[match.end() :]  # noqa: B023
    return path


def inside(path: str, parts: Iterable[str]) -> bool:
    """Return whether a path is one of parts or lies in one.

    >>> inside("decoder.norm", ("encoder", "decoder"))
    True
    """
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def named(template: str, path: str) -> bool:
    """Return whether a template means this path; `{i}` stands for any index.

    >>> named("layer.{i}.output", "layer.3.output")
    True
    """
    match = _beginning(template).match(path)
    return match is not None and match.end() == len(path)


@cache
def _beginning(template: str) -> re.Pattern[str]:
    """Return a pattern for paths that begin like a template; `{i}` stands for an index, or for itself."""
    return re.compile(re.escape(template).replace(r"\{i\}", r"(0|[1-9][0-9]{0,17}|\{i\})") + r"(?=\.|\Z)")
