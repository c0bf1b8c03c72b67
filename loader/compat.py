"""Compositions as `adapters` 1.3.0 computes them, where that departs from what they mean; attach(compat="adapters").

Each departure, in one place:

- Average: the mean over the children of weight · output, although the weights add up to 1 already: 1 / n too small.
- Stack of bottlenecks: every child sets out from what the one before left, but d + x and its norm are taken anew, and
  a parallel one forgets what came before it.
- Split, BatchSplit, Parallel and Average: what enters the children is made once, as the first adapter wants it; a
  child that is a stack makes it once more; a child that has nothing there leaves what was made.
- Stack of updates of linear maps: the next is applied to the change that the one before made, so the changes multiply.
- Rows of which the first have no update at a linear map: those of the others are lost; the next of a stack acts on all.
- Fuse of parallel bottlenecks adds x once more.
- Layers, embeddings and prompts: only the first adapter acts.
- Prefixes of different lengths side by side: rows see what the shorter ones are filled up with; see prefix_filling.py.

docs/compositions.md tells this to users.

Source: adapters 1.3.0, methods/adapter_layer_base.py, bottleneck.py, modeling.py, lora.py and prefix_tuning.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..composition import (
    Average,
    BatchSplit,
    Composition,
    Fuse,
    MultiTask,
    Node,
    Parallel,
    Split,
    Stack,
    fusions,
    last,
    leaves,
)
from ..errors import UnsupportedError, UsageError
from ..methods import Binding, Chainable, FusionOp
from .combined_tasks import TaskIds
from .norms import Own

C = TypeVar("C", bound=Composition)


class _Sites(NamedTuple):
    """What is known at a residual site on the way through a composition; each is (batch, sequence, width)."""

    hidden: Tensor
    x: Tensor | None
    r: Tensor | None = None
    up: Tensor | None = None
    last: str | None = None


class CompatSite:
    """Bottlenecks at one residual site."""

    __slots__ = ("mixings", "node", "ops", "reads_norm", "reads_residual", "replaces_norm", "tasks")

    def __init__(
        self, node: Node, ops: Mapping[str, Any], mixings: Mapping[str, FusionOp], tasks: TaskIds | None
    ) -> None:
        self.node = node
        self.tasks = tasks
        self.ops = dict(ops)
        self.mixings = dict(mixings)
        for fuse in _nodes(node, Fuse):
            if fuse.key not in mixings and any(name in ops for name in leaves(fuse)):
                raise UnsupportedError(f"the fusion layer {fuse.key!r} has nothing at a site where its adapters stand")
        self.reads_residual = any(op.reads_residual for op in ops.values())
        self.reads_norm = any(op.reads_norm for op in ops.values())
        self.replaces_norm: bool = ops[_last(node, ops)].replaces_norm

    def __call__(self, d: Tensor, x: Tensor | None, norm: Any) -> Tensor:
        """Return the new d (batch, sequence, width)."""
        state = _Sites(d, x)
        node = self.node if isinstance(self.node, Composition) else Stack(self.node)
        state = self._compose(node, state, norm)
        op = self.ops[state.last] if state.last is not None else next(iter(self.ops.values()))
        u = state.hidden + d if op.config.is_parallel else state.hidden
        found: Tensor = op.ended(u, state.x)
        return found

    def _compose(self, node: Node, state: _Sites, norm: Any) -> _Sites:
        if isinstance(node, str):
            return self._single(node, state) if node in self.ops else state
        if isinstance(node, Stack):
            return self._stack(node, state, norm)
        if isinstance(node, Fuse):
            return self._fuse(node, state, norm)
        state = self._prepared(leaves(node)[0], state, norm)
        if isinstance(node, Average):
            return self._average(node, state, norm)
        if isinstance(node, MultiTask) and self.tasks is not None:
            order, node = _sorted(node, self.tasks.get())
            return _rows(self._parts(node, _rows(state, order), norm), order.argsort())
        return self._parts(node, state, norm)

    def _parts(self, node: Composition, state: _Sites, norm: Any) -> _Sites:
        if isinstance(node, Split) and not all(map(self._has, node.children)):
            raise UnsupportedError("a split of which some adapters have nothing at a site fails in `adapters`")
        dim = 1 if isinstance(node, Split) else 0
        parts = _cut(state, _sizes(node, state.hidden.shape[dim]), dim)
        done = [self._compose(child, part, norm) for child, part in zip(node.children, parts, strict=True)]
        lasts = [part.last for part in done if part.last is not None]
        return _joined(done, dim)._replace(last=lasts[-1] if lasts else state.last)

    def _stack(self, node: Stack, state: _Sites, norm: Any) -> _Sites:
        for child in node.children:
            if isinstance(child, str) and child in self.ops:
                state = self._prepared(child, state, norm)
            state = self._compose(child, state, norm)
        return state

    def _average(self, node: Average, state: _Sites, norm: Any) -> _Sites:
        done = [self._compose(child, state, norm) for child in node.children if self._has(child)]
        if len(done) not in (1, len(node.children)):
            raise UnsupportedError("an average of which some adapters have nothing at a site fails in `adapters`")
        weights = node.weights if len(done) > 1 else (sum(node.weights),)
        total = sum(part.hidden * weight for part, weight in zip(done, weights, strict=True))
        return done[0]._replace(hidden=torch.as_tensor(total) / len(node.children), last=done[-1].last)

    def _fuse(self, node: Fuse, state: _Sites, norm: Any) -> _Sites:
        op, mixing = self.ops[last(node)], self.mixings[node.key]
        t, r, _ = op.prepared(state.hidden, state.x, norm)
        if op.config.is_parallel and state.x is not None:
            r = state.x
        query = state.hidden if mixing.reads_d and not op.config.is_parallel else t
        inner = state._replace(hidden=t, r=r)
        ups = [self._compose(child, inner, norm).up for child in node.children if self._has(child)]
        return inner._replace(hidden=mixing(query, [up for up in ups if up is not None], r), last=last(node))

    def _prepared(self, name: str, state: _Sites, norm: Any) -> _Sites:
        if name not in self.ops:
            raise UnsupportedError(f"{name!r} has nothing at a site where the others have, at which `adapters` fails")
        t, r, _ = self.ops[name].prepared(state.hidden, state.x, norm)
        return state._replace(hidden=t, r=state.x if self.ops[name].config.is_parallel else r)

    def _single(self, name: str, state: _Sites) -> _Sites:
        op = self.ops[name]
        r = torch.zeros_like(state.hidden) if op.config.is_parallel else state.r
        return state._replace(hidden=op.joined(state.hidden, r), up=op.raw(state.hidden), last=name)

    def _has(self, node: Node) -> bool:
        return any(name in self.ops for name in leaves(node))


def _last(node: Node, ops: Mapping[str, Any]) -> str:
    """Return the last adapter in a node that has an operation."""
    if isinstance(node, str):
        return node
    return _last([child for child in node.children if any(name in ops for name in leaves(child))][-1], ops)


def _nodes(node: Node, kind: type[C]) -> Iterator[C]:
    """Yield the compositions of a kind in another one, itself included."""
    if isinstance(node, kind):
        yield node
    if isinstance(node, Composition):
        for child in node.children:
            yield from _nodes(child, kind)


def _sorted(node: MultiTask, ids: Tensor) -> tuple[Tensor, BatchSplit]:
    """Return the order of the rows by their tasks, and the split of the batch that they make then."""
    counts = [int((ids == number).sum()) for number in range(len(node.children))]
    children = [child for child, count in zip(node.children, counts, strict=True) if count]
    return ids.argsort(stable=True), BatchSplit(*children, batch_sizes=[count for count in counts if count])


def _rows(state: _Sites, order: Tensor) -> _Sites:
    x, r, up = (None if t is None else t.index_select(0, order) for t in (state.x, state.r, state.up))
    return _Sites(state.hidden.index_select(0, order), x, r, up, state.last)


def _joined(parts: Sequence[_Sites], dim: int) -> _Sites:
    """Return parts of a state put together along a dimension."""

    def together(values: Sequence[Any]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present, dim) if len(present) == len(values) else None

    x, r, up = (together([part[place] for part in parts]) for place in (1, 2, 3))
    return _Sites(torch.cat([part.hidden for part in parts], dim), x, r, up)


def _cut(state: _Sites, sizes: Sequence[int], dim: int) -> list[_Sites]:
    """Return the parts of a state along a dimension."""

    def part(value: Tensor | None, start: int, size: int) -> Tensor | None:
        return None if value is None else value.narrow(dim, start, size)

    found, start = [], 0
    for size in sizes:
        x, r, up = (part(value, start, size) for value in (state.x, state.r, state.up))
        found.append(_Sites(state.hidden.narrow(dim, start, size), x, r, up, state.last))
        start += size
    return found


def _sizes(node: Composition, length: int) -> Sequence[int]:
    """Return how many tokens or rows each child takes."""
    if isinstance(node, Split):
        sizes, what = node.splits, "splits"
    elif isinstance(node, BatchSplit):
        sizes, what = node.batch_sizes, "batch sizes"
    elif isinstance(node, Parallel):
        return [length // len(node.children)] * len(node.children)
    else:
        raise UnsupportedError(f"{node.type} is not known to `adapters` here")
    if sum(sizes) != length:
        raise UsageError(f"the {what} {list(sizes)} add up to {sum(sizes)}, and the input has {length}")
    return sizes


class CompatLinear:
    """Updates at one linear map."""

    __slots__ = ("node", "ops", "tasks")

    def __init__(self, node: Node, ops: Mapping[str, Any], tasks: TaskIds | None) -> None:
        self.node = node
        self.tasks = tasks
        self.ops = dict(ops)
        parts = [op for op in ops.values() if not (isinstance(op, Chainable) and op.chains)]
        if parts:
            where, op = next((path, op) for path, op in ops.items() if op is parts[0])
            what = "parameters of its own (trained layer norms)" if isinstance(op, Own) else type(op).__name__
            raise UnsupportedError(f"{where!r} has {what}, which `adapters` does not put into compositions")
        for kind in (Fuse, Split):
            if any(name in ops for found in _nodes(node, kind) for name in leaves(found)):
                raise UnsupportedError(f"{kind.__name__} holds bottleneck adapters only in `adapters`")

    def __call__(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return the adapted y (…, outputs)."""
        y = forward(x)
        change = self._compose(self.node, x, None)
        if change is None:
            raise UnsupportedError("no change of any adapter reaches a linear map, at which `adapters` fails")
        found: Tensor = self.ops[_last(self.node, self.ops)].changed(y, change)
        return found

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse: `adapters` merges single adapters only."""
        raise UnsupportedError("a composition is not merged with compat='adapters'; attach without it")

    def _compose(self, node: Node, x: Tensor, change: Tensor | None) -> Tensor | None:
        if isinstance(node, str):
            found: Tensor | None = self.ops[node].change(change, x) if node in self.ops else change
            return found
        if isinstance(node, Stack):
            for child in node.children:
                change = self._compose(child, x, change)
            return change
        if isinstance(node, Average):
            return self._average(node, x, change)
        if isinstance(node, MultiTask) and self.tasks is not None:
            order, split = _sorted(node, self.tasks.get())
            before_ = None if change is None else change.index_select(0, order)
            done_ = self._compose(split, x.index_select(0, order), before_)
            return None if done_ is None else done_.index_select(0, order.argsort())
        parts = x.split(list(_sizes(node, x.shape[0])))
        before = [None] * len(parts) if change is None else change.split([len(part) for part in parts])
        done = [self._compose(c, part, b) for c, part, b in zip(node.children, parts, before, strict=True)]
        if done[0] is None:
            return None  # what changes the other rows is lost there
        present = [part for part in done if part is not None]
        if len(present) < len(done):
            raise UnsupportedError("rows of which some have no adapter at a linear map fail in `adapters`")
        return torch.cat(present)

    def _average(self, node: Average, x: Tensor, change: Tensor | None) -> Tensor | None:
        children = [c for c in node.children if any(name in self.ops for name in leaves(c))]
        if not children:
            return change
        if len(children) not in (1, len(node.children)):
            raise UnsupportedError("an average of which some adapters have nothing at a map fails in `adapters`")
        weights = node.weights if len(children) > 1 else (sum(node.weights),)
        changes = [self._compose(child, x, change) for child in children]
        total = sum(part * weight for part, weight in zip(changes, weights, strict=True) if part is not None)
        return torch.as_tensor(total) / len(node.children)


def bound(node: Node, leaf: Callable[[str], Binding], tasks: TaskIds | None) -> Binding:
    """Return what a composition does to a model in `adapters`; see setups.bound."""
    children = {name: leaf(name) for name in leaves(node)}
    mixings = {name: leaf(name).fusions for name in fusions(node)}
    sites, linears = (
        dict.fromkeys(path for child in children.values() for path in getattr(child, field))
        for field in ("sites", "linears")
    )
    acting: dict[str, Any] = {
        path: CompatSite(
            node,
            {name: child.sites[path] for name, child in children.items() if path in child.sites},
            {name: mixing[path] for name, mixing in mixings.items() if path in mixing},
            tasks,
        )
        for path in sites
    }
    maps = {
        path: CompatLinear(
            node, {name: child.linears[path] for name, child in children.items() if path in child.linears}, tasks
        )
        for path in linears
    }
    first = children[leaves(node)[0]]
    return Binding(sites=acting, linears=maps, blocks=first.blocks, embeddings=first.embeddings, prompts=first.prompts)
