"""Two adapters side by side: how large their updates are, how far apart, and which directions they share.

Of low-rank updates everything is computed from matrices of the size of the ranks. With D_i = U_i S_i V_iᵀ, the
principal angles between what two updates write are the arc cosines of the singular values of U_1ᵀ U_2, and between what
they read those of V_1ᵀ V_2 (Björck and Golub 1973, Mathematics of Computation 27, 579-594).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..architectures import Architecture
from ..methods import factoring
from ..methods.deltas import Changes, Delta, weight_of
from . import products
from .manifest import base_of
from .parents import Parent, taken_apart
from .request import KnownBase, Read, Request, Source


@dataclass(frozen=True, slots=True)
class MapDifference:
    """The updates of two adapters at one linear map.

    Attributes:
        path: the map.
        ranks: numerical ranks of both; 0 where there is no update.
        norms: Frobenius norms of both.
        difference: Frobenius norm of their difference.
        cosine: ⟨D_1, D_2⟩ / (‖D_1‖ ‖D_2‖), None where one is zero.
        writes: principal angles between what they write, in degrees, smallest first.
        reads: principal angles between what they read, in degrees, smallest first.
    """

    path: str
    ranks: tuple[int, int]
    norms: tuple[float, float]
    difference: float
    cosine: float | None
    writes: tuple[float, ...] = ()
    reads: tuple[float, ...] = ()

    @property
    def shared_writes(self) -> float | None:
        """Mean of the squared cosines of the angles between what they write, None without angles."""
        return _shared(self.writes)

    @property
    def shared_reads(self) -> float | None:
        """Mean of the squared cosines of the angles between what they read, None without angles."""
        return _shared(self.reads)


def _shared(angles: Sequence[float]) -> float | None:
    return sum(math.cos(math.radians(angle)) ** 2 for angle in angles) / len(angles) if angles else None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor of two adapters, of methods that are no update of linear maps.

    Attributes:
        key: its key.
        norms: Frobenius norms of both, None where an adapter has none of it.
        difference: norm of their difference, None where they cannot be compared.
        cosine: the cosine between them, None where there is none.
    """

    key: str
    norms: tuple[float | None, float | None]
    difference: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two adapters differ.

    Attributes:
        names: what they are called.
        same: whether configurations and all tensors are equal.
        maps: their updates, map by map.
        tensors: all other tensors.
    """

    names: tuple[str, str]
    same: bool
    maps: tuple[MapDifference, ...]
    tensors: tuple[TensorDifference, ...]


def compare(
    first: Source,
    second: Source,
    *,
    base: KnownBase | None = None,
    row: Architecture | None = None,
    allow_base_mismatch: bool = False,
) -> Comparison:
    """Return how two adapters differ.

    Args:
        first: one adapter.
        second: the other.
        base: the base model, for methods whose updates depend on its weights.
        row: the model family, where it is none of those that are known.
        allow_base_mismatch: compare adapters that were made for different base models of one family.

    Raises:
        BaseMismatchError: they were made for different base models.
        UnsupportedError: an update depends on its input, or needs the base model and there is none.
    """
    base_of([first, second], allow_mismatch=allow_base_mismatch)
    one, two = taken_apart([first, second], (1.0, 1.0), Request(), base, row)
    pair = (one.changes(base), two.changes(base))
    paths = dict.fromkeys(path for side in pair for changes in side for path in changes.linears)
    read = None if base is None else base.parameter
    return Comparison(
        names=(first.name, second.name),
        same=_same(first, second),
        maps=tuple(_map(path, [_at(side, path) for side in pair], read) for path in paths),
        tensors=tuple(_tensors(one, two)),
    )


def _same(first: Source, second: Source) -> bool:
    a, b = first.adapter, second.adapter
    return (
        a.config == b.config
        and a.tensors.keys() == b.tensors.keys()
        and all(a.tensors[key].equal(b.tensors[key]) for key in a.tensors)
    )


def _at(side: Sequence[Changes], path: str) -> Delta | None:
    return next((changes.at(path) for changes in side if path in changes.linears), None)


def _map(path: str, deltas: Sequence[Delta | None], read: Read | None) -> MapDifference:
    """Return the difference at one map."""
    if all(delta is None or (delta.blocks and delta.gain is None) for delta in deltas):
        return _of_factors(path, deltas)
    return _of_matrices(path, deltas, read)


def _of_factors(path: str, deltas: Sequence[Delta | None]) -> MapDifference:
    blocks = [None if delta is None else delta.whole() for delta in deltas]
    terms = [(sign, block) for sign, block in zip((1.0, -1.0), blocks, strict=True) if block is not None]
    both = [None if block is None else factoring.of_product(block.a, block.b) for block in blocks]
    product = products.inner(blocks[0], blocks[1]) if blocks[0] is not None and blocks[1] is not None else 0.0
    norms = [0.0 if block is None else products.norm(block) for block in blocks]
    return _described(path, both, norms, products.norm(products.joined(terms)), product)


def _of_matrices(path: str, deltas: Sequence[Delta | None], read: Read | None) -> MapDifference:
    linear = next(delta.linear for delta in deltas if delta is not None)
    gained = any(delta is not None and delta.gain is not None for delta in deltas)
    weight = weight_of(linear, read) if gained and read is not None else None
    matrices = [None if delta is None else delta.matrix(weight) for delta in deltas]
    both = [None if matrix is None else factoring.of_matrix(matrix) for matrix in matrices]
    norms = [0.0 if matrix is None else float(matrix.norm()) for matrix in matrices]
    first, second = matrices
    if first is None or second is None:
        return _described(path, both, norms, max(norms), 0.0)
    return _described(path, both, norms, float((first - second).norm()), float((first * second).sum()))


def _described(
    path: str,
    both: Sequence[factoring.Factored | None],
    norms: Sequence[float],
    difference: float,
    product: float,
) -> MapDifference:
    lengths = norms[0] * norms[1]
    first, second = (one if one is not None and norm else None for one, norm in zip(both, norms, strict=True))
    angles: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    if first is not None and second is not None:
        angles = (principal_angles(first.b, second.b), principal_angles(first.a.t(), second.a.t()))
    return MapDifference(
        path=path,
        ranks=(0 if first is None else first.rank, 0 if second is None else second.rank),
        norms=(norms[0], norms[1]),
        difference=difference,
        cosine=max(-1.0, min(1.0, product / lengths)) if lengths else None,
        writes=angles[0],
        reads=angles[1],
    )


def principal_angles(one: Tensor, two: Tensor) -> tuple[float, ...]:
    """Return the principal angles between the columns of two matrices (d, r_1) and (d, r_2), in degrees.

    Small angles are taken from sines, which tell them to the last digits; cosines do not.

    >>> principal_angles(torch.eye(3)[:, :1].double(), torch.eye(3)[:, 1:].double())
    (90.0,)
    """
    q_1, q_2 = (torch.linalg.qr(matrix).Q for matrix in (one, two))
    if q_1.shape[1] < q_2.shape[1]:
        q_1, q_2 = q_2, q_1
    cosines = torch.linalg.svdvals(q_1.t() @ q_2).clamp(max=1.0)
    sines = torch.linalg.svdvals(q_2 - q_1 @ (q_1.t() @ q_2)).flip(0).clamp(max=1.0)
    angles = torch.where(cosines**2 > 0.5, torch.asin(sines), torch.acos(cosines))
    return tuple(round(math.degrees(float(angle)), 9) for angle in angles)


def _tensors(one: Parent, two: Parent) -> Iterator[TensorDifference]:
    """Yield the differences of tensors that belong to no update of linear maps."""
    updates = {key for parent in (one, two) for config in parent.maps for key in parent.keys(config)}
    sides = (one.adapter.tensors, two.adapter.tensors)
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        if key in updates:
            continue
        a, b = (side[key].detach().double() if key in side else None for side in sides)
        norms = (None if a is None else float(a.norm()), None if b is None else float(b.norm()))
        if a is None or b is None or a.shape != b.shape:
            yield TensorDifference(key, norms, None, None)
            continue
        lengths = float(a.norm() * b.norm())
        cosine = max(-1.0, min(1.0, float((a * b).sum()) / lengths)) if lengths else None
        yield TensorDifference(key, norms, float((a - b).norm()), cosine)
