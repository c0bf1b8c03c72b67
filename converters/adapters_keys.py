"""Tensor keys in files of `adapters` and adapter-transformers: each rule once, for both directions.

A key is `[<prefix>.]<layer>.<location>.<container>.<name>.<leaf>`, for example
`bert.encoder.layer.0.attention.output.adapters.sst.adapter_down.0.weight`. Prefix and location come from the
architecture's row, the container from the era (CONTAINERS), the leaf from LEAVES.

Source: adapters 1.3.0, methods/modeling.py and loading.py; FORMATS §2.1, §2.2 and §3.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..architectures import Architecture, Sublayer
from ..errors import FormatError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Container:
    """Names of the dictionaries of adapters in one era.

    Attributes:
        attention: at the sublayers of attention.
        feed_forward: at the feed-forward sublayers; it names the era in what is kept.
    """

    attention: str
    feed_forward: str

    def at(self, part: Sublayer) -> str:
        """Return the name at a sublayer."""
        return self.feed_forward if part.role == "feed_forward" else self.attention


CONTAINERS = (
    Container("adapters", "adapters"),
    Container("attention_text_task_adapters", "layer_text_task_adapters"),
    Container("attention_text_lang_adapters", "layer_text_lang_adapters"),
    Container("attention_adapters", "layer_adapters"),
    Container("language_attention_adapters", "layer_language_adapters"),
)
"""Since adapter-transformers 2; two of 1.x; two before 1.0."""

LEAVES = (
    ("adapter_up.weight", "bottleneck_up.weight"),
    ("adapter_up.bias", "bottleneck_up.bias"),
    ("adapter_norm_after.weight", "bottleneck_norm_after.weight"),
    ("adapter_norm_after.bias", "bottleneck_norm_after.bias"),
    ("scaling", "bottleneck_scaling"),
    ("gate.weight", "bottleneck_gate.weight"),
    ("gate.bias", "bottleneck_gate.bias"),
)
"""Foreign leaf, ours."""

PLAIN = (*LEAVES, ("adapter_down.0.weight", "bottleneck_down.weight"), ("adapter_down.0.bias", "bottleneck_down.bias"))
"""Without ln_before."""

NORMED = (
    *LEAVES,
    ("adapter_norm_before.weight", "bottleneck_norm_before.weight"),
    ("adapter_norm_before.bias", "bottleneck_norm_before.bias"),
    ("adapter_down.0.weight", "bottleneck_norm_before.weight"),
    ("adapter_down.0.bias", "bottleneck_norm_before.bias"),
    ("adapter_down.1.weight", "bottleneck_down.weight"),
    ("adapter_down.1.bias", "bottleneck_down.bias"),
)
"""With ln_before: the norm stands in the file twice, by its own name and as the first module of the down projection."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a file's keys have in common.

    Attributes:
        name: the adapter's name in the keys.
        prefix: the word in front of module paths, or "".
        container: the era's names.
    """

    name: str
    prefix: str = ""
    container: Container = CONTAINERS[0]


def naming(keys: Sequence[str], row: Architecture, name: str) -> Naming:
    """Return what the keys have in common: the prefix and container that most of them have.

    Raises:
        FormatError: no key is one of a bottleneck; the names found in the keys are told if they are others than name.
    """
    candidates = [Naming(name, prefix, box) for prefix in ("", *row.prefixes) for box in CONTAINERS]
    counts = [sum(_parser(row, candidate).match(key) is not None for key in keys) for candidate in candidates]
    best = max(range(len(candidates)), key=lambda i: (counts[i], -i))
    if counts[best]:
        return candidates[best]
    raise FormatError(
        "the weights hold no bottleneck of this adapter",
        faults=_strangers(keys, row, name) or [f"none of the {len(keys)} keys is one of {row.name} with name {name!r}"],
        hint="name, model_type and weights must come from the same adapter",
    )


def decode(
    tensors: Mapping[str, torch.Tensor], row: Architecture, names: Naming
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return canonical key → tensor, and what is wrong with the keys, one sentence each."""
    parser = _parser(row, names)
    matches = {key: match for key in tensors if (match := parser.match(key))}
    normed = {_site(row, match) for match in matches.values() if match["leaf"] in _NORM_LEAVES}
    found: dict[str, torch.Tensor] = {}
    halves: Counter[str] = Counter()
    faults: list[str] = []
    for key, tensor in tensors.items():
        match = matches.get(key)
        site = None if match is None else _site(row, match)
        leaf = None if match is None else dict(NORMED if site in normed else PLAIN).get(match["leaf"])
        if leaf is None:
            faults.append(f"key {key!r} is none of a bottleneck called {names.name!r} for {row.name}")
            continue
        ours = f"{site}.{leaf}"
        halves[ours] += 1
        if ours in found and not _identical(found[ours], tensor):
            faults.append(f"key {key!r} repeats the norm in front of the down projection with other values")
        found[ours] = tensor
    return found, faults + _unpaired(halves)


def encode(tensors: Mapping[str, torch.Tensor], row: Architecture, names: Naming) -> dict[str, torch.Tensor]:
    """Return foreign key → tensor; the norm in front of the down projection is written under both its names."""
    return {foreign: tensors[key] for key in tensors for foreign in _foreign(key, tensors, row, names)}


def _foreign(key: str, keys: Collection[str], row: Architecture, names: Naming) -> Iterator[str]:
    """Yield the foreign keys of a canonical one; keys are all canonical keys of the adapter."""
    head = f"{names.prefix}." if names.prefix else ""
    for stack in row.layers:
        for part in stack.sublayers:
            match = _canonical(stack.path, part.path).fullmatch(key)
            if match:
                layer, leaf = match[1], match[2]
                rules = NORMED if f"{layer}.{part.path}.{_NORM}" in keys else PLAIN
                site = f"{head}{layer}.{part.adapters}.{names.container.at(part)}.{names.name}"
                yield from (f"{site}.{theirs}" for theirs, ours in rules if ours == leaf)


_NORM = "bottleneck_norm_before.weight"
_NORM_LEAVES = ("adapter_norm_before.weight", "adapter_norm_before.bias")


@cache
def _canonical(layer: str, part: str) -> re.Pattern[str]:
    return re.compile(rf"({_any_layer(layer)})\.{re.escape(part)}\.(bottleneck_.+)")


def _any_layer(path: str) -> str:
    return re.escape(path).replace(r"\{i\}", "(?:0|[1-9][0-9]{0,17})")


def _parser(row: Architecture, names: Naming) -> re.Pattern[str]:
    """Return the pattern of a file's keys, with the groups layer, s<stack>_<sublayer> and leaf."""
    head = re.escape(f"{names.prefix}.") if names.prefix else ""
    stacks = []
    for number, stack in enumerate(row.layers):
        places = "|".join(
            f"(?P<s{number}_{i}>{re.escape(f'{part.adapters}.{names.container.at(part)}')})"
            for i, part in enumerate(stack.sublayers)
        )
        stacks.append((_any_layer(stack.path), places))
    body = rf"(?P<layer>{'|'.join(layer for layer, _ in stacks)})\.(?:{'|'.join(places for _, places in stacks)})"
    return re.compile(rf"{head}{body}\.{re.escape(names.name)}\.(?P<leaf>.+)\Z", re.DOTALL)


def _site(row: Architecture, match: re.Match[str]) -> str:
    """Return the canonical path of the site that a key names."""
    part = next(
        part
        for number, stack in enumerate(row.layers)
        for i, part in enumerate(stack.sublayers)
        if match[f"s{number}_{i}"] is not None
    )
    return f"{match['layer']}.{part.path}"


def _identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors are equal bit for bit."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _unpaired(halves: Mapping[str, int]) -> list[str]:
    return [
        f"tensor {key!r} stands in the file by one of its two names only, adapter_norm_before and adapter_down.0"
        for key, count in halves.items()
        if ".bottleneck_norm_before." in key and count != 2
    ]


def _strangers(keys: Sequence[str], row: Architecture, name: str) -> list[str]:
    """Return one sentence if the keys are those of an adapter, or of adapters, of other names."""
    others: set[str] = set()
    for word in {word for box in CONTAINERS for word in (box.attention, box.feed_forward)}:
        pattern = re.compile(rf"\.{re.escape(word)}\.([^.]{{1,200}})\.(?:adapter_(?:down|up|norm)|gate|scaling)")
        others |= {match[1] for key in keys if (match := pattern.search(key))}
    others.discard(name)
    if not others:
        return []
    shown = ", ".join(repr(other) for other in sorted(others)[:5])
    return [f"adapter_config.json names the adapter {name!r}, the keys of the tensors name {shown}"]
