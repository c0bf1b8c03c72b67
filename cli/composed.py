"""What `show` tells of a composition: a tree, its adapters with their pins, and what else is known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import words
from .entries import size
from .output import style
from .table import facts
from .tree import tree

if TYPE_CHECKING:
    from ..arrangement import Arrangement
    from ..registry import Pulled, Resolved


def as_json(found: Arrangement, pulled: Pulled, resolved: Resolved | None, digest: str | None) -> dict[str, Any]:
    """Return everything for a program."""
    data: dict[str, Any] = {"name": found.name or pulled.name, "version": found.version or pulled.version}
    data |= {"path": str(pulled.path), "digest": digest, "composition": found.to_json()}
    data["adapters"] = {
        name: {
            "name": part.name,
            "version": part.version,
            "path": str(part.path),
            "digest": found.adapters[name].digest,
        }
        for name, part in pulled.parts.items()
    }
    if resolved is not None:
        data |= {"artifact": resolved.artifact.to_json(), "entry": resolved.entry.to_json()}
    return data


def sections(found: Arrangement, pulled: Pulled, digest: str | None, columns: int | None) -> Iterator[str]:
    """Yield the lines for people."""
    name, version = found.name or pulled.name, found.version or pulled.version or ""
    yield style(f"{name} {version}".rstrip(), sys.stdout, bold=True)
    base, count = found.base, 0
    if base is not None and base.fingerprint is not None:
        count = len(base.fingerprint.samples)
    pins = [f"{leaf}: {pin.reference or 'anywhere'}, {pin.digest}" for leaf, pin in found.adapters.items()]
    rules = "those of the library adapters 1.3.0, also where it departs from the papers" if found.rules else ""
    probe = found.to_json().get("probe")
    pairs = [
        ("summary", found.summary),
        ("task", found.task),
        ("labels", words.labels(found.labels)),
        ("language", ", ".join(found.language)),
        ("base model", "(unknown)" if base is None else f"{base.id or '(unknown)'} ({base.architecture})"),
        ("composition", "\n".join(tree(found.composition, found.head))),
        ("rules", rules),
        ("adapters", "\n".join(pins)),
        ("metrics", ", ".join(f"{metric} {words.number(value)}" for metric, value in found.metrics.items())),
        ("license", found.license),
        ("fingerprint", f"{count} tensors of the base model" if count else "none: the base model cannot be recognised"),
        ("probe", words.probe(probe)),
        ("file", f"{pulled.path} ({size(_size(pulled))})"),
        ("digest", digest or ""),
    ]
    yield from facts(pairs, columns)


def _size(pulled: Pulled) -> int:
    files = [pulled.path] if pulled.path.is_file() else pulled.path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
