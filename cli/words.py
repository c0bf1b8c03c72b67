"""What a manifest says, in words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = Any

_TOLERANCE = 1e-4
"""What adapter.Probe has where a file leaves it out."""


def dataset(data: Mapping[str, JSON]) -> str:
    """Return a data set in words: name, licence, sizes, source and split, one line each."""
    sizes = ", ".join(f"{count:,} {part}" for part, count in data.get("sizes", {}).items())
    licence = f" ({data['license']})" if data.get("license") else ""
    head = data["name"] + licence + (f": {sizes}" if sizes else "")
    split = f"split: {data['split']}" if data.get("split") else ""
    return "\n".join(filter(None, [head, data.get("source"), split]))


def probe(stored: Mapping[str, JSON] | None) -> str:
    """Return what a probe holds, in words."""
    if stored is None:
        return "none: `verify --run` cannot replay anything"
    count = len(next(iter(stored["inputs"].values())))
    return f"{count} inputs with their {stored['output']}, same within {stored.get('atol', _TOLERANCE):g}"


def training(recipe: Mapping[str, object]) -> str:
    """Return the plain values of a recipe; what is off, and what stands elsewhere, is left out.

    >>> training({"method": "seq_bn", "epochs": 3, "bf16": False, "learning_rate": 0.001})
    'epochs 3, learning rate 0.001'
    """
    plain = {key: value for key, value in recipe.items() if isinstance(value, (str, int, float))}
    shown = {key: value for key, value in plain.items() if value is not False and key not in ("method", "parameters")}
    return ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in shown.items())


def labels(names: Sequence[str]) -> str:
    """Return the names of classes, cut after 20."""
    more = f", … {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def number(value: object) -> str:
    """Return a value of a manifest for people.

    >>> number(0.86432), number("adam"), number(True)
    ('0.8643', 'adam', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(count: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "adapter"), counted(2000, "adapter")
    ('1 adapter', '2,000 adapters')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
