"""Adapters that the fuzzer changes: folders of every method and family in tests/data, read once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from golden import BOTTLENECKS, COMPOSITIONS, GOLDEN, HEADS, PEFT_PROMPTS, PEFTS, PREFIXES, Archive

from adapterhub.converters import FORMATS, Format, Parts, native
from adapterhub.errors import AdapterHubError

ARCHIVES = (
    (GOLDEN, 150),
    (PEFTS, 60),
    (PEFT_PROMPTS, 12),
    (PREFIXES, 24),
    (HEADS, 40),
    (BOTTLENECKS, 40),
    (COMPOSITIONS, 12),
    (Archive("linear-cases.tar.gz"), 60),
    (Archive("further-cases.tar.gz"), 60),
    (Archive("family-cases.tar.gz"), 40),
)
"""Archive, and about how many of its folders are taken."""

NATIVE = 60
"""About so many of them are there as native files too."""

LARGEST = 200_000
"""Bytes that all files of a folder may have."""


@dataclass(frozen=True, eq=False)
class Seed:
    """What a folder holds, and what it is called."""

    name: str
    format: Format
    parts: Parts


@cache
def seeds() -> tuple[Seed, ...]:
    """Return all adapters, in a fixed order."""
    foreign = [seed for archive, count in ARCHIVES for seed in _of(archive, count)]
    return (*foreign, *(_native(seed) for seed in foreign[:: len(foreign) // NATIVE]))


@cache
def words() -> tuple[str, ...]:
    """Return the words of all tensor names."""
    found = {
        word for seed in seeds() for group in seed.parts.tensors.values() for key in group for word in key.split(".")
    }
    return tuple(sorted(found))


@cache
def fields() -> tuple[str, ...]:
    """Return the names of all fields of documents, however deep."""
    text = json.dumps([dict(seed.parts.documents) for seed in seeds()])
    return tuple(sorted(set(re.findall(r'"([^"\\]*)":', text))))


def _of(archive: Archive, count: int) -> Iterator[Seed]:
    folders = sorted({file.parent for file in archive.folder().rglob("*_config.json")})
    folders = [folder for folder in folders if _is_small(folder)]
    step = max(1, len(folders) // count)
    for folder in folders[::step]:
        try:
            format_ = next(row for row in FORMATS if row.detect(folder))
            parts = format_.read(folder)
            format_.decode(parts)
        except (AdapterHubError, StopIteration):
            continue
        yield Seed(str(folder.relative_to(archive.folder())), format_, parts)


def _native(seed: Seed) -> Seed:
    """Return the same adapter as a native file holds it."""
    return Seed(f"{seed.name} as native", native.FORMAT, native.encode(seed.format.decode(seed.parts)))


def _is_small(folder: Path) -> bool:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) <= LARGEST


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 16, 1000, 10**9, 2**31, 2**63, 10**30, -(2**63)),
    *(0.0, -0.0, 0.5, 1.0, 2.0, -0.5, 1e-9, 1e-300, 1e300, 1e9),
    *("", "x", "lora", "bottleneck", "union", "bert", "gpt2", "all", "learned", "a.b", "..", "../../x", "q"),
    *("(a+)+$", ".*", "[", "x" * 3000),
    *([], {}, [[]], [None], [0], [1, 1], [-1], ["q"], ["q", "z"], [{}], list(range(300))),
    *({"a": 1}, {"0": 2}, {"default": 0}, {"1": 2, "default": 3}),
)
"""Values that fields are set to."""

TYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64),
    *(torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64),
)
"""Types that tensors are turned into."""
