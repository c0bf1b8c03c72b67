"""Architecture: one model family as data.

A row holds names only. It can be written to and read from JSON, so that a family which this package does not know can
be described by its user.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import SchemaError
from ..sites import Projection, Role, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Sublayer:
    """Names of one sublayer; every path is relative to its layer.

    Attributes:
        role: the sublayer's kind.
        path: names the site in tensor keys.
        output: module whose output is the sublayer's, after its last projection and dropout.
        residual: module whose first argument is the residual stream that enters the sublayer.
        norm: the layer norm after the residual connection, or None in pre-norm models.
        adapters: where files of `adapters` keep the bottlenecks of this site.
    """

    role: Role
    path: str
    output: str
    residual: str
    norm: str | None = None
    adapters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNames:
    """Names of one attention; every path is relative to its layer.

    Attributes:
        path: module whose forward projects queries, keys and values and calls the attention function.
        query, key, value: linear layers; the same path three times where one module computes all three (a merged
            `qkv`, whose output is three equal parts in this order).
        output: linear layer behind the heads.
        prefix: name under which files of `adapters` keep its prefix, e.g. `self_prefix`; the word before the last
            underscore is the name of its stack.
        cross: whether it attends to another stack.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    prefix: str = "self_prefix"
    cross: bool = False

    @property
    def stack(self) -> str:
        """Name of the prefix that it takes: `self`, `encoder`, `cross`, ….

        >>> AttentionNames(path="a", query="q", key="k", value="v", output="o", prefix="encoder_prefix").stack
        'encoder'
        """
        return self.prefix.removesuffix("_prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardNames:
    """Names of the linear layers of a feed-forward block; every path is relative to its layer.

    Attributes:
        intermediate: the one that widens.
        output: the one that narrows.
        gate: the one beside intermediate in gated blocks, or None.
    """

    intermediate: str
    output: str
    gate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """A stack of equal layers.

    Attributes:
        path: path of one layer, with `{i}` for its index.
        sublayers: in the order of the forward pass.
        norms: layer norms of a layer, relative to it.
        attentions: in the order of the forward pass.
        feed_forward: its linear layers.
        width: attribute of the model's configuration that holds the hidden size; a path with dots goes through
            configurations inside configurations (`text_config.hidden_size`).
        heads: attribute that holds the number of heads that keys have; the first of several that the configuration has
            and that is not None.
        head_size: attribute that holds the size of a head; where the configuration has none, width / query heads.
        query_heads: attribute that holds the number of heads that queries have.
        optional: whether a model of the family may lack this stack (an encoder without its decoder).
    """

    path: str
    sublayers: tuple[Sublayer, ...]
    norms: tuple[str, ...]
    attentions: tuple[AttentionNames, ...] = ()
    feed_forward: FeedForwardNames | None = None
    width: str = "hidden_size"
    heads: tuple[str, ...] = ("num_key_value_heads", "num_attention_heads")
    query_heads: str = "num_attention_heads"
    head_size: str = "head_dim"
    optional: bool = False

    @property
    def container(self) -> str:
        """Path of the module that holds the layers."""
        return self.path.partition(".{i}")[0]

    def sites(self, layer: str, index: int, width: int) -> tuple[Site, ...]:
        """Return the residual sites of one layer.

        layer: path of the layer; index: its number through all stacks; width: its hidden size.
        """
        return tuple(
            Site(
                path=f"{layer}.{part.path}",
                role=part.role,
                layer=index,
                width=width,
                output=f"{layer}.{part.output}",
                residual=f"{layer}.{part.residual}",
                norm=None if part.norm is None else f"{layer}.{part.norm}",
            )
            for part in self.sublayers
        )

    def projections(self) -> dict[str, tuple[tuple[Projection, ...], bool]]:
        """Return path in a layer → what that linear layer is, and whether it belongs to a cross-attention."""
        found: dict[str, tuple[tuple[Projection, ...], bool]] = {}
        for part in self.attentions:
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
        width: attribute of the configuration that holds the size of the output.
        stack: name of the tower that it belongs to, as in AttentionNames.
        adapters: module in whose files of `adapters` the invertible adapters, prompts and shared parameters stand, or
            "" for the base model itself.
    """

    path: str
    tokens: str | None
    width: str = "hidden_size"
    stack: str = "self"
    adapters: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadName:
    """How a class with a fixed head names the layers of that head.

    Attributes:
        classes: class names of transformers, e.g. `BertForSequenceClassification`.
        kind: what the head is for: `classification`, `multiple_choice`, `tagging`, `question_answering`, `masked_lm`,
            `causal_lm`, `seq2seq_lm`, `image_classification`.
        linears: module paths of the linear layers, in the order of the forward pass.
        pooling: what the first one reads: `first` token, `last` token, or the `pooler`'s output; unused where the head
            reads every token.
        activation: between the linear layers, or None.
        norm: module path of the layer norm behind the activation, or None.
    """

    classes: tuple[str, ...]
    linears: tuple[str, ...]
    kind: str = "classification"
    pooling: str = "first"
    activation: str | None = None
    norm: str | None = None


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
        pooler: module whose output a head with pooling `pooler` reads, or None.
        former: (path of earlier releases of transformers, today's) pairs, whole or the beginning of a module path up to
            a dot, with `{i}` for an index, the longer ones first; the first that matches counts, in both directions.
        swapped: whether files of `adapters` call the feed-forward `output` intermediate and the other way round.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    layers: tuple[Layers, ...]
    norms: tuple[str, ...] = ()
    embeddings: tuple[EmbeddingNames, ...] = ()
    heads: tuple[HeadName, ...] = ()
    pooler: str | None = None
    former: tuple[tuple[str, str], ...] = ()
    swapped: bool = False

    def present(self, path: str) -> str:
        """Return today's name of a module path that an earlier release of transformers may have written."""
        return _renamed(path, self.former)

    def past(self, path: str) -> str:
        """Return what releases of transformers before 5 called a module path of today; present(past(p)) == p."""
        return _renamed(path, tuple((today, former) for former, today in self.former))


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


@cache
def _beginning(template: str) -> re.Pattern[str]:
    """Return a pattern for paths that begin like a template; `{i}` stands for an index, or for itself."""
    return re.compile(re.escape(template).replace(r"\{i\}", r"([0-9]+|\{i\})") + r"(?=\.|\Z)")


def to_json(row: Architecture) -> dict[str, Any]:
    """Return a row as a JSON object; from_json(to_json(row)) == row."""
    data: dict[str, Any] = _lists(dataclasses.asdict(row))
    return data


def from_json(data: dict[str, Any]) -> Architecture:
    """Return the row that a JSON object describes.

    Raises:
        SchemaError: a field is missing, unknown, or has the wrong type; every fault is listed.
    """
    faults: list[str] = []
    row: Architecture | None = _record(Architecture, data, "architecture", faults)
    if row is None:
        raise SchemaError("the description of the architecture", faults)
    return row


def _record(cls: Any, data: Any, path: str, faults: list[str]) -> Any:
    """Return a record of type cls made from data, or None with what is wrong put into faults."""
    if not isinstance(data, dict):
        faults.append(f"{path}: expected an object")
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    before = len(faults)
    faults += [f"{path}.{name}: unknown field" for name in sorted(set(data) - set(fields))]
    values = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{path}.{name}", faults)
        elif f.default is dataclasses.MISSING:
            faults.append(f"{path}.{name}: missing")
    return cls(**values) if len(faults) == before else None


def _value(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """Return a value of the type that hint names, made from JSON."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return None if value is None else _value(args[0], value, path, faults)
    if origin is tuple:
        return _tuple(args, value, path, faults)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, path, faults)
    if origin is Literal:
        if value not in args:
            faults.append(f"{path}: expected one of {', '.join(args)}")
    elif type(value) is not hint:
        faults.append(f"{path}: expected {'true or false' if hint is bool else 'a text'}")
    return value


def _tuple(args: tuple[Any, ...], value: Any, path: str, faults: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        faults.append(f"{path}: expected a list")
        return ()
    fixed = args[-1] is not Ellipsis
    if fixed and len(value) != len(args):
        faults.append(f"{path}: expected {len(args)} items")
        return ()
    hints = args if fixed else (args[0],) * len(value)
    return tuple(
        _value(hint, item, f"{path}[{i}]", faults) for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
