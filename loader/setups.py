"""What a composition does to a model: the operations of its adapters put together, place by place.

`bound(node, leaves, …)` turns a composition into one Binding. The rules are the papers'; where `adapters` 1.3.0
computes something else, compat.py does it on demand.

- Stack: each adapter takes what the one before it leaves. Updates of linear maps add up.
- Average: the weighted sum of what each makes of the same input. An adapter that has nothing at a place counts there
  with the unchanged hidden states.
- Split, BatchSplit, per row: each its tokens or rows, as if it were alone with them.
- Parallel: the batch repeated, then as BatchSplit.
- Fuse: AdapterFusion at the residual sites (Pfeiffer et al. 2021).
- Heads: the last one's in a stack; in an average, a split or a fusion the only one there is, or the fusion layer's;
  each row its own side by side.
- Parameters that stand in for the base's own (layer norms): the last one's in a stack, the weighted mean in an average
  (exact: a norm's output is linear in them), the mean in a fusion, each row's own per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..composition import Average, BatchSplit, Fuse, MultiTask, Node, Parallel, Split, Stack, last
from ..errors import UnsupportedError
from ..methods import Binding
from ..sites import Attention
from . import combined_heads as heads
from . import combined_prefixes as prefixes
from .combined import BLOCK, EMBEDDING, LINEAR, SITE, Averaged, Fused, Kind, Parts, Stacked
from .combined_rows import Rows
from .combined_tasks import TaskIds, Tasks
from .compat import bound as compat_bound
from .layout import Ground
from .norms import Normed, Own

KINDS: tuple[tuple[str, Kind], ...] = (
    ("sites", SITE),
    ("linears", LINEAR),
    ("blocks", BLOCK),
    ("embeddings", EMBEDDING),
)
"""Field of Binding → kind of its places."""

Leaf = Callable[[str], Binding]
Combine = Callable[[Kind, Sequence[Any]], Any]
"""Kind and what each child has at a place, or None → the operation there."""


@dataclass(frozen=True, slots=True)
class PerRow:
    """One adapter for each row of a batch; None is the base model."""

    names: tuple[str | None, ...]

    def __str__(self) -> str:
        return f"per_row({', '.join(name or '-' for name in self.names)})"


@dataclass(frozen=True, slots=True)
class Setup:
    """A composition on a model.

    Attributes:
        binding: what stands where.
        copies: how often the batch is repeated in front of the base model.
        tasks: where the rows' tasks are looked up, or None where nothing asks for them.
    """

    binding: Binding
    copies: int = 1
    tasks: TaskIds | None = None


@dataclass(frozen=True, slots=True)
class Headed:
    """A composition with what is said of it besides: whose head answers, by which rules, and its name.

    Attributes:
        node: the composition.
        head: name of the adapter whose head answers in place of those in the composition, "" for those.
        compat: compute what `adapters` does, whatever the set does otherwise.
        name: what it is called, "" where it has no name.
    """

    node: Node | PerRow
    head: str = ""
    compat: bool = False
    name: str = ""

    def __str__(self) -> str:
        return self.name or (f"{self.node}, head {self.head}" if self.head else str(self.node))


def bound(node: Node | PerRow | Headed, leaf: Leaf, attentions: Sequence[Attention], *, compat: bool = False) -> Setup:
    """Return what a composition does to a model.

    leaf: name of an adapter, or of a fusion layer → its binding.
    attentions: those of the model.
    compat: as `adapters` computes it; see compat.py.

    Raises:
        UnsupportedError: an adapter cannot stand there; it is named with the place.
    """
    if isinstance(node, Headed) and not node.head:
        return bound(node.node, leaf, attentions, compat=compat or node.compat)
    if isinstance(node, Headed):
        head = leaf(node.head).head
        if head is None:
            raise UnsupportedError(f"{node.head!r} has no head", hint="name an adapter that has one")
        made = bound(node.node, partial(_headless, leaf), attentions, compat=compat or node.compat)
        return replace(made, binding=replace(made.binding, head=head))
    if isinstance(node, PerRow):
        children = {name: leaf(name) for name in node.names if name is not None}
        rows = _by_rows([None if name is None else children[name] for name in node.names])
        prefixes.check_bias(rows.attentions)
        return Setup(rows)
    tasks = _tasks(node)
    if not compat:
        whole = _bound(node, leaf, tasks)
        prefixes.check_bias(whole.attentions)
        return Setup(whole, copies(node), tasks)
    # Heads and prefixes of one length mean the same in `adapters`.
    binding = _bound(node, partial(_unplaced, leaf), tasks)
    filled = prefixes.as_in_adapters(binding.attentions, attentions)
    kept = {name: getattr(binding, name) for name in ("positions", "head")}
    whole = replace(compat_bound(node, leaf, tasks), attentions=filled, **kept)
    # There the first module that has adapters repeats the batch.
    return Setup(whole, copies(node) if whole.sites or whole.linears or whole.attentions else 1, tasks)


def _unplaced(leaf: Leaf, name: str) -> Binding:
    """Return a binding without what compat.py puts together."""
    found = leaf(name)
    kept = prefixes.without_empty(found.attentions)
    return replace(found, attentions=kept, sites={}, linears={}, blocks={}, embeddings={}, prompts={})


def _headless(leaf: Leaf, name: str) -> Binding:
    return replace(leaf(name), head=None)


def _tasks(node: Node) -> TaskIds | None:
    """Return where the tasks of a composition are looked up: its children's last adapters, in order."""
    if isinstance(node, MultiTask):
        return TaskIds([last(child) for child in node.children])
    found = [] if isinstance(node, str) else [ids for child in node.children if (ids := _tasks(child)) is not None]
    return found[0] if found else None


def copies(node: Node) -> int:
    """Return how often a composition wants the batch repeated.

    >>> copies(Stack("a", Parallel("b", "c")))
    2
    """
    if isinstance(node, str):
        return 1
    return max([len(node.children) if isinstance(node, Parallel) else 1, *map(copies, node.children)])


def operations(binding: Binding, ground: Ground) -> Binding:
    """Return the binding of one adapter with nothing but operations, so that it can be put together with others."""
    owns = {path: Own(path, ground.modules[path], own) for path, own in binding.parameters.items()}
    linears: dict[str, Any] = {
        path: Stacked(LINEAR, [own, binding.linears[path]]) if path in binding.linears else own
        for path, own in owns.items()
    }
    sites: dict[str, Any] = dict(binding.sites)
    for site in ground.layout.sites:
        op = binding.sites.get(site.path)
        path = site.norm or site.inner
        if op is not None and op.reads_norm and path is not None:
            norm = owns.get(path) or Own(path, ground.modules[path], {})
            sites[site.path] = Normed(op, norm)
    return replace(binding, sites=sites, linears={**binding.linears, **linears}, parameters={})


def _bound(node: Node, leaf: Leaf, tasks: TaskIds | None) -> Binding:
    if isinstance(node, str):
        return leaf(node)
    children = [_bound(child, leaf, tasks) for child in node.children]
    if isinstance(node, Stack):
        return replace(_together(children, Stacked, prefixes.StackedPrefixes), head=heads.last(children))
    if isinstance(node, Average):
        made = _together(children, partial(_averaged, weights=node.weights))
        return replace(made, head=heads.only(children, "an average"))
    if isinstance(node, Split):
        made = _together(children, partial(Parts, dim=1, sizes=node.splits))
        return replace(made, head=heads.only(children, "a split"))
    if isinstance(node, BatchSplit):
        return _by_rows([child for child, size in zip(children, node.batch_sizes, strict=True) for _ in range(size)])
    if isinstance(node, Parallel):
        which: prefixes.Which = prefixes.EachPart(len(children))
        made = _together(children, partial(Parts, dim=0), partial(prefixes.RowPrefixes, which=which))
        return replace(made, head=heads.side_by_side(children, which))
    if isinstance(node, Fuse):
        return _fused(node, children, leaf)
    if isinstance(node, MultiTask) and tasks is not None:
        which = prefixes.EachTask(tasks)
        made = _together(children, partial(Tasks, ids=tasks), partial(prefixes.RowPrefixes, which=which))
        return replace(made, head=heads.side_by_side(children, which))
    raise UnsupportedError(f"{node.type} is not known here")


def _by_rows(rows: Sequence[Binding | None]) -> Binding:
    """Return what acts where each row of a batch has its own; None is the base model."""
    which = prefixes.EachRow(len(rows))
    children = [Binding() if row is None else row for row in rows]
    made = _together(children, Rows, partial(prefixes.RowPrefixes, which=which))
    return replace(made, head=heads.side_by_side(children, which))


def _averaged(kind: Kind, ops: Sequence[Any], weights: Sequence[float]) -> Averaged:
    return Averaged(kind, ops, weights)


def _together(children: Sequence[Binding], combine: Combine, join: prefixes.Join | None = None) -> Binding:
    """Return the operations of the children put together in one way at every place.

    join: how prefixes are put together, None where they cannot be.
    """
    found = prefixes.together(children, join)
    for field, kind in KINDS:
        places = dict.fromkeys(path for child in children for path in getattr(child, field))
        found[field] = {path: combine(kind, [getattr(child, field).get(path) for child in children]) for path in places}
    return Binding(**found)


def _fused(node: Fuse, children: Sequence[Binding], leaf: Leaf) -> Binding:
    """Return AdapterFusion at every site where the children stand, and the mean of what stands elsewhere."""
    layer = leaf(node.key)
    mixings = layer.fusions
    for child in children:
        for field in ("linears", "attentions", "blocks", "embeddings", "prompts"):
            for path in getattr(child, field):
                if not isinstance(getattr(child, field)[path], Own):
                    raise UnsupportedError(f"fuse holds bottleneck adapters only; one of its adapters acts at {path}")
    sites: dict[str, Any] = {}
    for path in dict.fromkeys(path for child in children for path in child.sites):
        ops = [child.sites[path] for child in children if path in child.sites]
        if path not in mixings:
            raise UnsupportedError(f"the fusion layer {node.key!r} has nothing at {path}, where its adapters stand")
        sites[path] = Fused(ops, mixings[path], _last(ops[-1]))
    weights = [1 / len(children)] * len(children)
    made = _together([replace(c, sites={}) for c in children], partial(_averaged, weights=weights))
    head = layer.head if layer.head is not None else heads.only(children, "a fusion")
    return replace(made, sites=sites, head=head)


def _last(op: Any) -> Any:
    return op.ops[-1] if isinstance(op, Stacked) else op
