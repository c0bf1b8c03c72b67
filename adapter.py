"""Adapter: configuration, tensors and manifest, the one value that flows through everything.

Readers make it, converters change it, the loader attaches it, writers save it. It is frozen; a change is a new
value (`dataclasses.replace`). Nothing here touches the disk, the network or torch.

Keys of tensors are canonical: `<module path in the bare base model>.<parameter>`, for example
`encoder.layer.0.attention.output.bottleneck_down.weight`, with the module paths of transformers 5; tensors of a
prediction head begin with `head.`. A key never holds the adapter's name or the prefix of a wrapping class.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import torch

JSON = Any
"""A JSON value: None, bool, int, float, str, list or dict of these."""

T = TypeVar("T")


class MethodConfig(Protocol):
    """What one adapter method computes: a frozen dataclass of JSON values, one class per method (methods/)."""

    method: ClassVar[str]

    def to_json(self) -> dict[str, JSON]:
        """Return the configuration as a JSON object whose "method" names the method."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What is remembered of the base model's weights, to recognise it again whatever dtype it is loaded in.

    Attributes:
        shapes: tensor name in the bare base model → shape, for the sampled tensors.
        samples: the same names → a few values at fixed positions, float32.
        dtype: the dtype in which the weights lay when they were sampled; bounds the comparison.
    """

    shapes: Mapping[str, tuple[int, ...]]
    samples: Mapping[str, tuple[float, ...]]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base model that an adapter was made for.

    Attributes:
        id: Hugging Face Hub id (`google-bert/bert-base-uncased`), never a local path; "" where unknown.
        revision: commit or tag of that repository, or None.
        architecture: name of a row in architectures/ (`bert`).
        fingerprint: how to recognise its weights, or None in files that never had one.
        others: rows that it may belong to as well, where its source does not say and its keys would be the same.
    """

    architecture: str
    id: str = ""
    revision: str | None = None
    fingerprint: Fingerprint | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Data that an adapter was trained on.

    Attributes:
        name: name of the data set.
        source: where it comes from: a URL, a Hub id or a package with version and member.
        license: SPDX expression.
        citation: what its makers ask to be cited.
        split: how training and evaluation parts were made.
        sizes: part → number of examples.
    """

    name: str
    source: str = ""
    license: str = ""
    citation: str = ""
    split: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A few inputs and what the adapted model answered, replayed by `verify --run`.

    Attributes:
        inputs: model input → nested lists of numbers (`input_ids` (batch, sequence), …); images and speech (batch,
            channels, 5, 11) are tiles that are repeated to the size which the model takes.
        output: the model output that is compared: that of the head (`logits`, `start_logits`, …), or
            `last_hidden_state`; of one with a row for each token the first row of each example, or with `[-1]` behind
            the name the last.
        values: the answer, nested lists (batch, n), float32.
        base_values: what the base model without the adapter gives for the same output, or None where it has none.
        atol: largest absolute difference that still counts as the same answer in float32.
    """

    inputs: Mapping[str, JSON]
    output: str
    values: JSON
    base_values: JSON = None
    atol: float = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """One of the adapters that were merged into another.

    Attributes:
        name: what it was called.
        version: its version, or "".
        digest: `sha256:<hex>` of its file, or "".
        weight: what it was multiplied by.
    """

    name: str
    version: str = ""
    digest: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an adapter came from, if it was not trained here.

    Attributes:
        format: name of the source format, e.g. `adapters`; `merge` of an adapter made of others, `extract` of one that
            was taken out of a fine-tuned model.
        version: version that the source names, e.g. `adapters.1.3.0`.
        digest: digest of the source, `sha256:<hex>`, or "".
        converter: name and version of the program that converted it.
        exact: whether the conversion keeps the function exactly.
        difference: largest measured difference of the outputs, or None where it was not measured.
        error: of an approximation, the largest part of a weight's change that is missing; None where nothing is.
        method: how it was made of others: name of a merge method, or "".
        settings: options of that method, such as `rank` and `seed`.
        parents: the adapters that it was made of.
    """

    format: str
    version: str = ""
    digest: str = ""
    converter: str = ""
    exact: bool = True
    difference: float | None = None
    error: float | None = None
    method: str = ""
    settings: Mapping[str, JSON] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about an adapter besides its function; the field names are those of manifest.schema.json.

    Attributes:
        name: name of the adapter; lower-case letters, digits, `.`, `_`, `-`.
        base: the base model.
        version: SemVer, or "" before it is published.
        summary: one line for people.
        task: `<task>/<subtask>`, e.g. `sentiment/sst-2`.
        labels: names of the classes, in the order of the logits; () where there is no head.
        license: SPDX expression of the adapter itself.
        language: BCP 47 codes.
        datasets: what it was trained on.
        metrics: name → value on held-out data; fractions, not per cents.
        training: how it was trained: recipe, seeds, epochs, …
        citation: what to cite for the adapter.
        probe: inputs and answers, or None.
        provenance: where it came from, or None if it was made here.
        extra: every foreign field that was not understood, kept to be written back.
    """

    name: str
    base: Base
    version: str = ""
    summary: str = ""
    task: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    language: tuple[str, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, JSON] = field(default_factory=dict)
    citation: str = ""
    probe: Probe | None = None
    provenance: Provenance | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter in memory.

    Attributes:
        config: what it computes, one value per method; several are a union of methods on disjoint sites or kinds.
        tensors: canonical key → tensor.
        manifest: what else is known about it.
    """

    config: tuple[MethodConfig, ...]
    tensors: Mapping[str, torch.Tensor]
    manifest: Manifest


def to_json(value: object) -> JSON:
    """Return a record of this module as JSON values, leaving out fields that have their default.

    >>> to_json(Base(architecture="bert", id="google-bert/bert-base-uncased"))
    {'architecture': 'bert', 'id': 'google-bert/bert-base-uncased'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_json(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if getattr(value, f.name) != _default(f)
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: JSON) -> T:
    """Return the record of type cls that JSON data describe.

    Law: `from_json(type(x), to_json(x)) == x`.

    The data are to be checked against their schema first (schemas.check); here only types are built.

    >>> from_json(Base, {"architecture": "bert"})
    Base(architecture='bert', id='', revision=None, fingerprint=None, others=())
    """
    builders = _BUILDERS.get(cls) or _builders(cls)
    return cls(**{name: builders[name](value) for name, value in data.items()})


def _default(f: dataclasses.Field[Any]) -> object:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


Builder = Callable[[JSON], Any]
"""JSON value → the value of a field."""


_BUILDERS: dict[type, Mapping[str, Builder]] = {}
"""Made once for a class: asking for types is slow, and reading a manifest asks often."""


def _builders(cls: type) -> Mapping[str, Builder]:
    """Return field → its builder."""
    return _BUILDERS.setdefault(cls, {name: _builder(hint) for name, hint in get_type_hints(cls).items()})


def _builder(hint: Any) -> Builder:
    """Return what puts a JSON value into the shape that a type hint asks for: a record, tuple, mapping, or itself."""
    hints = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    made = [builder for one in hints if (builder := _shaper(one)) is not None]
    if not made:
        return _itself
    (kind, build), *others = made
    if others:
        raise TypeError(f"{hint} has several shapes")
    return lambda value: build(value) if isinstance(value, kind) else value


def _itself(value: JSON) -> Any:
    return value


def _shaper(hint: Any) -> tuple[type, Builder] | None:
    """Return the JSON type that a hint gives another shape to, and what does it; None where it gives none."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return dict, functools.partial(from_json, hint)
    if origin is tuple:
        item = _builder(args[0])
        return list, tuple if item is _itself else lambda value: tuple(map(item, value))
    if origin is Mapping:
        item = _builder(args[1])
        return dict, dict if item is _itself else lambda value: {key: item(one) for key, one in value.items()}
    return None
