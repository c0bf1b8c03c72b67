"""The head of a merged adapter: one that all have, one that is chosen, or the mean of equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapter import MethodConfig
from ..errors import UnsupportedError, UsageError
from .parents import Parent, essence
from .tensors import dtype


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What a merged adapter answers with.

    Attributes:
        config: its configuration, or () without a head.
        tensors: its tensors.
        labels: names of its classes.
        how: what became of the heads, for the report.
    """

    config: tuple[MethodConfig, ...] = ()
    tensors: dict[str, Tensor] | None = None
    labels: tuple[str, ...] = ()
    how: str = "none"


def head_for(parents: Sequence[Parent], wanted: str | None) -> Head:
    """Return the head of the result.

    wanted: see Request.head.

    Raises:
        UnsupportedError: the heads differ, and nothing says what to do, or they cannot be averaged.
        UsageError: no adapter with a head has the wanted name.
    """
    having = [parent for parent in parents if parent.head is not None]
    if wanted == "none" or (not having and wanted in (None, "mean")):
        return Head()
    if wanted not in (None, "mean"):
        named = (parent for parent in having if wanted in (parent.name, parent.adapter.manifest.name))
        return _of(next(named, None), wanted, having)
    differences = list(_differences(parents, with_values=wanted is None))
    if not differences:
        return _kept(parents[0], "the same in all") if wanted is None else _mean(parents)
    hint = "--head NAME takes one, --head none leaves it out"
    if wanted is None and not list(_differences(parents, with_values=False)):
        hint = f"--head mean averages them, {hint}"
    raise UnsupportedError(f"the heads cannot be merged: {'; '.join(differences)}", hint=hint)


def _of(parent: Parent | None, wanted: str | None, having: Sequence[Parent]) -> Head:
    if parent is None:
        known = ", ".join(one.name for one in having) or "none of them"
        raise UsageError(f"no adapter called {wanted!r} has a head", hint=f"those with one: {known}")
    return _kept(parent, f"that of {parent.name}")


def _kept(parent: Parent, how: str) -> Head:
    if parent.head is None:
        raise AssertionError("only parents with a head are kept")
    tensors = {key: parent.adapter.tensors[key].clone() for key in parent.keys(parent.head)}
    return Head((parent.head,), tensors, parent.adapter.manifest.labels, how)


def _mean(parents: Sequence[Parent]) -> Head:
    """Return the mean of heads of one kind, by the weights."""
    first = parents[0]
    if first.head is None:
        raise AssertionError("heads that differ are refused")
    total = sum(parent.weight for parent in parents)
    if total == 0:
        raise UsageError("the weights add up to 0, so the heads have no mean", hint="--head NAME takes one of them")
    found = {}
    for key in first.keys(first.head):
        tensors = [parent.adapter.tensors[key] for parent in parents]
        mean = torch.zeros(tensors[0].shape, dtype=torch.float64)
        for parent, tensor in zip(parents, tensors, strict=True):
            mean += parent.weight / total * tensor.detach().cpu().double()
        found[key] = mean.to(dtype(tensors))
    return Head((first.head,), found, first.adapter.manifest.labels, "the mean")


def _differences(parents: Sequence[Parent], *, with_values: bool) -> list[str]:
    """Return in what the heads differ from the first one, one phrase for each adapter."""
    first = parents[0]
    found = []
    for other in parents[1:]:
        if (first.head is None) != (other.head is None):
            has, lacks = (first, other) if other.head is None else (other, first)
            found.append(f"{has.name} has a head, {lacks.name} has none")
        elif first.head is not None and other.head is not None:
            found += _difference(first, first.head, other, other.head, with_values=with_values)
    return found


def _difference(
    first: Parent, head: MethodConfig, other: Parent, theirs: MethodConfig, *, with_values: bool
) -> list[str]:
    pair = f"{first.name} and {other.name}"
    if essence(head) != essence(theirs):
        return [f"the heads of {pair} are of different kinds"]
    if first.adapter.manifest.labels != other.adapter.manifest.labels:
        return [f"the heads of {pair} have different labels"]
    one, two, keys = first.adapter.tensors, other.adapter.tensors, first.keys(head)
    if any(key not in two or one[key].shape != two[key].shape for key in keys):
        return [f"the heads of {pair} have different sizes"]
    if with_values and any(not one[key].equal(two[key]) for key in keys):
        return [f"the heads of {pair} have different weights"]
    return []
