"""Tensor keys in files of `adapters` and adapter-transformers.

A key is `[<prefix>.]<place>.<container>.<name>.<leaf>`, for example
`bert.encoder.layer.0.attention.output.adapters.sst.adapter_down.0.weight`. What a configuration may have is told by its
codec as pairs of names with `{i}` for the layer; here they become a table that is asked in both directions.

Source: adapters 1.3.0, methods/modeling.py and loading.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapter import MethodConfig
from ...architectures import Architecture, Layers
from ...errors import FormatError
from ...methods import left_out, method_of
from .. import layers
from ..layers import Index
from ..values import identical
from .codec import CONTAINERS, Codec, Container, Entry, Places

if TYPE_CHECKING:
    import torch

WORDS = (
    "adapter_fusion_layer",
    "adapters",
    "invertible_adapters",
    "invertible_lang_adapters",
    "loras",
    "prefix_gates",
    "prefix_tunings",
    "prompt_tunings",
    "refts",
    "shared_parameters",
    *(word for box in CONTAINERS[1:] for word in (box.attention, box.feed_forward)),
)
"""Dictionaries by the adapter's name; the name is the next word of a key."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a file's keys have in common.

    Attributes:
        name: the adapter's name in them.
        prefix: the word of the model class in front (`bert`), or "".
        container: the names of their era.
        copies: which copies of tensors there are: all, none, or {"with": keys, "without": keys} in difference to none,
            the keys without prefix and with `{name}` for the name; None for those that tell the number of layers.
    """

    name: str
    prefix: str = ""
    container: Container = CONTAINERS[0]
    copies: bool | Mapping[str, Sequence[str]] | None = None


class Table:
    """The two names of every tensor of an adapter."""

    def __init__(
        self, parts: Iterable[tuple[MethodConfig, Codec]], row: Architecture, names: Naming, keys: Iterable[str]
    ) -> None:
        """Make the table; keys, foreign or canonical ones, tell how many layers each stack has."""
        self._names = names
        self._row = row
        self._head = f"{names.prefix}." if names.prefix else ""
        self._theirs = tuple(dataclasses.replace(stack, path=row.past(stack.path)) for stack in row.layers)
        self._ours = row.layers
        self._by_theirs: dict[str, list[Entry]] = {}
        self._by_ours: dict[str, list[Entry]] = {}
        parts = tuple(parts)
        for config, codec in parts:
            for entry in codec.entries(config, row, names.container):
                self._by_theirs.setdefault(entry.theirs, []).append(entry)
                self._by_ours.setdefault(entry.ours, []).append(entry)
        bare = [key.removeprefix(self._head) for key in keys]
        named = [a | b for a, b in zip(layers.found(bare, self._theirs), layers.found(bare, self._ours), strict=True)]
        absent = left_out([method_of(config).facts(config, {}, lambda path: ()) for config, _ in parts])
        self.has_copies = any(map(self._is_copy, bare))
        self.may_have_copies = any(entry.optional for entries in self._by_ours.values() for entry in entries)
        # Copies stand below every layer, those that are left out too: nothing needs to be added to what they name.
        self._runs = layers.runs(row, named, set() if self.has_copies else absent)

    def places(self, width: int = 0, *, whole: bool = True) -> Places:
        """Return what codecs want to know of the model."""
        return Places(self._row, tuple(self._runs), width, whole)

    def ours(self, key: str) -> tuple[Entry, str] | None:
        """Return the entry that a foreign key belongs to, and its canonical key; None if there is none."""
        if not key.startswith(self._head):
            return None
        bare = unnamed(key[len(self._head) :], self._names.name)
        if "{i}" in bare or ("{name}" in key and self._names.name != "{name}"):
            return None  # a template of ours, not the key of a layer or of an adapter
        template, number, index = self._template(bare, self._theirs)
        for entry in self._by_theirs.get(template, ()):
            if number not in entry.left_out:
                return entry, _filled(entry.ours, index)
        return None

    def theirs(self, key: str) -> Iterator[tuple[Entry, str]]:
        """Yield the foreign keys of a canonical one."""
        template, number, index = self._template(key, self._ours)
        for entry in self._by_ours.get(template, ()):
            if number not in entry.left_out:
                for place in [index] if index or "{i}" not in entry.theirs else self._indices(entry.theirs):
                    yield entry, self.foreign(_filled(entry.theirs, place))

    def last_copies(self, key: str) -> dict[str, str]:
        """Return stack → foreign key of the copy of a tensor below its last layer."""
        found = {}
        for entry in self._by_ours.get(key, ()):
            indices = self._indices(entry.theirs) if entry.optional else []
            if indices:
                stack, _, _ = entry.theirs.rpartition("{i}")
                found[stack] = self.foreign(_filled(entry.theirs, indices[-1]))
        return found

    def foreign(self, key: str) -> str:
        """Return a key without prefix and name with both."""
        return self._head + key.replace("{name}", self._names.name)

    def template(self, key: str) -> str:
        """Return a foreign key without prefix and name; foreign(template(key)) == key."""
        return unnamed(key.removeprefix(self._head), self._names.name)

    def _indices(self, template: str) -> list[Index]:
        """Return the indices of all layers of the stack that the template of a foreign key is of."""
        for stack, run in zip(self._theirs, self._runs, strict=True):
            if template.startswith(f"{stack.path}."):
                return run.indices
        return []

    def _is_copy(self, key: str) -> bool:
        """Return whether a foreign key without prefix is that of a copy."""
        template, _, _ = _placed(unnamed(key, self._names.name), self._theirs)
        return any(entry.optional for entry in self._by_theirs.get(template, ()))

    def _template(self, key: str, stacks: Sequence[Layers]) -> tuple[str, int, Index]:
        """Return a key with `{i}` in place of the index of its layer, the layer's number, or -1, and that index."""
        template, stack, index = _placed(key, stacks)
        return template, -1 if stack < 0 else self._runs[stack].number(index), index


def _placed(key: str, stacks: Sequence[Layers]) -> tuple[str, int, Index]:
    """Return a key with `{i}` in place of the index of its layer, the place of its stack, or -1, and that index."""
    for place, stack in enumerate(stacks):
        index = stack.index(key)
        if index is not None:
            return stack.path + key[len(stack.layer(index)) :], place, index
    return key, -1, ()


def of_an_adapter(key: str) -> bool:
    """Return whether a foreign key is that of a tensor of some adapter."""
    return any(word in WORDS for word in key.split(".")[:-1])


def naming(keys: Sequence[str], parts: Sequence[tuple[MethodConfig, Codec]], row: Architecture, name: str) -> Naming:
    """Return what the keys have in common: the prefix and container that most of them have.

    Raises:
        FormatError: no key is one of the adapter; the names found in the keys are told if they are others than name.
    """
    candidates = [Naming(name, prefix, box) for prefix in ("", *row.prefixes) for box in CONTAINERS]
    tables = [Table(parts, row, candidate, keys) for candidate in candidates]
    counts = [sum(table.ours(key) is not None for key in keys) for table in tables]
    best = max(range(len(candidates)), key=lambda i: (counts[i], -i))
    if counts[best]:
        return candidates[best]
    raise FormatError(
        f"the weights hold no {_kinds(parts)} of this adapter",
        faults=_strangers(keys, name) or [f"none of the {len(keys)} keys is one of {row.name} with name {name!r}"],
        hint="name, model_type and weights must come from the same adapter",
    )


def decode(
    tensors: Mapping[str, torch.Tensor],
    parts: Sequence[tuple[MethodConfig, Codec]],
    row: Architecture,
    names: Naming,
    width: int = 0,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return canonical key → tensor, and what is wrong with the keys, one sentence each.

    width: hidden size that the document states, 0 if it does not.
    """
    table = Table(parts, row, names, tensors)
    found: dict[str, torch.Tensor] = {}
    faults: list[str] = []
    for key, tensor in tensors.items():
        match = table.ours(key)
        if match is None:
            faults.append(f"key {key!r} is none of a {_kinds(parts)} called {names.name!r} for {row.name}")
            continue
        ours = match[1]
        if ours in found and not identical(found[ours], tensor):
            faults.append(f"key {key!r} repeats another tensor ({ours}) with other values")
        found[ours] = tensor
    faults += _absent(found, tensors, table)
    places = table.places(width, whole=_is_whole(found, tensors, table))
    for config, codec in parts:
        found = codec.read(config, found, places)
    return found, faults


Copies = bool | dict[str, list[str]]


def copies(
    found: Mapping[str, torch.Tensor],
    tensors: Iterable[str],
    parts: Sequence[tuple[MethodConfig, Codec]],
    row: Architecture,
    names: Naming,
) -> Copies | None:
    """Return Naming.copies of a file, None where there can be none.

    found: what decode made of its tensors.
    """
    table = Table(parts, row, names, found)
    if not table.may_have_copies:
        return None
    known = [pair for key in _joined(found, parts, table) for pair in table.theirs(key)]
    usual = {foreign for entry, foreign in known if not entry.optional}
    have = set(tensors)
    if have == usual or have == {foreign for _, foreign in known}:
        return have != usual
    return {
        "with": sorted(table.template(key) for key in have - usual),
        "without": sorted(table.template(key) for key in usual - have),
    }


def encode(
    tensors: Mapping[str, torch.Tensor], parts: Sequence[tuple[MethodConfig, Codec]], row: Architecture, names: Naming
) -> dict[str, torch.Tensor]:
    """Return foreign key → tensor, repeated under every name that the library looks for."""
    table = Table(parts, row, names, tensors)
    written = _joined(tensors, parts, table)
    found = {
        foreign: tensor
        for key, tensor in written.items()
        for entry, foreign in table.theirs(key)
        if names.copies is True or not entry.optional
    }
    if names.copies is None:
        return found | dict(_telling(written, table))
    if not isinstance(names.copies, Mapping):
        return found
    for key in names.copies.get("without", ()):
        found.pop(table.foreign(key), None)
    for key in names.copies.get("with", ()):
        match = table.ours(table.foreign(key))
        if match is not None and match[1] in written:
            found[table.foreign(key)] = written[match[1]]
    return found


def _telling(written: Mapping[str, torch.Tensor], table: Table) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the smallest copies that tell how many layers each stack has: one below each last layer."""
    told: set[str] = set()
    for key in sorted(written, key=lambda key: (written[key].numel(), key)):
        last = table.last_copies(key)
        yield from ((foreign, written[key]) for stack, foreign in last.items() if stack not in told)
        told |= set(last)


def _joined(
    tensors: Mapping[str, torch.Tensor], parts: Sequence[tuple[MethodConfig, Codec]], table: Table
) -> dict[str, torch.Tensor]:
    """Return canonical tensors as they lie in a file, under our names."""
    written = dict(tensors)
    for config, codec in reversed(parts):
        written = codec.write(config, written, table.places())
    return written


def _is_whole(found: Iterable[str], tensors: Mapping[str, torch.Tensor], table: Table) -> bool:
    """Return whether every tensor stands in a file by its own names, and copies tell how many layers there are."""
    own = (foreign for key in found for entry, foreign in table.theirs(key) if not entry.optional)
    return table.has_copies == table.may_have_copies and all(name in tensors for name in own)


def _absent(found: Iterable[str], tensors: Mapping[str, torch.Tensor], table: Table) -> Iterator[str]:
    """Yield a sentence for each tensor that stands in a file by one of its names only."""
    for key in found:
        names = [foreign for entry, foreign in table.theirs(key) if not entry.optional]
        missing = [name for name in names if name not in tensors]
        if missing and len(missing) < len(names):
            yield f"tensor {key!r} stands in the file by one of its names only; {missing[0]!r} is missing"


def _filled(template: str, index: Index) -> str:
    """Return a template with the index of a layer, or its indices, for `{i}`."""
    numbers = iter(index)
    return re.sub(r"\{i\}", lambda _: str(next(numbers)), template)


def unnamed(key: str, name: str) -> str:
    """Return a key with `{name}` in place of the adapter's name behind a container."""
    words = key.split(".")
    # The last one: an adapter may be called as a dictionary is that other dictionaries hold.
    for i in reversed(range(1, len(words))):
        if words[i] == name and words[i - 1] in WORDS:
            return ".".join((*words[:i], "{name}", *words[i + 1 :]))
    return key


def _kinds(parts: Iterable[tuple[MethodConfig, Codec]]) -> str:
    return " or ".join(dict.fromkeys(config.method.replace("_", " ") for config, _ in parts))


def _strangers(keys: Sequence[str], name: str) -> list[str]:
    """Return one sentence if the keys are those of an adapter, or of adapters, of other names."""
    pattern = re.compile(rf"(?:\A|\.)(?:{'|'.join(WORDS)})\.([^.]{{1,200}})\.")
    others = {match[1] for key in keys if (match := pattern.search(key))} - {name}
    if not others:
        return []
    shown = ", ".join(repr(other) for other in sorted(others)[:5])
    return [f"adapter_config.json names the adapter {name!r}, the keys of the tensors name {shown}"]
