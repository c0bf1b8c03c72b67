"""Types of PEFT that are a few fields and a few tensors at each map; one row for each.

A Row says which fields have a name of ours and which hold patterns for single modules; what else the type has cannot
change what a trained adapter computes. Tensors are called here as PEFT calls them.

Source: PEFT 0.21.2, tuners/<type>/config.py and model.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...adapter import JSON, MethodConfig
from ...errors import UnsupportedError
from ...methods.config import config_from_json
from ...sites import Layout
from .codec import Codec, ConfigClass, Fields, Places

Turn = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""PEFT's value → ours, and back."""


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A number that single maps may have of their own.

    Attributes:
        ours: our field for all, and our field of those that differ.
        theirs: PEFT's field for all.
        pattern: PEFT's field of patterns, or "" where it has none.
        leaf: tensor and dimension that say it too; then patterns are not evaluated on reading.
        dotted: whether a pattern has to begin behind a dot.
    """

    ours: tuple[str, str]
    theirs: str
    pattern: str = ""
    leaf: tuple[str, int] | None = None
    dotted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One type.

    Attributes:
        type: the value of peft_type.
        config: the class of our configuration.
        leaves: names of the tensors at a map; see _ours.
        fields: PEFT's field → ours.
        turns: PEFT's field → how its values are turned into ours and back.
        own: numbers that single maps may have.
        shared: names of the tensors that all maps share.
        counted: our field → PEFT's field for it, and the tensor and dimension that say it on reading.
        idle: fields that cannot change what a trained adapter computes.
        refused: foreign configuration → why it is not read, one phrase each.
    """

    type: str
    config: ConfigClass
    leaves: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    turns: Mapping[str, Turn] = field(default_factory=dict)
    own: tuple[Own, ...] = ()
    shared: tuple[str, ...] = ()
    counted: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    refused: Callable[[Fields], list[str]] = lambda fields: []


def codec(row: Row) -> Codec:
    """Return the codec of a row."""
    named = [*row.fields, *(one.theirs for one in row.own), *(one.pattern for one in row.own if one.pattern)]
    named += [theirs for theirs, _, _ in row.counted.values()]
    return Codec(
        type=row.type,
        config=row.config,
        leaves={leaf: _ours(leaf) for leaf in row.leaves},
        shared={name: name for name in row.shared},
        meant=tuple(named),
        idle=row.idle,
        refused=row.refused,
        decode=partial(decode, row),
        encode=partial(encode, row),
    )


def _ours(leaf: str) -> str:
    """Return our name of a tensor.

    >>> _ours("peanut_encoders.0.weight"), _ours("glora_A.Xd"), _ours("miss_block")
    ('peanut_encoders_0', 'glora_A_Xd', 'miss_block')
    """
    return leaf.removesuffix(".weight").replace(".", "_")


def decode(row: Row, fields: Fields, places: Places) -> MethodConfig:
    """Return the configuration that fields and places describe."""
    said: dict[str, JSON] = {"method": row.config.method, "targets": list(places.targets)}
    for theirs, ours in row.fields.items():
        said[ours] = row.turns.get(theirs, (_same, _same))[0](fields[theirs])
    for one in row.own:
        usual = fields[one.theirs]
        said[one.ours[0]] = usual
        if one.leaf is None:
            said[one.ours[1]] = places.resolved(fields.get(one.pattern), one.pattern, usual)
        else:
            sizes = {path: _size(places, path, one.leaf) for path in places.theirs}
            said[one.ours[1]] = {path: size for path, size in sizes.items() if size != usual}
    for ours, (_, leaf, dimension) in row.counted.items():
        said[ours] = max((_size(places, path, (leaf, dimension)) for path in places.theirs), default=0)
    config: MethodConfig = config_from_json(row.config, said)
    return config


def encode(row: Row, config: Any, places: Places, layout: Layout) -> dict[str, JSON]:
    """Return the fields of a type.

    Raises:
        UnsupportedError: single maps have numbers of their own, and PEFT has no field for that.
    """
    data = config.to_json()
    said = {theirs: row.turns.get(theirs, (_same, _same))[1](data[ours]) for theirs, ours in row.fields.items()}
    said |= {theirs: data[ours] for ours, (theirs, _, _) in row.counted.items()}
    for one in row.own:
        usual, own = data[one.ours[0]], data[one.ours[1]]
        values = {path: _of(layout, path, own, usual) for path in places.theirs}
        differ = {path: value for path, value in values.items() if value != usual}
        if differ and not one.pattern:
            common, times = Counter(values.values()).most_common(1)[0]
            if times < len(values):
                raise UnsupportedError(f"PEFT has one {one.theirs} for all modules, and {min(differ)} has another one")
            usual, differ = common, {}
        said[one.theirs] = usual
        if one.pattern:
            said[one.pattern] = {_written(places, path, dotted=one.dotted): value for path, value in differ.items()}
    return said


def _size(places: Places, path: str, leaf: tuple[str, int]) -> int:
    shape = places.shape(path, leaf[0])
    return shape[leaf[1]] if len(shape) > abs(leaf[1]) or -len(shape) <= leaf[1] < len(shape) else 0


def _of(layout: Layout, path: str, own: Mapping[str, Any], usual: Any) -> Any:
    linear = layout.linear.get(path)
    names = (path, *(linear.roles if linear is not None else ()))
    return next((own[name] for name in names if name in own), usual)


def _written(places: Places, path: str, *, dotted: bool) -> str:
    """Return a pattern that means one module alone."""
    if not dotted:
        return places.written(path)
    _, dot, rest = places.theirs[path].partition(".")
    if not dot:
        raise UnsupportedError(f"PEFT cannot give {path} a number of its own")
    return rest
