"""Compositions: how several adapters work together, as frozen values without any torch.

    Stack("a", "b")                            b takes the output of a
    Fuse("a", "b", name=None)                  AdapterFusion: attention over the outputs
    Split("a", "b", splits=[64, 64])           each its part of the sequence
    BatchSplit("a", "b", batch_sizes=[2, 6])   each its rows of the batch
    Parallel("a", "b")                         each a copy of the batch
    Average("a", "b", weights=[0.3, 0.7])      weighted sum of the outputs
    MultiTask("a", "b")                        each the rows of its task

The parts are names of adapters or compositions; what may stand in what is checked when a value is made.
Source: composition.py of `adapters` 1.3.0, whose constructors and nesting rules these are.
Laws: from_json(to_json(c)) == c, and parse(str(c)) == c.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

from . import schemas
from .errors import UsageError

JSON: TypeAlias = Any

_NAME = re.compile(r"[^\x00-\x20\x7f-\xa0\u2028\u2029()\[\],=\"']{1,200}")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Composition:
    """What all compositions share; made through its subclasses only.

    Attributes:
        children: the parts, in order.
        type: name of the kind, in JSON and in text.
        holds: kinds that may be children, besides names.
    """

    children: tuple[Node, ...]
    type: ClassVar[str] = "composition"
    holds: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *children: Node) -> None:
        """Make a composition of names and compositions.

        Raises:
            UsageError: there are no parts, or one of them may not stand here.
        """
        object.__setattr__(self, "children", children)
        _check_children(self)

    def leaves(self) -> tuple[str, ...]:
        """Return the names of all adapters in it, each once, in order.

        >>> Stack("a", Fuse("b", "a")).leaves()
        ('a', 'b')
        """
        return tuple(dict.fromkeys(name for child in self.children for name in leaves(child)))

    def of(self, children: Sequence[Node]) -> Composition:
        """Return a composition of the same kind and settings, of other parts.

        Raises:
            UsageError: one of them may not stand here.

        >>> Split("a", "b", splits=2).of(["c", "d"])
        Split('c', 'd', splits=(2, 2))
        """
        normal = {"normalize_weights": False} if isinstance(self, Average) else {}
        return make(self.type, children, {**_settings(self), **normal})

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.children)

    def __getitem__(self, index: int) -> Node:
        return self.children[index]

    def __str__(self) -> str:
        equal = isinstance(self, Average) and self.weights == (1.0 / len(self.children),) * len(self.children)
        settings = [f"{key}={_setting_text(value)}" for key, value in ({} if equal else _settings(self)).items()]
        normal = ["normalize_weights=false"] if isinstance(self, Average) and not equal else []
        return f"{self.type}({', '.join([*map(str, self.children), *settings, *normal])})"

    def __repr__(self) -> str:
        settings = [f"{key}={value!r}" for key, value in _settings(self).items()]
        normal = ["normalize_weights=False"] if isinstance(self, Average) else []
        return f"{type(self).__name__}({', '.join([*map(repr, self.children), *settings, *normal])})"


Node: TypeAlias = str | Composition


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Stack(Composition):
    """One adapter upon the other: each takes the former's output."""

    type: ClassVar[str] = "stack"
    holds: ClassVar[frozenset[str]] = frozenset({"fuse", "split", "parallel", "batch_split", "average", "multi_task"})


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Fuse(Composition):
    """AdapterFusion: attention over the children's outputs.

    Attributes:
        name: name of the fusion layer, or None for that made of its adapters' names.
    """

    name: str | None = None
    type: ClassVar[str] = "fuse"
    holds: ClassVar[frozenset[str]] = frozenset({"stack"})

    def __init__(self, *children: Node, name: str | None = None) -> None:
        """Make a fusion; see Composition."""
        if name is not None and not (isinstance(name, str) and name and name.isprintable()):
            raise UsageError(f"{name!r} is not the name of a fusion")
        object.__setattr__(self, "name", name)
        Composition.__init__(self, *children)

    @property
    def key(self) -> str:
        """The name of the fusion layer: as given, or the last adapters of the children joined by commas.

        >>> Fuse("a", Stack("b", "c")).key
        'a,c'
        """
        return self.name or ",".join(last(child) for child in self.children)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Split(Composition):
    """Each child takes its part of the sequence.

    Attributes:
        splits: number of tokens of each child.
    """

    splits: tuple[int, ...]
    type: ClassVar[str] = "split"
    holds: ClassVar[frozenset[str]] = frozenset({"split", "stack", "batch_split", "average"})

    def __init__(self, *children: Node, splits: Sequence[int] | int) -> None:
        """Make a split; one number stands for every child. See Composition."""
        object.__setattr__(self, "splits", _counts("splits", splits, len(children)))
        Composition.__init__(self, *children)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class BatchSplit(Composition):
    """Each child takes its rows of the batch.

    Attributes:
        batch_sizes: number of rows of each child.
    """

    batch_sizes: tuple[int, ...]
    type: ClassVar[str] = "batch_split"
    holds: ClassVar[frozenset[str]] = frozenset({"stack", "split", "batch_split", "average"})

    def __init__(self, *children: Node, batch_sizes: Sequence[int] | int) -> None:
        """Make a split of the batch; one number stands for every child. See Composition."""
        object.__setattr__(self, "batch_sizes", _counts("batch_sizes", batch_sizes, len(children)))
        Composition.__init__(self, *children)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Parallel(Composition):
    """Each child takes a copy of the whole batch."""

    type: ClassVar[str] = "parallel"
    holds: ClassVar[frozenset[str]] = frozenset({"stack", "batch_split", "average"})


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Average(Composition):
    """Weighted sum of the children's outputs.

    Attributes:
        weights: weight of each child, as it is used.
    """

    weights: tuple[float, ...]
    type: ClassVar[str] = "average"
    holds: ClassVar[frozenset[str]] = frozenset({"stack", "split", "batch_split"})

    def __init__(self, *children: Node, weights: Sequence[float] | None = None, normalize_weights: bool = True) -> None:
        """Make an average; None weighs all alike, and weights are divided by their sum unless they are to stay.

        Raises:
            UsageError: the weights are not one finite number for each child, or their sum is 0; see also Composition.
        """
        object.__setattr__(self, "weights", _weights(weights, len(children), normalize_weights))
        Composition.__init__(self, *children)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class MultiTask(Composition):
    """Each child takes the rows of its task."""

    type: ClassVar[str] = "multi_task"
    holds: ClassVar[frozenset[str]] = frozenset({"stack", "average", "fuse"})


KINDS: tuple[type[Composition], ...] = (Stack, Fuse, Split, BatchSplit, Parallel, Average, MultiTask)
"""All kinds of compositions."""


def leaves(node: Node) -> tuple[str, ...]:
    """Return the names of the adapters in a node, each once, in order."""
    return (node,) if isinstance(node, str) else node.leaves()


def last(node: Node) -> str:
    """Return the name of the adapter that comes last in a node.

    >>> last(Fuse("a", Stack("b", "a")))
    'a'
    """
    return node if isinstance(node, str) else last(node.children[-1])


def fusions(node: Node) -> tuple[str, ...]:
    """Return the names of the fusion layers in a node, each once, in order.

    >>> fusions(Stack("a", Fuse("b", "c")))
    ('b,c',)
    """
    if isinstance(node, str):
        return ()
    own = (node.key,) if isinstance(node, Fuse) else ()
    return tuple(dict.fromkeys((*own, *(name for child in node.children for name in fusions(child)))))


def to_json(node: Node) -> JSON:
    """Return a node as JSON.

    >>> to_json(Split("a", "b", splits=[1, 2]))
    {'type': 'split', 'children': ['a', 'b'], 'splits': [1, 2]}
    """
    if isinstance(node, str):
        return node
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in _settings(node).items()}
    return {"type": node.type, "children": [to_json(child) for child in node.children], **settings}


def from_json(data: JSON) -> Node:
    """Return the node that JSON describes.

    Raises:
        SchemaError: it breaks the schema; lists every fault.
        UsageError: it nests what may not be nested.
    """
    schemas.check(data, "composition", what="the composition", part="node")
    return build(data)


def parse(text: str) -> Node:
    """Return the node that text writes: a name, or `stack(a, fuse(b, c))`, `split(a, b, splits=[64, 64])` and so on.

    Raises:
        UsageError: the text cannot be read, or nests what may not be nested.

    >>> parse("stack(lang-en, fuse(b, c))")
    Stack('lang-en', Fuse('b', 'c'))
    """
    from .composition_text import read

    return read(text)


def check_name(name: str) -> None:
    """Raise UsageError where name cannot be that of an adapter in a composition."""
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise UsageError(f"{shown!r} is not the name of an adapter", hint="no spaces, brackets, commas, quotes or =")


def make(kind: str, children: Sequence[Node], settings: Mapping[str, JSON]) -> Composition:
    """Return the composition of a kind by its name, e.g. `batch_split`; settings are its keyword arguments.

    Raises:
        UsageError: there is no such kind, or it has other settings, or its parts may not stand there.
    """
    maker = _MAKERS.get(kind)
    if maker is None:
        raise UsageError(f"there is no composition {kind!r}", hint=f"there are {', '.join(_MAKERS)}")
    required, optional = _SETTINGS[kind]
    missing, unknown = required - settings.keys(), settings.keys() - required - optional
    if missing or unknown:
        words = [f"lacks {name}" for name in sorted(missing)] + [f"has no setting {name!r}" for name in sorted(unknown)]
        raise UsageError(f"{kind} {' and '.join(words)}")
    return maker(*children, **settings)


_MAKERS: Mapping[str, Callable[..., Composition]] = {kind.type: kind for kind in KINDS}
_SETTINGS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    **{kind.type: (frozenset(), frozenset()) for kind in KINDS},
    "fuse": (frozenset(), frozenset({"name"})),
    "split": (frozenset({"splits"}), frozenset()),
    "batch_split": (frozenset({"batch_sizes"}), frozenset()),
    "average": (frozenset(), frozenset({"weights", "normalize_weights"})),
}


def build(data: JSON) -> Node:
    """Return the node that checked JSON describes."""
    if isinstance(data, str):
        return data
    settings = {key: value for key, value in data.items() if key not in {"type", "children"}}
    if data["type"] == "average":
        settings["normalize_weights"] = False
    return make(data["type"], [build(child) for child in data["children"]], settings)


def _settings(node: Composition) -> dict[str, JSON]:
    """Return what a composition has besides its children, by field name, without None."""
    values = {f.name: getattr(node, f.name) for f in fields(node) if f.name != "children"}
    return {key: value for key, value in values.items() if value is not None}


def _setting_text(value: JSON) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(list(value))


def _check_children(node: Composition) -> None:
    """Raise UsageError where a child may not stand in node, or something stands too deep."""
    if not node.children:
        raise UsageError(f"{node.type} has no parts", hint=f"write {node.type}(a, b)")
    for child in node.children:
        if isinstance(child, str):
            check_name(child)
        elif not isinstance(child, Composition):
            raise UsageError(f"{child!r} in {node.type} is neither a name nor a composition")
        elif child.type not in node.holds:
            allowed = ", ".join(["names", *sorted(node.holds)])
            raise UsageError(f"{child.type} may not stand in {node.type}", hint=f"{node.type} holds {allowed}")
        else:
            deep = [inner for inner in child.children if not isinstance(inner, (str, Stack))]
            if deep:
                raise UsageError(
                    f"{deep[0].type} in {child.type} in {node.type} is too deep",
                    hint="at the third level there are only names and stack",
                )


def _counts(name: str, given: Sequence[int] | int, parts: int) -> tuple[int, ...]:
    """Return one positive whole number for each part."""
    counts = (given,) * parts if isinstance(given, int) else tuple(given) if isinstance(given, Sequence) else ()
    if len(counts) != parts or not all(schemas.is_integer(count) and count > 0 for count in counts):
        raise UsageError(f"{name} {given!r} does not fit {parts} parts", hint="give each a whole number above 0")
    return counts


def _weights(given: Sequence[float] | None, parts: int, normalize: bool) -> tuple[float, ...]:
    """Return one finite weight for each part."""
    if not isinstance(normalize, bool):
        raise UsageError(f"normalize_weights is {normalize!r}", hint="set it to true or false")
    if given is None:
        return (1.0 / parts,) * parts if parts else ()
    if not isinstance(given, Sequence) or len(given) != parts or not all(map(schemas.is_number, given)):
        raise UsageError(f"weights {given!r} do not fit {parts} parts", hint="give each a finite number")
    try:
        weights = tuple(map(float, given))
    except OverflowError as error:
        raise UsageError("weights hold a number beyond a double", hint="give each a finite number") from error
    if not normalize:
        return weights
    total = sum(weights)
    if not total or not math.isfinite(total):
        raise UsageError(
            f"weights {list(weights)} add up to {total}", hint="set normalize_weights=False to use them as is"
        )
    return tuple(weight / total for weight in weights)
