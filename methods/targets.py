"""Which linear maps of a model a method acts on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import UsageError
from ..sites import PROJECTIONS, Layout, Linear
from .method import Roles

V = TypeVar("V")

ALL_LINEAR = "all-linear"
"""Stands for every linear map inside the layers."""

JOINT = "joint"
"""Stands for every map that computes several projections side by side, as a whole."""

WORDS = (*PROJECTIONS, ALL_LINEAR, JOINT)
"""What may be named besides module paths."""


@dataclass(frozen=True, slots=True)
class Target:
    """A linear map, and which of its equal parts are meant.

    Attributes:
        linear: the map.
        parts: indices of the parts of its output in ascending order; () is the whole.
    """

    linear: Linear
    parts: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """Its module path."""
        return self.linear.path

    @property
    def part_size(self) -> int:
        """Rows of the output that one part has."""
        return self.linear.outputs // max(1, len(self.linear.roles)) if self.parts else self.linear.outputs


def chosen(targets: Sequence[str], layout: Layout, *, leave_out: Iterable[int] = ()) -> list[Target]:
    """Return what targets mean in a layout, in the order of the model, each map once.

    Args:
        targets: projections (`query`, `intermediate`, …; self- and cross-attention alike), module paths, or
            `all-linear`. Of a map that computes several projections a projection means its part, a path or `joint`
            the whole.
        layout: where they are looked up.
        leave_out: layers without.

    Raises:
        UsageError: a path is no linear map of the model, or nothing is left.
    """
    key = (tuple(targets), tuple(leave_out))
    return list(layout.once(("targets", key), lambda: _chosen(*key, layout)))


def _chosen(targets: tuple[str, ...], leave_out: tuple[int, ...], layout: Layout) -> list[Target]:
    paths = {target for target in targets if target not in WORDS}
    unknown = sorted(paths - layout.linear.keys())
    if unknown:
        raise UsageError(
            f"the model has no linear map called {', '.join(unknown[:5])}" + (" …" if unknown[5:] else ""),
            hint=f"name a module of the base model, or one of {', '.join(WORDS)}",
        )
    left, wanted = set(leave_out), set(targets)
    # Most maps of a model are none of the targets: these are passed over without another look.
    some = not wanted & {ALL_LINEAR, JOINT}
    found = [
        _target(linear, targets, paths)
        for linear in layout.linears
        if linear.layer not in left and not (some and linear.path not in paths and wanted.isdisjoint(linear.roles))
    ]
    kept = [target for target in found if target is not None]
    if not kept and layout.linears:
        raise UsageError(
            f"no linear map of the model is one of {', '.join(targets)}", hint=f"known are {', '.join(PROJECTIONS)}"
        )
    return kept


def _target(linear: Linear, targets: Sequence[str], paths: set[str]) -> Target | None:
    if linear.path in paths or (ALL_LINEAR in targets and linear.layer is not None and linear.kind != "embedding"):
        return Target(linear)
    if JOINT in targets and len(linear.roles) > 1:
        return Target(linear)
    parts = tuple(i for i, role in enumerate(linear.roles) if role in targets)
    if not parts:
        return None
    return Target(linear, parts if len(linear.roles) > 1 else ())


def at(values: Mapping[str, V], linear: Linear, otherwise: V) -> V:
    """Return the value for a map: that of its path, else of what it is, a joint map first, else the other one."""
    joint = (JOINT,) if len(linear.roles) > 1 else ()
    return next((values[name] for name in (linear.path, *joint, *linear.roles) if name in values), otherwise)


def check_names(names: Iterable[str], targets: Iterable[Target]) -> None:
    """Refuse values given to maps that are none of the targets.

    Raises:
        UsageError: names them.
    """
    known = {*PROJECTIONS, JOINT, *(target.path for target in targets)}
    odd = [name for name in names if name not in known]
    if odd:
        raise UsageError(
            f"a value is given for {', '.join(odd[:5])}, which the adapter does not act on",
            hint=f"name one of its modules, or one of {', '.join(PROJECTIONS)}",
        )


def whole(path: str, rows: int, targets: Sequence[str], roles: Roles) -> int:
    """Return how many outputs a map has of which the chosen parts have so many rows together.

    path: the map's; roles: see method.Roles.
    """
    of = roles(path)
    parts = sum(role in targets for role in of) if len(of) > 1 and not {path, JOINT} & set(targets) else 0
    return rows * len(of) // parts if parts else rows


def widths(linears: Iterable[Linear]) -> tuple[int, ...]:
    """Return the hidden sizes that maps speak for: of what reads the residual stream, or writes to it.

    Maps whose place is not known do not count.
    """
    reads = ("query", "key", "value", "intermediate", "gate")
    found = []
    for linear in linears:
        if linear.roles and not linear.kernel:
            found.append(linear.inputs if linear.roles[0] in reads else linear.outputs)
    return tuple(size for size in found if size)
