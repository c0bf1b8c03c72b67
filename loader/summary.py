"""The table that AdapterSet.summary returns: parameters per method and kind of site, and their share of the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..adapter import MethodConfig
from ..methods import method_of
from ..sites import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Parameters of one adapter at one kind of site.

    Attributes:
        adapter: the adapter's name.
        method: the method's name.
        site: the residual site's role, the linear map's (`query`, `query+key+value`, …; `linear` where its row does not
            name it), `prefix`, `layer`, `embedding`, `norm`, `shared`, or `head`.
        places: number of sites of that kind.
        parameters: number of parameters there.
        share: the same as a fraction of the base model's parameters.
    """

    adapter: str
    method: str
    site: str
    places: int
    parameters: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All rows, and the size of the base model; `str()` gives a table."""

    base: int
    rows: tuple[Row, ...]
    active: str

    def total(self, adapter: str) -> int:
        """Return the number of parameters of one adapter."""
        return sum(row.parameters for row in self.rows if row.adapter == adapter)

    def __str__(self) -> str:
        header = ("adapter", "method", "site", "places", "parameters", "share")
        lines = [header, *self._cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        table = [
            "  ".join(_align(cell, w, i) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join([*(line.rstrip() for line in table), f"base: {self.base:,} parameters; active: {self.active}"])

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            yield (row.adapter, row.method, row.site, str(row.places), f"{row.parameters:,}", f"{row.share:.2%}")
        for name in dict.fromkeys(row.adapter for row in self.rows):
            total = self.total(name)
            yield (name, "total", "", "", f"{total:,}", f"{total / self.base:.2%}")


def rows(name: str, configs: Iterable[MethodConfig], layout: Layout, base: int) -> Iterator[Row]:
    """Yield the rows of one adapter."""
    kinds = _kinds(layout)
    attentions = {attention.path for attention in layout.attentions}
    for config in configs:
        counts: Counter[str] = Counter()
        places: dict[str, set[str]] = {}
        for key, shape in method_of(config).shapes(config, layout).items():
            path = _path(key, kinds)
            is_prefix = path in attentions and key.removeprefix(path).startswith(".prefix_")
            kind = "prefix" if is_prefix else kinds.get(path, path)
            counts[kind] += _size(shape)
            places.setdefault(kind, set()).add(path)
        for kind, parameters in counts.items():
            yield Row(
                adapter=name,
                method=config.method,
                site=kind,
                places=len(places[kind]),
                parameters=parameters,
                share=parameters / base,
            )


def _kinds(layout: Layout) -> dict[str, str]:
    """Return the path of each place of a model → its kind; a linear map goes before a residual site of its path."""
    return (
        {block.path: "layer" for block in layout.blocks}
        | {embedding.path: "embedding" for embedding in layout.embeddings}
        | {site.path: site.role for site in layout.sites}
        | {linear.path: "+".join(linear.roles) or "linear" for linear in layout.linears}
        | {embedding.tokens: "embedding" for embedding in layout.embeddings if embedding.tokens is not None}
        | {norm.path: "norm" for norm in layout.norms}
    )


def _path(key: str, kinds: Mapping[str, str]) -> str:
    """Return the longest beginning of a key that is the path of a place, or its first word: `head`, `shared`."""
    path = key
    while path and path not in kinds:
        path = path.rpartition(".")[0]
    return path or key.partition(".")[0]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _align(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column >= 3 else cell.ljust(width)
