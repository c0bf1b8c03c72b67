"""Codec: what one of our methods is called in files of PEFT, each fact once, for both directions.

A new type in this format is one CODEC and one entry in CODECS (types.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError
from ...methods import Shapes
from ...sites import Layout
from .pattern import Ends

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

ConfigClass = type[Any]
"""A class of our configurations; spelled here, since the codecs have a field named type."""

Fields = Mapping[str, JSON]
"""An adapter_config.json, with the default of every field that it leaves out."""

MOST_PATTERNS = 20_000
"""Entries of a `rank_pattern` and the like; one for each module is the most that makes sense."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an adapter stands, as its tensors tell.

    Attributes:
        row: the model family.
        theirs: module path of ours → what the keys call it, for every module that has tensors.
        shapes: canonical key → shape, of all tensors of the method, shared ones too.
        words: module paths of ours → the same in the words of methods/targets.py.
    """

    row: Architecture
    theirs: Mapping[str, str]
    shapes: Shapes
    words: Callable[[Collection[str]], tuple[str, ...]] = tuple

    @property
    def targets(self) -> tuple[str, ...]:
        """The modules in the words of methods/targets.py."""
        return self.words(self.theirs)

    def shape(self, path: str, leaf: str) -> tuple[int, ...]:
        """Return the shape of a tensor, () where there is none."""
        return self.shapes.get(f"{path}.{leaf}", ())

    def resolved(self, pattern: JSON, name: str, default: Any) -> dict[str, Any]:
        """Return path of ours → value for the modules to which PEFT gives another value than the default.

        pattern: the value of the field called name, such as `rank_pattern`: patterns for the end of a path → value,
        the first that matches counts.
        """
        if pattern in (None, {}):
            return {}
        if not isinstance(pattern, dict) or len(pattern) > MOST_PATTERNS:
            raise FormatError(f"adapter_config.json: {name} is no object of patterns", hint="correct it")
        known = Ends(pattern)
        matched = {ours: known.first(theirs) for ours, theirs in self.theirs.items()}
        values = {ours: default if key is None else pattern[key] for ours, key in matched.items()}
        return {ours: value for ours, value in values.items() if value != default}

    def pattern(self, values: Mapping[str, JSON]) -> tuple[JSON, dict[str, JSON]]:
        """Return the value that most modules have, and patterns for the others; values: path of ours → value."""
        counts = Counter(values[ours] for ours in self.theirs)
        usual = min(counts, key=lambda value: (-counts[value], str(value)))
        return usual, {self.written(ours): values[ours] for ours in self.theirs if values[ours] != usual}

    def written(self, ours: str) -> str:
        """Return a pattern that means one module alone: its path, anchored if another one ends like it."""
        theirs = self.theirs[ours]
        alone = not any(other.endswith(f".{theirs}") for other in self.theirs.values())
        return theirs if alone else "^" + theirs.replace(".", r"\.")


def _same(config: Any, tensors: Tensors, layout: Layout) -> Tensors:
    return tensors


def _as_read(config: Any, tensors: Tensors) -> Tensors:
    return tensors


def _nothing(fields: Fields) -> list[str]:
    return []


def _no_reason(config: Any, layout: Layout) -> list[str]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One row of CODECS.

    Attributes:
        type: the value of `peft_type`.
        config: the class of our configuration.
        leaves: what the keys have behind a module's path → the parameter's name in ours.
        shared: keys of tensors that all modules share, behind `base_model.` → ours behind `shared.`.
        aliases: leaves that files of other releases have → today's.
        meant: fields that decode understands.
        idle: fields that cannot change what a trained adapter computes.
        refused: foreign configuration → why it is not read, one phrase each.
        beyond: ours and its layout → why PEFT cannot say it, one phrase each.
        decode: foreign configuration and places → ours. Raises UsageError for wrong values, UnsupportedError.
        encode: ours, places and layout → the fields of this type. Raises UnsupportedError.
        read: tensors as they lay in the file, under our names → as we keep them.
        write: the reverse; write(read(t)) == t.
        narrowed: tensors as read makes them → as another configuration of the same meaning has them.
    """

    type: str
    config: ConfigClass
    leaves: Mapping[str, str]
    shared: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    meant: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    refused: Callable[[Fields], list[str]] = _nothing
    beyond: Callable[[Any, Layout], list[str]] = _no_reason
    decode: Callable[[Fields, Places], MethodConfig]
    encode: Callable[[Any, Places, Layout], dict[str, JSON]]
    read: Callable[[Any, Tensors], Tensors] = _as_read
    write: Callable[[Any, Tensors, Layout], Tensors] = _same
    narrowed: Callable[[Any, Tensors, Layout], Tensors] = _same

    def understands(self) -> Iterable[str]:
        """Return the fields of the type that may have any value."""
        return (*self.meant, *self.idle)
