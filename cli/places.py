"""What `show --base` prints: the row of data that a base model gets, and the places for adapters found with it."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import Output, style, width
from .table import facts, table

if TYPE_CHECKING:
    from ..architectures import Architecture
    from ..hub import Described
    from ..sites import Linear, Site


def show_base(output: Output, base: str, architecture: Path | None) -> None:
    """Print where adapters can act in a base model."""
    from .. import hub

    row = None if architecture is None else hub.read_architecture(architecture)
    found = hub.describe(base, architecture=row)
    ids = [site.path for site in found.layout.sites]
    output.result(as_json(found), ids=ids, text=sections(found, width(sys.stdout)))


def as_json(found: Described) -> dict[str, Any]:
    """Return everything for a program."""
    from ..architectures import to_json

    return {
        "base": found.base,
        "class": found.model_class,
        "model_type": found.model_type,
        "architecture": to_json(found.architecture),
        "layout": dataclasses.asdict(found.layout),
    }


def sections(found: Described, columns: int | None) -> Iterator[str]:
    """Yield the lines for people: facts, then the sites and the linear maps, each once for all layers.

    What belongs to a site is named relative to its layer.
    """
    layout = found.layout
    yield style(found.base, sys.stdout, bold=True)
    embeddings = ", ".join(f"{one.path} ({one.width})" for one in layout.embeddings)
    yield from facts(
        [
            ("class", f"{found.model_class} ({found.model_type})"),
            ("architecture", found.architecture.name),
            ("layers", f"{layout.layers}, hidden size {layout.width}"),
            ("places", f"{len(layout.sites)} residual sites, {len(layout.attentions)} attentions"),
            ("norms", str(len(layout.norms))),
            ("embeddings", embeddings),
            ("pooler", "yes" if layout.pooler else "none"),
        ],
        columns,
    )
    yield ""
    yield from table(("site", "kind", "output", "residual", "norm", "layers"), _sites(found), columns)
    yield ""
    yield from table(("linear map", "what it is", "size", "layers"), _linears(found), columns)


def _sites(found: Described) -> Iterator[tuple[str, ...]]:
    row = found.architecture

    def cells(site: Site) -> tuple[str, ...]:
        norm = _in_layer(site.norm or site.inner or "none", row) + (" (inside)" if site.inner else "")
        role = site.role.replace("_", " ")
        return (_template(site.path, row), role, _in_layer(site.output, row), _in_layer(site.residual, row), norm)

    yield from _once(found.layout.sites, cells)


def _linears(found: Described) -> Iterator[tuple[str, ...]]:
    def cells(linear: Linear) -> tuple[str, ...]:
        roles = " + ".join(role.replace("_", " ") for role in linear.roles)
        return (_template(linear.path, found.architecture), roles, f"{linear.inputs} → {linear.outputs}")

    yield from _once([linear for linear in found.layout.linears if linear.roles], cells)


def _once(items: Iterable[Any], cells: Callable[[Any], tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of items that read alike once, with the number of layers that have them."""
    counted = Counter(cells(item) for item in items)
    yield from ((*row, str(count)) for row, count in counted.items())


def _in_layer(path: str, row: Architecture) -> str:
    """Return a path relative to the layer that it lies in."""
    for stack in row.layers:
        index = stack.index(path)
        if index is not None:
            return path[len(stack.layer(index)) + 1 :]
    return path


def _template(path: str, row: Architecture) -> str:
    """Return a path with `{i}` for the index of its layer."""
    for stack in row.layers:
        index = stack.index(path)
        if index is not None:
            return stack.path + path[len(stack.layer(index)) :]
    return path
